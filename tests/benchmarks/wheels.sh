#!/usr/bin/env bash
# What a machine without a network needs beside torch 2.11 and torchvision, as wheels for Python 3.12 on Linux x86_64:
#
#   tests/benchmarks/wheels.sh library WHEELS     # every part of gpu_hour.sh but end_to_end
#   tests/benchmarks/wheels.sh pipeline WHEELS    # what end_to_end needs beside these; no buckets, no EfficientNet
#   python -m pip install --no-index --no-deps --find-links WHEELS WHEELS/*.whl       # on that machine
#
# In the versions of constraints.txt. PYTHON_VERSION and PLATFORM choose another machine.
set -euo pipefail
cd "$(dirname "$0")/../.."

library="accelerate annotated-doc annotated-types anyio attrs certifi charset-normalizer click diffusers filelock fsspec ftfy
h11 h2 hpack httpcore httpx huggingface-hub hyperframe hypothesis idna importlib-metadata iniconfig jinja2 markdown-it-py
markupsafe mdurl numpy open-clip-torch packaging peft pillow pluggy psutil pydantic pydantic-core pygments pytest
pytest-timeout pyyaml regex requests rich safetensors shellingham sortedcontainers timm tokenizers tqdm transformers typer
typing-extensions typing-inspection urllib3 wcwidth zipp"
pipeline="aiosqlite alembic amplitude-analytics apprise asgi-lifespan beartype burner-redis cachetools cloudpickle coolname
cronsim cyclopts dateparser docstring-parser exceptiongroup fastapi graphviz greenlet griffe griffecli griffelib humanize
jinja2-humanize-extension jsonpatch jsonpointer jsonschema jsonschema-specifications lazy-importer mako markdown oauthlib
opentelemetry-api orjson pathspec pendulum prefect prometheus-client py-key-value-aio pyarrow pydantic-extra-types
pydantic-settings pydocket python-dateutil python-dotenv python-json-logger python-slugify pytz readchar redis referencing
requests-oauthlib rfc3339-validator rich-rst rpds-py ruamel-yaml ruamel-yaml-clib semver six sniffio sqlalchemy starlette
text-unidecode toml tzdata tzlocal uncalled-for uvicorn websockets wrapt"

case ${1:-} in
library) names=$library ;;
pipeline) names=$pipeline ;;
*)
    echo "bundle: received '${1:-}'; accepted: library, pipeline" >&2
    exit 2
    ;;
esac
folder=${2:?where to put the wheels}
platforms=()
for platform in ${PLATFORM:-manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64}; do
    platforms+=(--platform "$platform")
done
# shellcheck disable=SC2086 # names are words
"${PYTHON:-python}" -m pip download --quiet --no-deps --only-binary :all: --dest "$folder" \
    --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --constraint constraints.txt $names
du --apparent-size --total --human-readable "$folder" | tail -1
