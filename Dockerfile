# What rules need, from the lock files, in one image (docs/clusters.md):
#   docker build --tag isaerft .
#   docker run --rm --volume "$PWD:/study" isaerft snakemake --snakefile /opt/isaerft/workflow/Snakefile --cores all
# Any base with Python 3.11 to 3.13, venv and apt will do. PyPI's torch brings CUDA; PIP_EXTRA_INDEX_URL names another index.
ARG BASE=docker.io/library/python:3.12-slim-bookworm
FROM ${BASE}
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/isaerft
COPY Makefile pyproject.toml README.md LICENSE requirements.lock requirements-model.lock requirements-torch.lock ./
COPY isaerft isaerft
RUN PIP_NO_CACHE_DIR=1 make environment
COPY workflow workflow
COPY config config
COPY profiles profiles
COPY data data
ENV PATH=/opt/isaerft/.venv/bin:$PATH
WORKDIR /study
