# The server needs Prefect and its Redis messaging, at the versions that are tested, and nothing of the product.
FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 DO_NOT_TRACK=1
RUN pip install prefect==3.8.8 "fastapi>=0.139,<0.151" "SQLAlchemy>=2.0,<2.1" prefect-redis==0.3.0 asyncpg \
    && useradd --uid 10001 --create-home prefect
USER prefect
WORKDIR /home/prefect
CMD ["prefect", "server", "start", "--host", "0.0.0.0", "--no-services"]
