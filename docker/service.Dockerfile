# The server. Build it from the root of the repository, for a CPU or for an NVIDIA GPU:
#   docker build -f docker/service.Dockerfile -t yolox-serve:cpu .
#   docker build -f docker/service.Dockerfile -t yolox-serve:gpu --build-arg FLAVOUR=gpu .
# --target fetch builds the image that fetches and adopts models, without a server.
# `make pin-images` adds the digest of the base; `make image` fills in the labels.
ARG PYTHON_IMAGE=python:3.13-slim-trixie@sha256:bb2988715db2cf7ace7b53f38f3cffbef7c7046a656bee66245eb0ed386e2e81

FROM ${PYTHON_IMAGE} AS build
# Extras of pyproject.toml: `cpu`, or `gpu`, whose wheels contain CUDA and cuDNN; and `grpc` and `tracing`.
ARG FLAVOUR=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
# The dependencies have a layer of their own, which stays cached when the source changes.
# pip installs the files whose hashes are locked, and no others.
COPY docker/locks/${FLAVOUR}.txt docker/locks/fetch.txt docker/trim.py ./
RUN pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r "${FLAVOUR}.txt" \
 && python trim.py /opt/venv/lib/python3*/site-packages
COPY hatch_build.py pyproject.toml README.md LICENSE ./
COPY service service
COPY model_export model_export
COPY yolox_client yolox_client
COPY yolox_serve yolox_serve
RUN pip install --no-deps --target /opt/app .

FROM build AS fetch-build
RUN pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r fetch.txt

FROM ${PYTHON_IMAGE} AS runtime
# pip compiled every module, so Python need not write bytecode.
# HOME holds only caches (CUDA kernels, half-downloaded models); /tmp may be a tmpfs.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/opt/app \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
# A new named volume at /models takes its owner from this folder.
RUN groupadd --gid 10001 yolox \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin yolox \
 && install -d -o 10001 -g 10001 /models
STOPSIGNAL SIGTERM
USER 10001:10001

FROM runtime AS fetch
COPY --from=fetch-build /opt/venv /opt/venv
COPY --from=fetch-build /opt/app /opt/app
WORKDIR /models
ENTRYPOINT ["python", "-m", "model_export"]
CMD ["--help"]

FROM runtime AS service
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
COPY docker/healthcheck.py /opt/healthcheck.py
# Above the trim threshold, glibc gives the memory of large images back to the system.
# Without YOLOX_MODEL the server serves the embedded model.
ENV MALLOC_TRIM_THRESHOLD_=131072 \
    YOLOX_HOST=0.0.0.0 \
    YOLOX_PORT=8000 \
    YOLOX_LOG_FORMAT=json
WORKDIR /opt/app
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=120s --retries=3 \
  CMD ["python", "/opt/healthcheck.py"]
ENTRYPOINT ["python", "-m", "service"]
ARG FLAVOUR=cpu
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="yolox-serve (${FLAVOUR})" \
      org.opencontainers.image.description="YOLOX object detection: POST /detect behind a batched queue" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0"
