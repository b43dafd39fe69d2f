# asgiri as an image: compiled, without a compiler, pip or a shell script in its way; nobody's user; files that are read only.
#
#     docker build -t asgiri .
#     docker run --rm --read-only -p 8000:8000 asgiri
#
# docs/operations/containers.md has your own application on top of it, and compose.

ARG PYTHON=3.13


FROM python:${PYTHON}-slim AS build

# The compiler stays in this stage.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*

# The pip of the base image fills it: none is inside.
RUN python -m venv --without-pip /opt/asgiri

# What asgiri depends on, before its sources: a change of these builds from here on, one of the sources from the next step.
WORKDIR /src
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['fast'], sep='\n')" > requirements.txt \
 && pip --python /opt/asgiri/bin/python install --no-cache-dir -r requirements.txt

# 1: a hot path that cannot be compiled fails the build; 0 leaves it in Python.
ARG ASGIRI_COMPILE=1
COPY setup.py README.md LICENSE ./
COPY asgiri asgiri/
RUN ASGIRI_COMPILE=${ASGIRI_COMPILE} pip --python /opt/asgiri/bin/python install --no-cache-dir --no-deps .

# Symbols for debuggers and what C extensions were made of: half of the size.
RUN find /opt/asgiri -name '*.so' -exec strip --strip-unneeded '{}' + \
 && find /opt/asgiri/lib '(' -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' ')' -delete


FROM python:${PYTHON}-slim

# A number that Kubernetes' runAsNonRoot can check, and a name for who asks who they are.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /srv --shell /usr/sbin/nologin asgiri

COPY --from=build /opt/asgiri /opt/asgiri
COPY config/container.yaml /etc/asgiri/asgiri.yaml

# Nothing is written at run time: bytecode was made by pip.
ENV PATH=/opt/asgiri/bin:$PATH PYTHONDONTWRITEBYTECODE=1

# The application: app_dir is where asgiri is started.
WORKDIR /srv
USER 10001:10001
EXPOSE 8000 9000
STOPSIGNAL SIGTERM

# /livez of admin.bind, which is asked for in the file above. -I: no module of the application is taken for one of Python's.
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-m", "asgiri.ctl.probe"]

ENTRYPOINT ["asgiri"]
CMD []
