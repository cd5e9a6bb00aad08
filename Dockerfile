# docker build -t distillkit .                        the program
# docker build --target test -t distillkit-test .     the program and its tests
FROM python:3.12-slim AS program
# Another package index, such as one with torch's CPU builds, may be named as pip's own variables name it.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY distillkit distillkit
COPY presets presets
RUN pip install --no-cache-dir '.[all]'
# Whoever runs it with --user has a home for the caches, and writes into what is mounted at /work.
ENV HOME=/home/user
RUN mkdir --mode=777 /home/user /work
WORKDIR /work
ENTRYPOINT ["distillkit"]
CMD ["--help"]

FROM program AS test
RUN apt-get update \
 && apt-get install --yes --no-install-recommends chromium gcc git libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[test]'
ENTRYPOINT ["pytest"]
CMD []
