# syntax=docker/dockerfile:1
# The server on NVIDIA GPUs. `docker build -f deploy/gpu.Dockerfile -t velatura:gpu .` from the repository's root.
# CUDA and cuDNN come as wheels, in the versions that this onnxruntime was built for; the host gives
# the driver through the NVIDIA container toolkit. So the base is the CPU image's own.

FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/velatura
ENV PATH=/opt/velatura/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The pinned dependencies first: gigabytes that stay in the cache until a pin changes.
COPY constraints-gpu.txt ./
RUN pip install -r constraints-gpu.txt
COPY protos protos
COPY server server
RUN pip install -c constraints-gpu.txt ./protos './server[gpu,cuda]'

FROM python:3.12.11-slim-bookworm
LABEL org.opencontainers.image.title="velatura-server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 velatura \
    && useradd --uid 10001 --gid velatura --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin velatura
COPY --from=build /opt/velatura /opt/velatura
COPY LICENSE /usr/share/doc/velatura/LICENSE
COPY models /models
# Strict: a container that was promised a GPU must not serve from the CPU in silence.
ENV PATH=/opt/velatura/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VELATURA_BUNDLE=/models \
    VELATURA_LISTEN=0.0.0.0:8500 \
    VELATURA_METRICS_LISTEN=0.0.0.0:9090 \
    VELATURA_PROVIDER=cuda \
    VELATURA_STRICT_PROVIDER=true
USER 10001:10001
EXPOSE 8500 9090
# The first start compiles and tries out kernels, which takes longer than on a CPU.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-m", "velatura.server.healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["velatura-server"]
CMD ["serve"]
