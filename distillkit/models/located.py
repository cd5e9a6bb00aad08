"""A model on this machine: where its files lie, and what they add up to."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillkit.models.load_options import own_options
from distillkit.models.references import ModelReference
from distillkit.storage import fingerprint_of, sha256_of

_TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "qwen")


@dataclass(frozen=True)
class LocatedModel:
    """A model on this machine.

    Attributes:
        reference: as the user named it.
        folder: holds config.json, safetensors weights and the tokenizer; of a teacher behind a server it is the student's, by
            whose tokenizer texts are divided, and none of what it holds is the teacher's.
        revision: the commit of a Hub model.
        options: what `from_pretrained` gets besides (`load_options`).
    """

    reference: ModelReference
    folder: Path
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_served(self) -> bool:
        """Whether the model's weights are not here: it is behind a server, or only its log-probabilities were imported."""
        return self.reference.served is not None or self.is_imported

    @property
    def is_imported(self) -> bool:
        """Whether the model is a folder of imported log-probabilities."""
        return self.reference.kind == "logprobs"

    def describe(self) -> dict[str, Any]:
        """For the manifest and the model card; no absolute path of this machine is needed to understand it."""
        return {"kind": self.reference.kind, "reference": self.reference.text, "revision": self.revision}

    def fingerprint(self) -> str:
        """SHA-256 of all that decides what the model computes: configuration, weights, tokenizer, kept layers.

        Raises:
            OSError: a file cannot be read.
        """
        if self.reference.path is not None and self.is_imported:
            record = self.reference.path / "logprobs.json"
            return fingerprint_of(["imported log-probabilities", sha256_of(record) if record.is_file() else None])
        if self.reference.served is not None:
            # What the server computes with is not known. Its address is no part: a server may move.
            return fingerprint_of(["behind a server", self.reference.served])
        parts = [_folder_fingerprint(self.folder, _state(self.folder)), self.reference.layers]
        if self.reference.width is not None:
            parts.append(dataclasses.asdict(self.reference.width))
        if own := own_options(self.options):
            parts.append({"options": own})
        return fingerprint_of(parts)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files that count: the contents are read again only when one of these changes."""
    files = []
    for path in sorted(folder.iterdir()):
        counts = path.suffix in (".safetensors", ".py", ".model", ".tiktoken") or path.name == "config.json"
        if path.is_file() and (counts or path.name.startswith(_TOKENIZER_FILES)):
            status = path.stat()
            files.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(files)


@functools.cache
def _folder_fingerprint(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    return fingerprint_of([(name, sha256_of(folder / name)) for name, _, _ in state])
