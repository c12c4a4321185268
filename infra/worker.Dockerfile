# The worker: the package with its tested versions, as a user without rights. CUDA comes with torch's wheels; the compiler
# is for `execution: compiled`, which writes C++ for the CPU and launchers for the GPU.
FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 DO_NOT_TRACK=1
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md prefect.yaml ./
COPY blora blora
COPY flows flows
COPY manifests manifests
COPY tasks tasks
RUN pip install --constraint constraints.txt ".[quantize]" && rm -rf /src \
    && useradd --uid 10001 --create-home blora
USER blora
WORKDIR /home/blora
# A volume that is mounted here takes over its owner; without it the volume would be root's.
RUN mkdir .cache
CMD ["prefect", "worker", "start", "--pool", "blora-gpu", "--limit", "1"]
