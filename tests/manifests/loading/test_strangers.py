"""A file that is no manifest at all is refused without being quoted: it may be one that nobody was meant to see."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.loading.load import load_manifest
from manifests.loading.prompt_pairs import load_prompts

SECRET = "correct-horse-battery-staple"
PASSWD = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000:Ada S3CR3T:/home/ada:/bin/zsh\n"
SECRETS = {
    "passwd.csv": PASSWD,
    "passwd.yaml": PASSWD,
    "passwd.json": PASSWD,
    "token.csv": "ghp_S3CR3TS3CR3TS3CR3T\n",
    "pairs.csv": "login,S3CR3T,correct horse\nada,S3CR3T,battery staple\n",
    "latin.csv": "caf\udce9 of S3CR3T and S3CR3T and S3CR3T\n",
    "key.yaml": "-----BEGIN PRIVATE KEY-----\nS3CR3TS3CR3TS3CR3T\n-----END PRIVATE KEY-----\n",
    "env.yaml": "AWS_SECRET_ACCESS_KEY: S3CR3TS3CR3T\nTOKEN: S3CR3TS3CR3T\n",
    "list.yaml": "[S3CR3TS3CR3T, S3CR3TS3CR3T]",
    "tag.yaml": "!S3CR3TS3CR3TS3CR3TS3CR3TS3CR3TS3CR3TS3CR3TS3CR3T x",
    "alias.yaml": "a: *a-long-name-of-S3CR3T",
    "merge.yaml": "<<: S3CR3TS3CR3T",
    "secrets.json": json.dumps({"token": "S3CR3TS3CR3T", "other": ["S3CR3T"]}),
    "text.json": '"a text about S3CR3T and more"',
    "passwd.jsonl": PASSWD,
    "secrets.jsonl": '{"token": "S3CR3TS3CR3T"}\n{"token": "battery S3CR3T"}\n',
    "texts.jsonl": '"a text about S3CR3T"\n"a battery"\n',
    "broken.json": '{"token": nonsense of S3CR3T}',
}


@pytest.mark.parametrize("name", SECRETS)
def test_what_cannot_be_read_is_not_quoted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SECRETS[name].replace("S3CR3T", SECRET).encode("utf-8", "surrogateescape"))
    loaded = load_manifest(str(tmp_path / name))
    assert loaded.manifest is None and loaded.faults
    told = " | ".join(str(fault) for fault in loaded.faults)
    assert "battery" not in told and "/bin" not in told, told
    assert len(loaded.faults) <= 2 and all(len(fault.received) < 80 for fault in loaded.faults)


def test_nor_is_parquet(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pq.write_table(
        pa.table(
            {
                "a long column of S3CR3T": ["x"],
                "S3CR3T": ["S3CR3T"],
            }
        ),
        path,
    )
    (fault,) = load_manifest(str(path)).faults
    assert fault.received == "2 columns, the first 'a long colum'..."


def test_nor_are_prompts(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(PASSWD.replace("S3CR3T", SECRET))
    _, faults = load_prompts(str(tmp_path / "p.csv"))
    assert "battery" not in "".join(map(str, faults)) and "/bin" not in "".join(map(str, faults))


def test_a_misspelt_column_or_key_is_named_in_full(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("contnet,stlye\na.png,b.png\n")
    assert [fault.field for fault in load_manifest(str(tmp_path / "m.csv")).faults] == ["contnet", "stlye"]
    (tmp_path / "n.csv").write_text("content,style,what the weather was like\na.png,b.png,fine\n")
    (fault,) = load_manifest(str(tmp_path / "n.csv")).faults
    assert fault.received == "'what the weather was like'"
    (tmp_path / "m.yaml").write_text("contens: [a.png]\nstils: [b.png]\n")
    assert "did you mean contents?" in " ".join(map(str, load_manifest(str(tmp_path / "m.yaml")).faults))
