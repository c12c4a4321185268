"""The hub's real client against a hub on loopback: every way it fails says what to do, and a cut download goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blora.bases.locate import files_to_fetch
from tests.hub import COMMIT, REPO, Hub, serve_hub
from tests.tiny import save_tiny_base

BIG = "unet/diffusion_pytorch_model.safetensors"
CODE = """
import sys
from blora.bases.hub import fetch_files
from blora.errors import BloraError
try:
    print("folder", fetch_files(sys.argv[1], sys.argv[2], ["*.json", "*.safetensors"], []))
except BloraError as error:
    print(type(error).__name__, error.transient, error)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "served"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / BIG).write_bytes(os.urandom(25_000_000))
    with serve_hub(folder) as served:
        yield served


def fetched(hub: Hub, cache: Path, repo: str = REPO, commit: str = COMMIT, **variables: str) -> str:
    """What comes of fetching in a fresh process, as the client reads its variables once."""
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "PATH": "", **variables}
    command = [sys.executable, "-c", CODE, repo, commit]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_in_half_precision_fetches_fp16_files_and_full_ones_of_the_parts_without(tmp_path: Path) -> None:
    """A repository of which only some parts have both kinds, and one has fp16 alone, loads in every precision."""
    served, cache = save_tiny_base(tmp_path / "served"), tmp_path / "cache"
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("vae", "diffusion_pytorch_model"),
    ):
        full = served / part / f"{name}.safetensors"
        full.with_name(f"{name}.fp16.safetensors").write_bytes(f"of {part}, in fp16".encode())
    (served / "text_encoder" / "model.safetensors").unlink()
    code = "import sys; from blora.bases.locate import locate_base; locate_base(sys.argv[1], half=sys.argv[2] == '16')"
    with serve_hub(served) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "PATH": ""}

        def weights(digits: str) -> set[str]:
            hub.asked.clear()
            command = [sys.executable, "-c", code, f"{REPO}@{COMMIT}", digits]
            subprocess.run(command, env=environment, timeout=120, check=True)
            return {name for name, _ in hub.downloads if name.endswith(".safetensors")}

        fp16 = {"unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors"}
        others = {"text_encoder_2/model.safetensors", "vae/diffusion_pytorch_model.safetensors"}
        assert weights("16") == fp16 | others
        assert weights("32") == {BIG}, "what is there is not fetched again"
        names = [path.relative_to(served).as_posix() for path in served.rglob("*") if path.is_file()]
        chosen = files_to_fetch(f"{REPO}@{COMMIT}", names, half=True)
        assert {name for name in chosen if name.endswith(".safetensors")} == fp16 | others, "as the doctor counts"


def test_a_commit_is_fetched_once_resumed_after_a_cut_and_read_offline(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    hub.cut_after = [12_000_000]  # the client keeps what came in pieces of 10 MB
    told = fetched(hub, cache)
    folder = Path(told.removeprefix("folder "))
    assert (folder / BIG).read_bytes() == (hub.folder / BIG).read_bytes()
    resumed = [first for name, first in hub.downloads if name == BIG]
    assert len(resumed) == 2 and resumed[0] == 0 < resumed[1], f"it went on where it stopped: {resumed}"
    hub.asked.clear()
    assert fetched(hub, cache) == told and not hub.downloads, "nothing is fetched a second time"
    hub.asked.clear()
    assert fetched(hub, cache, HF_HUB_OFFLINE="1") == told and not hub.asked, "offline asks nothing"
    assert fetched(hub, cache, HF_ENDPOINT="http://127.0.0.1:9") == told, "nor does a hub that is away matter"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "GatedRepo", r"BaseModelError False .*a gated model.*accept its terms at .*org/model.*HF_TOKEN"),
        (403, "GatedRepo", r"BaseModelError False .*a gated model.*accept its terms"),
        (401, "RepoNotFound", r"BaseModelError False .*no such hub model.*private model.*HF_TOKEN"),
        (403, "", r"BaseModelError False .*does not let you read.*HF_TOKEN"),
        (404, "RevisionNotFound", r"BaseModelError False .*at this commit.*check the commit at .*org/model/commits"),
        (429, "", r"BaseUnreachableError True .*asks for fewer requests.*HF_TOKEN"),
        (503, "", r"BaseUnreachableError True .*cannot be reached.*name the folder"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do(hub: Hub, tmp_path: Path, status: int, code: str, message: str) -> None:
    hub.refuse_with, hub.error_code = status, code
    told = fetched(hub, tmp_path / "cache")
    assert re.match(message, told), told
    assert len(told.splitlines()) == 1


def test_a_repository_that_is_not_there_and_no_cache_offline(hub: Hub, tmp_path: Path) -> None:
    other = fetched(hub, tmp_path / "c", repo="org/other")
    assert re.match("BaseModelError False org/other@.*no such hub model", other)
    assert re.match(r"BaseModelError .*at this commit", fetched(hub, tmp_path / "c", commit="f" * 40))
    offline = fetched(hub, tmp_path / "c", HF_HUB_OFFLINE="1")
    assert re.match(r"BaseUnreachableError True .*switched off.*do: unset HF_HUB_OFFLINE", offline), offline


def test_half_a_download_is_not_taken_for_the_model_offline(hub: Hub, tmp_path: Path) -> None:
    """The client answers with the folder of a commit whatever is in it; weights that lack must be said, not loaded."""
    cache = tmp_path / "cache"
    folder = Path(fetched(hub, cache).removeprefix("folder "))
    (folder / BIG).resolve().unlink()
    (folder / BIG).unlink()
    told = fetched(hub, cache, HF_HUB_OFFLINE="1")
    assert told.startswith("BaseUnreachableError True") and "name the folder" in told, told
    assert fetched(hub, cache) == f"folder {folder}" and (folder / BIG).is_file()
