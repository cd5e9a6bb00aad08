"""Writes report.html into the run directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from distillkit.reporting.gather import gather
from distillkit.reports.html.page import report_page
from distillkit.reports.html.words import LANGUAGES
from distillkit.run.directory import RunDirectory
from distillkit.storage import write_bytes

REPORT = "report.html"
# The stages whose result the report is about.
REPORTED = ("distill", "control", "validate", "demo", "plot")


def write_report(run: RunDirectory, lang: str) -> Path:
    """Write report.html of a run; a file that says the same already is left as it is.

    Args:
        lang: "en" or "ru".

    Raises:
        DistillkitError: it cannot be written.
    """
    page = report_page(gather(run), lang).encode("utf-8")
    path = run.path / REPORT
    if not path.is_file() or path.read_bytes() != page:
        write_bytes(path, page)
    return path


def report_after(
    run: RunDirectory, stages: Mapping[str, str], lang: str = LANGUAGES[0], *, asked: bool = False
) -> None:
    """Write the report at the end of a run, where one of these stages has a part in it.

    Args:
        stages: those that were asked for.
        lang: of a report that is not there yet; one that is keeps its own.
        asked: it was asked for, so that a report in another language changes to it.

    Raises:
        DistillkitError: it cannot be written.
    """
    if any(stage in REPORTED for stage in stages):
        present = _present_language(run)
        write_report(run, present if present in LANGUAGES and not asked else lang)


def refresh_report(run: RunDirectory) -> None:
    """Write the report anew, in its language, where there is one: something has changed that it tells of.

    Raises:
        DistillkitError: it cannot be written.
    """
    lang = _present_language(run)
    if lang in LANGUAGES:
        write_report(run, lang)


def _present_language(run: RunDirectory) -> str | None:
    path = run.path / REPORT
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        found = re.search(rb'<html lang="(\w+)">', stream.read(200))
    return None if found is None else found[1].decode()
