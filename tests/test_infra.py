"""What lies under infra/ as far as can be checked without Docker and Kubernetes: settings exist, templates render."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.templating import apply_values

INFRA = Path(__file__).parent.parent / "infra"

READ_SETTINGS = """
import json, os, sys
from prefect.settings import get_current_settings
from prefect.settings.legacy import _get_settings_fields
from prefect.settings.models.root import Settings
known = _get_settings_fields(Settings)
get_current_settings()
print(json.dumps([name for name in json.load(sys.stdin) if name not in known]))
"""


def unknown_settings(variables: dict[str, str]) -> list[str]:
    """Names that Prefect does not know; fails where it refuses a value."""
    plain = {name: value for name, value in variables.items() if "$" not in value}
    done = subprocess.run(
        [sys.executable, "-c", READ_SETTINGS],
        input=json.dumps(list(variables)),
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout))


def server_variables(file: str) -> dict[str, str]:
    body: dict[str, Any] = yaml.safe_load((INFRA / file).read_text())
    if "x-server" in body:
        found = body["x-server"]["environment"]
    else:
        found = {one["name"]: one["value"] for part in ("server", "backgroundServices") for one in body[part]["env"]}
    return {name: str(value) for name, value in found.items() if name.startswith("PREFECT_")}


@pytest.mark.parametrize("file", ["compose.yaml", "helm/prefect-server.values.yaml"])
def test_every_setting_of_the_server_is_one_that_prefect_knows(file: str) -> None:
    variables = server_variables(file)
    assert variables
    # The messaging package reads its own; it is not installed here.
    assert [name for name in unknown_settings(variables) if not name.startswith("PREFECT_REDIS_")] == []
    for name in ("TASK_RUN_RECORDER_READ_BATCH_SIZE", "TASK_RUN_RECORDER_BATCH_SIZE", "EVENT_PERSISTER_BATCH_SIZE"):
        assert int(variables[f"PREFECT_SERVER_SERVICES_{name}"]) >= 100


def test_the_check_notices_a_setting_that_is_none() -> None:
    assert unknown_settings({"PREFECT_SERVER_NO_SUCH_THING": "1"}) == ["PREFECT_SERVER_NO_SUCH_THING"]


def test_a_compose_file_holds_no_secret() -> None:
    text = (INFRA / "compose.yaml").read_text()
    for line in text.splitlines():
        if re.search(r"PASSWORD|SECRET|AUTH_STRING", line) and ":" in line and not line.lstrip().startswith("#"):
            assert "${" in line, line


def test_a_worker_of_compose_keeps_its_base_models() -> None:
    body = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert body["services"]["gpu"]["volumes"] == ["cache:/home/blora/.cache"] and "cache" in body["volumes"]
    image = (INFRA / "worker.Dockerfile").read_text()
    assert re.search(r"^USER blora$.*^RUN mkdir \.cache$", image, re.S | re.M), "the volume would belong to root"


def test_the_server_image_has_the_versions_that_are_tested() -> None:
    install = re.search(r"pip install --constraint constraints.txt ([^\\]+)", (INFRA / "server.Dockerfile").read_text())
    pinned = {line.partition("==")[0] for line in (INFRA.parent / "constraints.txt").read_text().splitlines()}
    assert install and set(install[1].split()) <= pinned


def test_the_worker_image_copies_what_links_of_the_package_lead_to() -> None:
    """A link whose end is not copied is left out of the wheel without a word."""
    root = INFRA.parent
    lines = re.findall(r"^COPY (.+) \S+$", (INFRA / "worker.Dockerfile").read_text(), re.M)
    copied = [(root / name).resolve() for line in lines for name in line.split()]
    links = [path for folder in copied if folder.is_dir() for path in folder.rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        assert any(link.resolve().is_relative_to(place) for place in copied), link


def test_the_worker_image_has_a_compiler_and_the_deployments() -> None:
    """torch.compile writes C++ for the CPU and launchers for the GPU, and the image of python:slim has no compiler."""
    image = (INFRA / "worker.Dockerfile").read_text()
    compiler = re.search(r"^RUN .*apt-get install (?:--\S+ )*g\+\+(?= )", image, re.M)
    user, copied = image.index("\nUSER "), re.search(r"^COPY .*\bprefect\.yaml\b.* \./$", image, re.M)
    assert compiler and compiler.start() < user, "installed by root, or not at all"
    assert copied and copied.start() < image.index("RUN pip install"), "blora deploy reads it from the package"


def test_the_job_template_asks_for_one_gpu_and_renders() -> None:
    template = json.loads((INFRA / "k8s" / "gpu-base-job-template.json").read_text())
    variables = template["variables"]["properties"]
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(variables), "a placeholder without a variable, or a variable that nothing uses"
    values = {name: variable["default"] for name, variable in variables.items() if "default" in variable}
    values |= {"command": ["prefect", "flow-run", "execute"], "name": "shard", "env": [], "labels": {}}
    rendered: dict[str, Any] = apply_values(template["job_configuration"], values)
    spec = rendered["job_manifest"]["spec"]
    assert spec["backoffLimit"] == 0, "the parent hands over again, not the cluster"
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "24Gi"}
    assert container["image"] == variables["image"]["default"]
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert spec["ttlSecondsAfterFinished"] == 3600
    claim = yaml.safe_load((INFRA / "k8s" / "cache-claim.yaml").read_text())
    (cache,) = [volume for volume in spec["template"]["spec"]["volumes"] if volume["name"] == "cache"]
    assert cache["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}, "each job would fetch the base"
    assert claim["kind"] == "PersistentVolumeClaim" and claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert {"name": "cache", "mountPath": "/home/blora/.cache"} in container["volumeMounts"]
