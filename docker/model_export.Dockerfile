# Training, export and evaluation: `python -m model_export`, with torch. Mount the data.
# Build it from the root of the repository:
#   docker build -f docker/model_export.Dockerfile -t yolox-export .
# torch's usual Linux wheels contain CUDA. For a CPU build, name the package index that has the
# CPU wheels of torch with --build-arg EXTRA_INDEX_URL=... (docker/README.md).
# `make pin-images` adds the digest of the base.
ARG PYTHON_IMAGE=python:3.13-slim-trixie@sha256:bb2988715db2cf7ace7b53f38f3cffbef7c7046a656bee66245eb0ed386e2e81

FROM ${PYTHON_IMAGE} AS build
ARG EXTRA_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt docker/requirements.py docker/locks/model_export.txt ./
# Another index has other files of torch than those whose hashes are locked; the versions stay pinned.
RUN if [ -z "${EXTRA_INDEX_URL}" ]; then \
      pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r model_export.txt; \
    else \
      python requirements.py train fetch evaluate cpu > requirements.txt \
      && pip --python /opt/venv/bin/python install --only-binary :all: -c constraints.txt \
           --extra-index-url "${EXTRA_INDEX_URL}" -r requirements.txt; \
    fi
COPY hatch_build.py README.md LICENSE ./
COPY service service
COPY model_export model_export
COPY yolox_client yolox_client
COPY yolox_serve yolox_serve
RUN pip install --no-deps --target /opt/app .

FROM ${PYTHON_IMAGE} AS model_export
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/opt/app \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
RUN groupadd --gid 10001 yolox \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin yolox \
 && install -d -o 10001 -g 10001 /data /models /runs
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
WORKDIR /runs
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "model_export"]
CMD ["--help"]
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="yolox-export" \
      org.opencontainers.image.description="YOLOX training, export to ONNX and evaluation" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0"
