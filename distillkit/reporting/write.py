"""Writes report.html into the run directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from distillkit.errors import UsageError
from distillkit.reporting.gather import gather
from distillkit.reports.html.page import report_page
from distillkit.reports.html.words import LANGUAGES
from distillkit.run.directory import RunDirectory
from distillkit.storage import write_bytes

REPORT = "report.html"
LANGUAGE_VARIABLE = "DISTILLKIT_LANG"
# The stages whose result the report is about.
REPORTED = ("distill", "control", "validate", "demo", "plot")


def check_language(lang: str) -> str:
    """`lang`, if the report is written in it.

    Raises:
        UsageError: it is not.
    """
    if lang not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise UsageError(f"--lang: {lang!r} is not one of {known}", hint="use --lang en or --lang ru")
    return lang


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


def report_after(run: RunDirectory, stages: Mapping[str, str], environment: Mapping[str, str] | None = None) -> None:
    """Write the report at the end of a run, where one of these stages has a part in it.

    Args:
        stages: those that were asked for.
        environment: where a language is looked up; without one the report keeps that which it has, else it is English.

    Raises:
        DistillkitError: it cannot be written.
    """
    if not any(stage in REPORTED for stage in stages):
        return
    asked = (os.environ if environment is None else environment).get(LANGUAGE_VARIABLE, "")
    write_report(run, next(lang for lang in (asked, _present_language(run), LANGUAGES[0]) if lang in LANGUAGES))


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
