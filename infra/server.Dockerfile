# The server needs Prefect and its Redis messaging, at the versions that are tested, and nothing of the product.
FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 DO_NOT_TRACK=1
COPY constraints.txt ./
RUN pip install --constraint constraints.txt prefect prefect-redis asyncpg fastapi SQLAlchemy \
    && useradd --uid 10001 --create-home prefect
USER prefect
WORKDIR /home/prefect
CMD ["prefect", "server", "start", "--host", "0.0.0.0", "--no-services"]
