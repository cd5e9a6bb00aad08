"""What `report` does: report.html of a run, finished or not."""

from __future__ import annotations

import webbrowser

from distillkit.console import Console
from distillkit.durability import weaknesses_reported
from distillkit.run.directory import LATEST, find_run
from distillkit.settings.paths import user_path


def run_report(run: str | None, output_dir: str, console: Console, *, show: bool) -> None:
    """`distillkit report`.

    Args:
        show: open the page in a browser.

    Raises:
        PreconditionError: there is no such run, or another process is at work on it, which writes the report at its end.
        DistillkitError: the page cannot be written.
    """
    from distillkit.reporting.write import write_report

    found = find_run(None if run == LATEST else run, user_path(output_dir, "--output-dir"))
    console.info(f"run directory: {found.path}")
    with weaknesses_reported(console.warn), found.locked():
        path = write_report(found, console.lang)
    console.data(f"report: {path}")
    if show and not webbrowser.open(path.resolve().as_uri()):
        console.warn("there is no browser here that could show it")
    console.json(
        {"command": "report", "status": "complete", "run": str(found.path), "report": str(path), "lang": console.lang}
    )
