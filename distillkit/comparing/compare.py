"""Compares runs: reads what they have, scores what is missing, draws what came of it. No run is changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit import __version__
from distillkit.comparing.chosen_texts import choose_texts
from distillkit.comparing.measured import measure
from distillkit.comparing.opened import open_run, open_runs
from distillkit.comparing.result import comparison
from distillkit.console import Console
from distillkit.errors import DistillkitError, UsageError
from distillkit.reports.html.comparison.facts import ComparisonFacts
from distillkit.reports.html.comparison.page import comparison_page
from distillkit.storage import make_folder, nearest_existing, write_bytes

PAGE = "compare.html"
_ELSEWHERE = "name a folder that can be written: --out DIR"


def compare(named: Sequence[str], output_dir: Path, console: Console, *, teachers: bool = True) -> dict[str, Any]:
    """Runs beside one another, the others compared with the first.

    Args:
        named: folders, or names below `output_dir`.
        teachers: whether teachers are scored too where something has to be scored again.

    Raises:
        UsageError: runs of these kinds cannot be compared, or there is no text to compare them on.
        PreconditionError: a run lacks what a comparison needs.
        DistillkitError: a score is no number; memory ran out.
        Interrupted: a signal arrived.
    """
    runs = open_runs(named, output_dir)
    texts = choose_texts(runs, console)
    return comparison(runs, texts, measure(runs, texts, console, teachers=teachers))


def comparison_folder(out: Path | None, first: str, output_dir: Path) -> Path:
    """Where a comparison is written: `out`, else where the first run lies. Nothing is made yet.

    Raises:
        UsageError: there is no such run, or a file lies in the way.
        PreconditionError: the run cannot be read.
        DistillkitError: nothing may be written there; said before hours of scoring, not after them.
    """
    folder = out if out is not None else open_run(first, output_dir).path.parent
    existing = nearest_existing(folder)
    if not existing.is_dir():
        raise UsageError(f"compare: {existing} is a file, so nothing can be written below it", hint=_ELSEWHERE)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DistillkitError(f"compare: {existing} is read-only", hint=_ELSEWHERE)
    return folder


def write_comparison(found: dict[str, Any], folder: Path, lang: str) -> tuple[Path, list[Path]]:
    """Write compare.html, compare.png and compare.svg; those that are there are replaced.

    Raises:
        DistillkitError: one cannot be written.
    """
    from distillkit.reports.compare_plot import draw_comparison

    try:
        make_folder(folder)
        page = folder / PAGE
        write_bytes(page, comparison_page(ComparisonFacts(found, __version__), lang).encode("utf-8"))
        return page, draw_comparison(found, folder)
    except DistillkitError as error:
        # Another --output-dir would name other runs.
        raise DistillkitError(error.message, hint=f"free some space there, or {_ELSEWHERE}") from error
