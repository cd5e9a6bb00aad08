"""What users choose by name, and the code behind each name: one line here registers one more.

The values are import paths, "module:attribute", resolved when the name is used for the first time: listing the names
must not load torch. Stages are registered in `distillkit.stages`, in the order in which they run.

To add a divergence, write a function in `losses/divergences.py` (or any module) and name it in `DIVERGENCES`; an
alignment, a data format or a source of the teacher's targets likewise. Flags, configuration files, the reference pages and
the plan follow from these tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

DIVERGENCES: dict[str, str] = {
    "forward-kl": "distillkit.losses.divergences:forward_kl",
    "reverse-kl": "distillkit.losses.divergences:reverse_kl",
    "jsd": "distillkit.losses.divergences:jensen_shannon",
    "skew-kl": "distillkit.losses.divergences:skew_kl",
    "skew-reverse-kl": "distillkit.losses.divergences:skew_reverse_kl",
    "alpha-beta": "distillkit.losses.divergences:alpha_beta",
    "total-variation": "distillkit.losses.divergences:total_variation",
    "taid": "distillkit.losses.divergences:taid",
}
"""`--divergence`: functions of teacher's and student's log-probabilities [N, V] to [N] nats."""

ALIGNMENTS: dict[str, str] = {
    "bpm": "distillkit.teachers.targets:byte_prefix",
    "strict": "distillkit.teachers.targets:strict",
    "alm": "distillkit.training.aligned_objectives:likelihood_matching",
    "uld": "distillkit.training.aligned_objectives:universal_logit",
}
"""`alignment`: functions of (teacher, text encoders, parameters) to a `teachers.protocol.TargetMaker`, the teacher's
distributions in the student's tokens; or to a `training.objectives.Objective`, where the loss is one of its own."""

TEACHER_SOURCES: dict[str, str] = {
    "exact": "distillkit.teachers.sources:open_exact",
    "sparse": "distillkit.teachers.open_sparse:open_sparse",
    "off": "distillkit.teachers.sources:open_live",
}
"""`--teacher-cache`: functions of (context, loader, training rows) to a `teachers.protocol.TeacherSource`."""

# A reader is `def read_xyz(file: DataFile) -> Iterator[Row]`, in a module of distillkit.data: it opens `file.open()`, yields
# `Row(text, f"{file.name}:{line}")` for each text, and raises UsageError for what it cannot use. See data/plain_text.py.
DATA_FORMATS: dict[str, str] = {
    ".txt": "distillkit.data.plain_text:read_plain_text",
    ".text": "distillkit.data.plain_text:read_plain_text",
    ".md": "distillkit.data.plain_text:read_plain_text",
    ".markdown": "distillkit.data.plain_text:read_plain_text",
    ".jsonl": "distillkit.data.json_rows:read_jsonl",
    ".ndjson": "distillkit.data.json_rows:read_jsonl",
    ".json": "distillkit.data.json_rows:read_json",
    ".csv": "distillkit.data.csv_rows:read_csv",
    ".tsv": "distillkit.data.csv_rows:read_csv",
    ".parquet": "distillkit.data.parquet_rows:read_parquet",
    ".arrow": "distillkit.data.arrow_rows:read_arrow",
    ".feather": "distillkit.data.arrow_rows:read_arrow",
}
"""`--dataset-path`: suffixes of files, each also read packed (`.gz`, `.zst` …), to functions of a `DataFile` to its rows."""

SHARED_WORK: dict[str, str] = {
    "teacher pass": "distillkit.training.following:teacher_pass",
    "train": "distillkit.training.following:train",
}
"""What several processes do together (`distillkit.processes`): functions of (values that process 0 gives, group, console), run
in the processes other than 0."""


def resolve(table: Mapping[str, str], name: str) -> Any:
    """What `table` registers under `name`.

    Raises:
        KeyError: `table` registers nothing under `name`.
    """
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
