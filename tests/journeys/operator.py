"""An operator with a bucket and a Prefect server."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.journeys.transcript import Transcript
from tests.servers import S3Server

FAR = """\
version: 1
name: far
base: nobody/nothing@0123456789abcdef0123456789abcdef01234567
preset: demo
contents: [{image: photos/apple.png}, {image: photos/owl.png}]
styles: [{image: looks/night.png}]
grid: true
"""


def operators_hour(hour: Transcript, artist: Path, server: S3Server, root: str, api_url: str) -> None:
    """Type all that such a person types.

    Args:
        hour: has the bucket's root and the server in its environment.
        artist: a folder with photos and a store, which is copied into the bucket.
        server: where the bucket is.
        root: the store's address.
        api_url: of the Prefect server.
    """
    prefix, client = root.removeprefix(f"s3://{server.bucket}/"), server.client()

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=server.bucket, Key=f"{prefix}/{key}", Body=body)

    hour.say("2, 3: is this machine fit for it; a device and a base that are not there")
    hour.type("doctor", "--base", "nobody/nothing@0123456789abcdef0123456789abcdef01234567", "--devices", "cuda:0")
    hour.type("run", "s3://bucket/night.yaml", "--devices", "cuda:0")
    hour.say("14: a store that is not there yet")
    hour.type("status")
    for path in sorted((artist / "blora-store").rglob("*")):
        if path.is_file():
            put(path.relative_to(artist / "blora-store").as_posix(), path.read_bytes())
    hour.type("status")
    hour.say("5: deploy, and deploy again: what was set stays")
    hour.type("deploy", "--root", root, "--cron", "0 3 * * *", "--timezone", "Europe/London")
    hour.type("deploy", "--cron", "30 4 * * *")
    hour.type("deploy", "--cron", "at night")
    hour.say("17: the form asks for what matters first")
    hour.look("fields of the form of stylize", "\n".join(_fields_of_the_form(api_url, "stylize")))
    hour.say("19, 3: the inbox has a file that is no manifest, and one whose base cannot be had")
    for folder in ("photos", "looks"):
        for path in (artist / folder).glob("*.png"):
            put(f"inbox/{folder}/{path.name}", path.read_bytes())
    put("inbox/notes.txt", b"call the plumber\n")
    put("inbox/far.yaml", FAR.encode())
    put("inbox/night.yaml", (artist / "night.yaml").read_bytes())
    hour.type("nightly", "--devices", "cpu", has_bars=False)
    hour.type("nightly", "--last")
    hour.type("status", "far")
    hour.say("7: what was asked for cannot be: a line, and no traceback")
    hour.type("status", "--root", f"{root}-sotre")
    hour.type("report", "--nights", "5")
    page = client.get_object(Bucket=server.bucket, Key=f"{prefix}/reports/nights/index.html")["Body"].read().decode()
    hour.look("what that page says of its nights", "\n".join(re.findall(r"[^>]*nights needed[^<]*", page)))


def _fields_of_the_form(api_url: str, flow: str) -> list[str]:
    """The fields that the form of a flow's deployments shows, in its order."""
    request = urllib.request.Request(
        f"{api_url}/deployments/filter",
        json.dumps({"flows": {"name": {"any_": [flow]}}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        deployments: list[dict[str, Any]] = json.load(answer)
    schema = deployments[0]["parameter_openapi_schema"]
    return list(_told(schema, schema))


def _told(schema: dict[str, Any], group: dict[str, Any], indent: str = "") -> Iterator[str]:
    """The names of fields in the order of the form, those of a group below it."""
    for name, of in sorted(group["properties"].items(), key=lambda item: item[1].get("position", 0)):
        yield f"{indent}{name}"
        for part in [of, *of.get("allOf", [])]:
            if "$ref" in part and "properties" in (below := schema["definitions"][part["$ref"].rpartition("/")[2]]):
                yield from _told(schema, below, f"{indent}  ")
