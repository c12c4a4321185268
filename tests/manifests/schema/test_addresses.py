"""Every row of the table in `manifests.schema.addresses`, on real folders and links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifests.schema.addresses import MAX_ADDRESS_CHARS, AddressError, Roots, folder_of, shown_address


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The manifest's own folder, with a neighbour that it must not reach."""
    for name in ("own/images", "own-other", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "a.png").write_bytes(b"x")
    return tmp_path / "own"


def refusal(roots: Roots, text: str) -> AddressError:
    with pytest.raises(AddressError) as caught:
        roots.resolve(text)
    assert caught.value.received and caught.value.accepted and caught.value.hint
    return caught.value


@pytest.mark.parametrize("text", ["images/a.png", "./images/a.png", "images/../images//a.png"])
def test_relative_paths_are_taken_from_the_first_root(own: Path, text: str) -> None:
    assert Roots([str(own), str(own.parent / "secret")]).resolve(text) == str(own / "images/a.png")


def test_a_tilde_is_the_home_folder_and_needs_a_root_too(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own.parent / "secret"))
    assert "/secret/a.png" in refusal(Roots([str(own)]), "~/a.png").received
    assert Roots([str(own), "~"]).resolve("~/a.png") == str(own.parent / "secret" / "a.png")
    assert Roots([str(own)]).resolve("~nobody-of-that-name/a.png") == str(own / "~nobody-of-that-name/a.png")
    assert Roots(["s3://bucket/own"]).resolve("~/a.png") == "s3://bucket/own/~/a.png"
    assert folder_of("~/night.yaml") == str(own.parent / "secret")


def test_absolute_paths_need_a_root(own: Path) -> None:
    secret = str(own.parent / "secret" / "a.png")
    assert refusal(Roots([str(own)]), secret).what == "path outside the allowed folders"
    assert Roots([str(own), str(own.parent / "secret")]).resolve(secret) == secret
    assert Roots([str(own), "/"]).resolve(secret) == secret


@pytest.mark.parametrize("text", ["../secret/a.png", "images/../../secret/a.png", "../own-other/a.png", "/etc/passwd"])
def test_paths_out_of_the_roots_are_refused(own: Path, text: str) -> None:
    error = refusal(Roots([str(own)]), text)
    assert str(own) in error.accepted and "--allow-root" in error.hint


def test_links_are_followed_before_the_roots_are_asked(own: Path) -> None:
    (own / "file.png").symlink_to(own.parent / "secret" / "a.png")
    (own / "folder").symlink_to(own.parent / "secret")
    (own / "circle").symlink_to(own / "circle")
    roots = Roots([str(own)])
    for text in ("file.png", "folder/a.png", "folder/../secret/a.png"):
        assert str(own.parent / "secret") in refusal(roots, text).received
    assert roots.resolve("circle") == str(own / "circle")  # reading it fails, which is a fault of its own
    assert Roots([str(own), str(own / "folder")]).resolve("file.png") == str(own.parent / "secret" / "a.png")


def test_a_root_that_is_a_link_is_as_good_as_its_folder(own: Path) -> None:
    link = own.parent / "link"
    link.symlink_to(own)
    assert Roots([str(link)]).resolve("a.png") == str(own / "a.png")


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a.png",
        "HTTP://host/a.png",
        "file:///etc/passwd",
        "gs://bucket/a.png",
        "s3:/bucket/a.png",
        "S3://bucket/a.png",
        "s3:///a.png",
        "s3://UPPER/a.png",
        "s3://my_bucket/a.png",
        "data:image/png;base64,AAAA",
        "C:/pictures/a.png",
    ],
)
@pytest.mark.parametrize("root", [None, "s3://bucket/own"])
def test_other_schemes_are_refused(own: Path, text: str, root: str | None) -> None:
    assert refusal(Roots([root or str(own), "/", "s3://bucket"]), text).what == "no address that can be read"


