"""manifest.json: what a run is, and what each stage did; the one file through which stages know of one another."""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pydantic

from distillkit import __version__
from distillkit.errors import PreconditionError
from distillkit.settings.resolve import ResolvedConfig
from distillkit.storage import fingerprint_of, write_json

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
_LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub", "numpy", "safetensors")

Status = Literal["running", "complete", "failed"]


class OutputFile(pydantic.BaseModel):
    """A file that a stage wrote, its path relative to the run directory."""

    model_config = pydantic.ConfigDict(extra="forbid")
    path: str
    size: int
    sha256: str


class StageRecord(pydantic.BaseModel):
    """What one stage did, and from what."""

    model_config = pydantic.ConfigDict(extra="forbid")
    status: Status
    started: str
    finished: str | None = None
    inputs: dict[str, str] = {}
    outputs: list[OutputFile] = []
    metrics: dict[str, Any] = {}
    error: str | None = None

    @property
    def unfinished_seconds(self) -> float:
        """That its attempts took, where it has not come to its end."""
        return 0.0 if self.status == "complete" else float(self.metrics.get("seconds", 0.0))

    def fingerprint(self) -> str:
        """Changes whenever what the stage produced changes."""
        return fingerprint_of([(output.path, output.sha256) for output in self.outputs])


class Manifest(pydantic.BaseModel):
    """The whole of manifest.json."""

    model_config = pydantic.ConfigDict(extra="forbid")
    schema_version: int = SCHEMA_VERSION
    created: str
    distillkit: str
    config: dict[str, Any]
    sources: dict[str, str]
    versions: dict[str, str] = {}
    device: dict[str, Any] = {}
    models: dict[str, Any] = {}
    stages: dict[str, StageRecord] = {}
    checksum: str = ""

    def content_checksum(self) -> str:
        """SHA-256 of the whole but the checksum itself: an edited manifest does not match it."""
        return fingerprint_of(self.model_dump(exclude={"checksum"}))


def now() -> str:
    """The time, as in the manifest: ISO 8601, UTC, seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = _version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@functools.cache  # Looked up several times in a run; of what is not installed nothing is remembered.
def _version(name: str) -> str:
    return metadata.version(name)


def new_manifest(resolved: ResolvedConfig) -> Manifest:
    """The manifest of a run that has not done anything yet."""
    return Manifest(
        created=now(), distillkit=__version__, config=resolved.as_dict(), sources=dict(resolved.sources),
        versions=library_versions(),
    )  # fmt: skip


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically.

    Raises:
        DistillkitError: it cannot be written.
    """
    manifest.checksum = manifest.content_checksum()
    write_json(folder / FILE_NAME, manifest.model_dump())


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a run directory and prove that it is whole.

    Raises:
        PreconditionError: it is missing, not JSON, of another schema version, malformed, or edited by hand.
            The program then never overwrites the file.
    """
    path = folder / FILE_NAME
    hint = "restore the file, or start another run with a new --folder-name"
    try:
        raw: Any = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise PreconditionError(
            f"{path} does not exist: {folder} is not a run directory", hint="see: distillkit runs"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise PreconditionError(f"{path} is corrupt: {error}", hint=hint) from error
    version = raw.get("schema_version") if isinstance(raw, Mapping) else None
    if version != SCHEMA_VERSION:
        raise PreconditionError(
            f"{path} has schema version {version!r}; this program knows version {SCHEMA_VERSION}",
            hint="use the version of distillkit that made it, or start another run",
        )
    try:
        manifest = Manifest.model_validate(raw)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PreconditionError(f"{path} is corrupt at {where}: {first['msg']}", hint=hint) from error
    if manifest.checksum != manifest.content_checksum():
        raise PreconditionError(f"{path} was edited: its checksum does not match", hint=hint)
    for record in manifest.stages.values():
        _check_relative(path, (output.path for output in record.outputs), hint)
    return manifest


def _check_relative(path: Path, names: Iterable[str], hint: str) -> None:
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise PreconditionError(f"{path} names a file outside the run directory: {name!r}", hint=hint)
