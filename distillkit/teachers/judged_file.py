"""teacher/answers.jsonl: what the rules for answers made of teacher/generated.jsonl, a line for each of its lines.

A program of the user's may judge otherwise when it is asked again, and a run that goes on has to learn the same texts: what was
judged stays, as long as texts and rules are the same. The file is written as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distillkit.storage import explained_write_errors, fingerprint_of, read_json, write_bytes, write_json
from distillkit.teachers.answer_rules import text_counts
from distillkit.teachers.generated_file import (
    WRITTEN,
    Continuation,
    Prompt,
    line_of,
    read_lines,
    settings_path_of,
    whole_batches,
)

# Of a black-box run, below teacher/; only where rules are set.
JUDGED = "answers.jsonl"


def judged_once(
    folder: Path,
    rules: dict[str, Any],
    prompts: Sequence[Prompt],
    continuations: Sequence[Continuation],
    judge: Callable[[], list[Continuation]],
) -> list[Continuation]:
    """What `judge` gives, or gave when these texts were judged by these rules before.

    Args:
        folder: teacher/ of the run.
        rules: all that verdicts depend on besides the texts.
        prompts, continuations: of one another, in one order.

    Raises:
        DistillkitError: the disk is full.
    """
    path = folder / JUDGED
    texts = [line_of(prompt, done) for prompt, done in zip(prompts, continuations, strict=True)]
    settings = {**rules, "texts": fingerprint_of(texts)}
    found = _stored(path, settings, prompts)
    if found is not None:
        return found
    forget_judged(folder)
    found = judge()
    lines = "".join(line_of(prompt, done) for prompt, done in zip(prompts, found, strict=True))
    write_bytes(path, lines.encode("utf-8"))
    # Last: lines without settings are judged anew.
    write_json(settings_path_of(path), settings)
    return found


def forget_judged(folder: Path) -> None:
    """Delete the file, where there is one. Its settings first: they must never stand beside lines of others."""
    for path in (settings_path_of(folder / JUDGED), folder / JUDGED):
        with explained_write_errors(path):
            path.unlink(missing_ok=True)


def _stored(path: Path, settings: dict[str, Any], prompts: Sequence[Prompt]) -> list[Continuation] | None:
    try:
        if read_json(settings_path_of(path)) != settings:
            return None
        found, _ = whole_batches(path, prompts, 1)
    except (OSError, ValueError):
        return None
    return found if len(found) == len(prompts) else None


def learnt_counts(folder: Path) -> dict[str, Any] | None:
    """How many texts the teacher of a run wrote, how many are kept, and why the others are not; None where it wrote none."""
    for name in (JUDGED, WRITTEN):
        if (folder / name).is_file():
            return text_counts(read_lines(folder / name))
    return None
