"""What a resumed training must not forget, besides what the Trainer keeps; a file of every checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """The sums of a training so far.

    Attributes:
        tokens: student target tokens trained on so far.
        seconds: wall time of training so far.
        teacher_tokens, teacher_seconds: the same for the teacher's forward passes.
        soft_sum, hard_sum: the loss terms summed over the steps since the last line of metrics.jsonl.
        sampled_sum: the same of the soft term of on-policy steps, which is in neither of the two.
        loss_sum: the same of α·soft + β·hard, with the weights that each step had.
        logged_step: the step of that line.
        mapped, rows: the sums of `MappedMass`.
        best: the files of the best student as they were exported, `storage.file_records`.
    """

    tokens: int = 0
    seconds: float = 0.0
    teacher_tokens: int = 0
    teacher_seconds: float = 0.0
    soft_sum: float = 0.0
    hard_sum: float = 0.0
    loss_sum: float = 0.0
    sampled_sum: float = 0.0
    logged_step: int = 0
    mapped: float = 0.0
    rows: int = 0
    best: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def load(cls, checkpoint: Path) -> Progress:
        return cls(**json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        (folder / PROGRESS_FILE).write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
