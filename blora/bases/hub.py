"""The Hugging Face hub: files of one commit, from its cache or over the network, and what to do where neither works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from blora.errors import BaseModelError, BaseUnreachableError

__all__ = ["fetch_files", "hub_files", "in_cache"]

_RATE_LIMITED: Final = 429
_NOT_ALLOWED: Final = (401, 403)


def fetch_files(repo: str, revision: str, patterns: list[str], ignore: list[str]) -> Path:
    """Download some files of one commit, or find them in the hub's own cache; returns the folder of that commit.

    A download that was cut goes on where it stopped, by the hub's own client.

    Raises:
        BaseModelError: No such repository or commit, or it may not be read.
        BaseUnreachableError: The hub did not answer, or not now, and its cache has no copy.
    """
    from huggingface_hub import snapshot_download  # an embedded base or a folder must not need the hub's client

    def snapshot(local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=ignore,
                local_files_only=local_files_only,
            )
        )

    try:
        with _told_apart(f"{repo}@{revision}"):
            return snapshot(local_files_only=False)
    except BaseUnreachableError:
        try:
            return snapshot(local_files_only=True)
        except OSError:
            pass
        raise


def hub_files(repo: str, revision: str) -> dict[str, int]:
    """Ask the hub for the files of one commit, with their bytes; raises as `fetch_files`, whatever the cache has."""
    from huggingface_hub import HfApi

    with _told_apart(f"{repo}@{revision}"):
        told = HfApi().model_info(repo, revision=revision, files_metadata=True)
    return {one.rfilename: one.size or 0 for one in told.siblings or ()}


def in_cache(repo: str, revision: str, file: str) -> bool:
    """Whether the hub's cache on this machine has a file of one commit."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file, revision=revision), str)


@contextmanager
def _told_apart(where: str) -> Iterator[None]:
    """Turn what the hub's client raises into what is to be done about it."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/{where.partition('@')[0]}"
        hint = f"accept its terms at {page}, then run `hf auth login` or set HF_TOKEN"
        raise _refused("a gated model: its owners ask for consent", error, where, hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the name; for a private model run `hf auth login` or set HF_TOKEN"
        raise _refused("no such hub model", error, where, hint) from error
    except errors.RevisionNotFoundError as error:
        hint = f"check the commit at https://huggingface.co/{where.partition('@')[0]}/commits"
        raise _refused("no such hub model at this commit", error, where, hint) from error
    except errors.HFValidationError as error:
        raise _refused("no such hub model", error, where, "check the name") from error
    except (httpx.HTTPError, OSError) as error:
        response = getattr(error, "response", None)
        status = None if response is None else response.status_code
        if status in _NOT_ALLOWED:
            hint = "run `hf auth login` with an account that may read it, or set HF_TOKEN"
            raise _refused("the hub does not let you read this model", error, where, hint) from error
        raise _unreachable(error, status, where) from error


def _refused(what: str, error: Exception, where: str, hint: str) -> BaseModelError:
    accepted = "a repository of the hub that you may read, at a commit that it has"
    return BaseModelError(what, _first_line(error), accepted, where, hint)


def _unreachable(error: Exception, status: int | None, where: str) -> BaseUnreachableError:
    from huggingface_hub import errors

    accepted = "an answer, or the model in the hub's cache"
    if isinstance(error, errors.OfflineModeIsEnabled):
        what, hint = "the hub is switched off", "unset HF_HUB_OFFLINE, or download it elsewhere and name the folder"
    elif status == _RATE_LIMITED:
        what, hint = "the hub asks for fewer requests", "wait some minutes; with HF_TOKEN set it allows more"
    else:
        what, hint = "the hub cannot be reached", "try again later, or download it elsewhere and name the folder"
    return BaseUnreachableError(what, _first_line(error), accepted, where, hint)


def _first_line(error: Exception) -> str:
    said = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
    return said.splitlines()[0] if said else type(error).__name__