@pytest.mark.parametrize(
    "text",
    [
        "s3://user:pass-word@bucket/a.png",
        "s3://user:pass/word@bucket/a.png",
        "s3://user@bucket/pass-word@host/a.png",
        "https://user:pass-word@host/a.png?X-Amz-Signature=pass-word",
        "https://host/a.png?X-Amz-Credential=user&X-Amz-Signature=pass-word",
    ],
)
def test_credentials_are_refused_and_never_shown(own: Path, text: str) -> None:
    shown = str(refusal(Roots([str(own), "s3://bucket"]), text)) + shown_address(text)
    assert "user" not in shown and "word" not in shown


@pytest.mark.parametrize("address", ["s3://bucket/a@2x.png", "images/a@2x.png", "/b/c?d.png", "a:b.png"])
def test_ordinary_addresses_are_shown_whole(address: str) -> None:
    assert shown_address(address) == address


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("images\\a.png", "backslash in a path"),
        ("a\x00b.png", "control character in a path"),
        ("a\nb.png", "control character in a path"),
        ("a\ud800.png", "control character in a path"),
        ("", "path of a wrong length"),
        ("a" * (MAX_ADDRESS_CHARS + 1), "path of a wrong length"),
    ],
)
def test_characters_that_no_path_should_have(own: Path, text: str, what: str) -> None:
    assert refusal(Roots([str(own)]), text).what == what


def test_names_that_the_file_system_cannot_hold_pass_here_and_fail_on_reading(own: Path) -> None:
    assert Roots([str(own)]).resolve("ü" * 300) == os.path.join(own, "ü" * 300)


def test_in_a_bucket_relative_paths_stay_below_the_manifest() -> None:
    roots = Roots(["s3://bucket/own", "s3://other/pictures/"])
    assert roots.resolve("images/./a.png") == "s3://bucket/own/images/a.png"
    assert roots.resolve("s3://other/pictures/a.png") == "s3://other/pictures/a.png"
    for text in ("s3://other/pictures//a.png", "images//a.png"):  # with one slash it would be another object
        assert refusal(roots, text).received.endswith("two slashes in a row")
    for text in ("../a.png", "images/../../own-other/a.png", "s3://other/a.png", "s3://own/a.png", "/etc/passwd"):
        assert refusal(roots, text).what == "path outside the allowed folders"
    assert refusal(roots, "s3://bucket/own/../secret/a.png").received.endswith("'s3://bucket/secret/a.png'")


def test_a_whole_bucket_may_be_a_root() -> None:
    assert Roots(["s3://bucket"]).resolve("a/../b.png") == "s3://bucket/b.png"
    assert refusal(Roots(["s3://bucket"]), "s3://bucket-other/b.png").what == "path outside the allowed folders"


def test_a_local_manifest_reaches_a_bucket_only_if_allowed(own: Path) -> None:
    assert refusal(Roots([str(own)]), "s3://bucket/a.png").what == "path outside the allowed folders"
    assert Roots([str(own), "s3://bucket"]).resolve("s3://bucket/a.png") == "s3://bucket/a.png"


def test_without_roots_nothing_can_be_reached() -> None:
    assert refusal(Roots([]), "a.png").what == "no folder to look in"


def test_a_root_must_be_an_address() -> None:
    with pytest.raises(AddressError):
        Roots(["https://host/folder"])


def test_the_folder_of_a_manifest(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    monkeypatch.setenv("HOME", str(own))
    assert folder_of("pairs.csv") == folder_of("~/pairs.csv") == str(own)
    assert folder_of("s3://bucket/inbox/pairs.csv") == "s3://bucket/inbox"
    assert folder_of("s3://bucket/pairs.csv") == "s3://bucket"


def test_a_folder_is_followed_once_for_all_that_lies_in_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = own / "images/2024/walk"
    deep.mkdir(parents=True)
    (own / "inside").symlink_to(deep)
    (deep / "away.png").symlink_to(own.parent / "secret/a.png")
    roots, asked = Roots([str(own)]), []
    monkeypatch.setattr(os, "lstat", lambda path, *, lstat=os.lstat: (asked.append(path), lstat(path))[1])
    for number in range(100):
        assert roots.resolve(f"inside/{number}.png") == f"{deep}/{number}.png"
    assert len(asked) < 100 + 3 * len(deep.parts), "a row costs one question, however deep it lies"
    assert "/secret/a.png" in refusal(roots, "inside/away.png").received
    assert "/secret/a.png" in refusal(roots, "inside/../walk/./away.png").received
