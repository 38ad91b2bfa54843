# The server. Build it from the root of the repository, for a CPU or for an NVIDIA GPU:
#   docker build -f docker/service.Dockerfile -t yolox-serve:cpu .
#   docker build -f docker/service.Dockerfile -t yolox-serve:gpu --build-arg FLAVOUR=gpu .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# An extra of pyproject.toml: `cpu`, or `gpu`, whose wheels bring CUDA and cuDNN with them.
ARG FLAVOUR=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
# The dependencies have a layer of their own, which a change of the source leaves as it is.
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN python requirements.py "${FLAVOUR}" fetch > requirements.txt \
 && pip --python /opt/venv/bin/python install --only-binary :all: -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY service service
COPY model_export model_export
RUN pip install --no-deps --target /opt/app .

FROM ${PYTHON_IMAGE} AS service
# pip compiled every module, so that nothing needs to be written beside them.
# glibc gives the memory of large images back to the system above the trim threshold.
# HOME is for caches alone (CUDA kernels, half-downloaded models); /tmp may be a tmpfs.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/opt/app \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_TRIM_THRESHOLD_=131072 \
    HOME=/tmp \
    YOLOX_HOST=0.0.0.0 \
    YOLOX_PORT=8000 \
    YOLOX_MODEL=/models/model.onnx \
    YOLOX_LOG_FORMAT=json
# A new named volume at /models takes its owner from this folder.
RUN groupadd --gid 10001 yolox \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin yolox \
 && install -d -o 10001 -g 10001 /models
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
COPY docker/healthcheck.py /opt/healthcheck.py
WORKDIR /opt/app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=120s --retries=3 \
  CMD ["python", "/opt/healthcheck.py"]
ENTRYPOINT ["python", "-m", "service"]
ARG FLAVOUR=cpu
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="yolox-serve (${FLAVOUR})" \
      org.opencontainers.image.description="YOLOX object detection: POST /detect behind a batched queue" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
