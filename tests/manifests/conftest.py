"""Fixtures of the contracts' tests: a bad network, and retries that do not wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manifests.store import retries
from tests.manifests.store.flaky import Proxy, flaky_proxy
from tests.servers import S3Server


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real retries, with waits that a test can afford."""
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(retries, "LONGEST_WAIT_SECONDS", 0.05)


@pytest.fixture
def network(s3_server: S3Server, s3_root: str, quick_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The S3 server behind a network that fails as the test says."""
    with flaky_proxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        yield proxy
