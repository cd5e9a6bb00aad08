"""A pair of models and texts so small that every stage takes a fraction of a second, and what to compare of their runs.

Dropout is on: without the random states a resumed run could not be the same as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from settings_file import BARE, bare_settings
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts

from distillkit.storage import TEMPORARY_PREFIX, files_below

SETTINGS: dict[str, Any] = {
    **BARE,
    "sample_size": 12, "max_length": 24, "held_out_size": 4, "batch_size": 2, "epochs": 1, "checkpoint_interval": 2,
    "learning_rate": 2e-3, "alpha": 0.7, "beta": 0.3,
}  # fmt: skip
# A cache of a few kilobytes in several shards, as a large one has.
SMALL_SHARDS = {
    "distillkit.teachers.exact_cache._SHARD_BYTES": 8 * 16 * 4 * 12,
    "distillkit.teachers.sparse_cache.TOKENS_PER_SHARD": 100,
}
# What depends on the clock, on this machine, or on how often a run was cut off.
_NOT_COMPARED = {
    "manifest.json", "metrics.json", "validation.json", "validation_scores.json", "report.html", "README.md", "meta.json", "COMMITTED.json", "training_args.bin",
}  # fmt: skip
_TIMES = {"seconds", "teacher_seconds", "tokens_per_second", "checksum"}  # The last is of a record that holds seconds.


def make_models(folder: Path, texts: int = 60) -> Path:
    """`teacher`, `writer` (for black box), `student` and `texts.txt` in `folder`."""
    tokenizer = tiny_tokenizer(384)
    teacher = tiny_model("gpt2", 384, layers=1, hidden=16, seed=1, dropout=0.1)
    save_model_folder(folder / "teacher", teacher, tokenizer)
    save_model_folder(folder / "writer", teacher_of_letters(tokenizer, seed=4), tokenizer)
    student = tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.1)
    save_model_folder(folder / "student", student, tokenizer)
    write_texts(folder / "texts.txt", texts, sentences=2)
    return folder


def prepare_command(models: Path, output: Path, name: str = "run", **changes: Any) -> list[str]:
    """`distillkit prepare-data` of a new run."""
    teacher = models / ("writer" if changes.get("box_type") == "black" else "teacher")
    values = {"teacher_model_path": teacher, **SETTINGS, **changes}
    return ["prepare-data", "--config", str(bare_settings(models, output, name, **values)), "--quiet"]


def unchecked(*_: Any) -> None:
    """In the place of a check of the free space: the disk fills up afterwards."""


def plenty(*_: Any) -> int:
    """In the place of the free space, for the same reason."""
    return 1 << 40


def result_of(output: Path) -> dict[str, str]:
    """Digest of every file of an output directory, by name; of what is never the same the name alone."""
    found: dict[str, str] = {}
    for path in files_below(output):
        name = path.relative_to(output).as_posix()
        if path.name in _NOT_COMPARED:
            found[name] = ""
        elif path.suffix in (".json", ".jsonl"):
            found[name] = _digest(json.dumps(_timeless(path), sort_keys=True).encode())
        else:
            found[name] = _digest(path.read_bytes())
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _timeless(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
    return [_without_times(json.loads(line)) for line in lines]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(item) for name, item in value.items() if name not in _TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def student_digest(run: Path) -> str:
    """SHA-256 of the weights of the final student."""
    return _digest((run / "student" / "final" / "model.safetensors").read_bytes())


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders that somebody forgot."""
    prefixes = (TEMPORARY_PREFIX, ".tmp", "tmp", ".writing-")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.startswith(prefixes))


@dataclass
class Scene:
    """A state on disk from which one command goes on, as often as one likes.

    Attributes:
        state: the output directory before the command; None for none.
        command: the command line; "{output}" stands for the output directory.
        constants: of the program, changed for it.
        after: its undisturbed result, and how many calls it takes.
    """

    name: str
    state: Path | None
    command: list[str]
    constants: dict[str, Any] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    calls: int = 0

    def set_up(self, output: Path) -> list[str]:
        """Put the state into `output`, replacing what is there; the command line."""
        shutil.rmtree(output, ignore_errors=True)
        if self.state is None:
            output.mkdir(parents=True)
        else:
            shutil.copytree(self.state, output)
        return [word.replace("{output}", str(output)) for word in self.command]
