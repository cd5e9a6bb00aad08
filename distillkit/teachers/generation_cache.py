"""What a teacher wrote, shared between the runs of an output directory: black box's teacher cache.

    .teacher-cache/<key>/meta.json          what it belongs to, and the checksum of the texts
                         generated.jsonl    as it lies in the run that wrote it

Only a finished generation is put there, as a whole folder at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.storage import fingerprint_of, read_json, write_bytes, write_folder, write_json
from distillkit.teachers.cache_entries import lock_of

_FORMAT = 1
_META, _TEXTS = "meta.json", "generated.jsonl"


@dataclass(frozen=True)
class GenerationCache:
    """The finished generations of an output directory.

    Attributes:
        root: the folder of all teacher caches.
        teacher: its name, for people.
        numerics: what else decides which tokens are drawn: the number format and the kind of device.
    """

    root: Path
    teacher: str
    numerics: dict[str, Any]
    console: Console

    def folder(self, settings: dict[str, Any]) -> Path:
        """Where a generation of these settings lies."""
        return self.root / fingerprint_of([_FORMAT, "written", settings, self.numerics])[:24]

    def fetch(self, output: Path, settings: dict[str, Any]) -> None:
        """Put the texts of such a generation at `output`, if there are any and they are whole."""
        folder = self.folder(settings)
        if not (folder / _META).is_file():
            return
        content = _sound_texts(folder, settings)
        if content is None:
            self.console.warn(f"the teacher cache {folder.name} is damaged; the texts are written anew")
            return
        write_bytes(output, content)
        os.utime(folder / _META)  # When it was last used.
        self.console.info(f"the teacher's texts are those of an earlier run (cache {folder.name})")

    def publish(self, output: Path, settings: dict[str, Any], tokens: int) -> None:
        """Keep the finished texts at `output` for other runs. A cache that cannot be written is said, not fatal."""
        folder = self.folder(settings)
        content = output.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if _sound_texts(folder, settings) == content:
            return

        def fill(temporary: Path) -> None:
            shutil.copyfile(output, temporary / _TEXTS)
            meta = {
                "teacher": self.teacher,
                "kind": "written",
                "tokens": tokens,
                "settings": settings,
                "sha256": digest,
            }
            write_json(temporary / _META, meta | self.numerics)

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with lock_of(folder).within(0):
                write_folder(folder, fill)
        except filelock.Timeout:
            return  # Another run is putting the same texts there.
        except (OSError, DistillkitError) as error:
            self.console.warn(f"the teacher's texts are not shared with other runs: {error}")


def _sound_texts(folder: Path, settings: dict[str, Any]) -> bytes | None:
    """The texts of these settings that are there, if they are whole."""
    try:
        meta = read_json(folder / _META)
        content = (folder / _TEXTS).read_bytes()
        sound = meta["settings"] == settings and meta["sha256"] == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if sound else None
