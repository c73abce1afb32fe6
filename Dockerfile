# syntax=docker/dockerfile:1
# The worker, and every other command of `runlane`. docker-compose.yml builds and runs it.

FROM python:3.12.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt ./
# The builder is pinned, and used without isolation: pip would fetch an unpinned one.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --only-binary :all: --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE worker.py ./
COPY activities activities
COPY ledger ledger
COPY runlane runlane
COPY runsapi runsapi
COPY workflows workflows
RUN pip wheel --no-build-isolation --no-deps --wheel-dir dist .
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/runlane \
    && pip --python /opt/runlane/bin/python install --only-binary :all: --constraint constraints.txt \
    "$(echo dist/*.whl)[azure,otel,postgres,s3]"

FROM python:3.12.13-slim-trixie
RUN pip uninstall --yes --quiet --root-user-action ignore pip \
    && groupadd --gid 10001 runlane \
    && useradd --uid 10001 --gid runlane --no-create-home --home-dir /var/lib/runlane runlane \
    && install --directory --owner runlane --group runlane --mode 0700 /var/lib/runlane
COPY --from=build /opt/runlane /opt/runlane
COPY deploy/healthcheck.py /opt/runlane/
ENV PATH=/opt/runlane/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RUNLANE_DATA_DIR=/var/lib/runlane \
    RUNLANE_METRICS_ADDRESS=0.0.0.0:9464
WORKDIR /var/lib/runlane
USER 10001:10001
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/runlane/healthcheck.py", "9464", "/healthz"]
# In exec form: SIGTERM must reach the worker, not a shell.
ENTRYPOINT ["runlane"]
CMD ["worker"]
