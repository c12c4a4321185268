"""HTML from templates, and the plain script and style files beside it.

Every text goes through jinja's escaping; scripts get their data from `script_data`, in a file of its own. A page is a
folder that works from a bucket, a disk or a stick: relative links, no request to anywhere else, no build step.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from manifests.store.store import Store
from tasks.words import seconds_in_words, size_in_words

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""Nothing inline and nothing from elsewhere. `file:` is for pages opened from a disk, which have no origin to be
'self'; on a page that came over http it allows nothing, as browsers refuse to load files there. A page that
`blora serve` shows sends decisions to where it came from; no other connects anywhere."""


def write_page(
    target: Store, prefix: str, template: str, scripts: Sequence[str], data: dict[str, Any], **values: Any
) -> None:
    """Write a page's folder; index.html comes last, so that it never names what is not there.

    Args:
        target: the store, or a folder opened as one.
        prefix: the page's folder within it: "" or with a slash at its end.
        template: name of the template.
        scripts: script files of `page/`, in the order in which they are loaded; none: a page without scripts or data.
        data: what the scripts find as `blora.data`.
        values: what the template needs.
    """
    files = {"page.css": _file("page.css")} | {name: _file(name) for name in scripts}
    if scripts:
        files["data.js"] = script_data(data)
    for name, body in files.items():
        target.replace(prefix + name, body)
    # A browser may keep files of an older report for long: the address changes with what the file holds.
    versions = {name: hashlib.sha256(body).hexdigest()[:8] for name, body in files.items()}
    page = _environment().get_template(template)
    html = page.render(policy=CONTENT_SECURITY_POLICY, scripts=scripts, versions=versions, **values)
    target.replace(f"{prefix}index.html", html.encode())


def page_of(template: str, **values: Any) -> str:
    """A page that is one file, from its template."""
    return _environment().get_template(template).render(**values)


def script_data(data: dict[str, Any]) -> bytes:
    """Return a script file that sets `blora.data`: plain ASCII without `<`, so that nothing ends the script early."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'"use strict";\nwindow.blora = window.blora || {{}};\nblora.data = {text};\n'.encode("ascii")


@functools.cache
def _environment() -> Environment:
    loader = PackageLoader("tasks.report", "page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["bytes"] = size_in_words
    environment.filters["seconds"] = seconds_in_words
    return environment


@functools.cache
def _file(name: str) -> bytes:
    return (resources.files("tasks.report") / "page" / name).read_bytes()
