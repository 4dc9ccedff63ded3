# syntax=docker/dockerfile:1
# The load test: Locust and the thin client. `docker build -f deploy/loadtest.Dockerfile -t velatura-loadtest .`
# from the repository's root. No server, no networks, no numpy.

FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/velatura
ENV PATH=/opt/velatura/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The pinned dependencies first: this layer stays in the cache until a pin changes.
COPY constraints-load.txt ./
RUN pip install -r constraints-load.txt
COPY protos protos
COPY clients clients
RUN pip install -c constraints-load.txt ./protos './clients[loadtest]'

FROM python:3.12.11-slim-bookworm
LABEL org.opencontainers.image.title="velatura-loadtest" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 velatura \
    && useradd --uid 10001 --gid velatura --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin velatura \
    && install --directory --owner 10001 --group 10001 /out
COPY --from=build /opt/velatura /opt/velatura
COPY LICENSE /usr/share/doc/velatura/LICENSE
ENV PATH=/opt/velatura/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VELATURA_TARGET=velatura:8500 \
    VELATURA_LOAD_OUT=/out
USER 10001:10001
# The web page of `ui`; `run` needs no port.
EXPOSE 8089
HEALTHCHECK NONE
ENTRYPOINT ["velatura-loadtest"]
CMD ["run"]
