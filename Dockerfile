# One image for both agencies: which one a container is, its environment says.

FROM python:3.13-slim AS build
# For machines behind a package mirror; empty means pip's own default. They stay in this stage.
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
RUN python -m venv /opt/noticebus
COPY requirements.image.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/noticebus/bin/pip install --quiet --no-deps --require-hashes --no-compile --requirement requirements.image.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY services services
RUN /opt/noticebus/bin/pip install --quiet --no-deps --no-build-isolation --no-index --no-compile . \
 && /opt/noticebus/bin/pip check --quiet \
 && /opt/noticebus/bin/pip uninstall --quiet --yes pip editables hatchling \
 && python -m compileall -q /opt/noticebus/lib

FROM python:3.13-slim
# The numbers are part of the deployment: volumes and compose.yaml refer to them. Each database and
# the bus read their secrets as members of a group of their own, so that no file is open to all.
RUN groupadd --gid 10001 noticebus \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/noticebus --shell /usr/sbin/nologin noticebus \
 && install --directory --owner 10001 --group 10001 --mode 0755 /var/lib/noticebus \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/noticebus/ice /var/lib/noticebus/hhs \
 && install --directory --owner 10001 --group 10002 --mode 2750 /var/lib/noticebus/redis \
 && install --directory --owner 10001 --group 10003 --mode 2750 /var/lib/noticebus/ice-db \
 && install --directory --owner 10001 --group 10004 --mode 2750 /var/lib/noticebus/hhs-db \
 && install --directory --owner 10001 --group 10001 --mode 0755 /dockets
COPY --from=build /opt/noticebus /opt/noticebus
ENV PATH=/opt/noticebus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NOTICEBUS_HOME=/var/lib/noticebus
WORKDIR /var/lib/noticebus
USER 10001:10001
ENTRYPOINT ["noticebus"]
CMD ["--help"]
