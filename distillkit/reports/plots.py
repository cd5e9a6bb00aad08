"""The pictures of a run: which there are, and from which of its figures each is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.reports.bar_plots import comparison_plot, gains_plot, layers_plot
from distillkit.reports.curve_plots import learning_rate_plot, loss_plot, score_plot, throughput_plot
from distillkit.reports.drawing import own_style, printable, write_figure


def draw_plots(
    metrics: Sequence[Mapping[str, Any]],
    validation: Mapping[str, Any] | None,
    folder: Path,
    *,
    title: str,
    cut: Mapping[str, Any] | None = None,
    control: Sequence[Mapping[str, Any]] = (),
    details: Mapping[str, Any] | None = None,
    black_box: bool = False,
) -> list[Path]:
    """Draw every picture for which there are figures.

    Args:
        metrics: the lines of metrics.jsonl; values that are missing or not finite are left out.
        validation: the content of validation.json, where the student was validated.
        folder: an existing folder; files of the same name are replaced.
        title: the name of the run, shown on every picture, cut where it is long.
        cut: the content of data/cut.json, of a student that is cut from its teacher.
        control: the lines of control/metrics.jsonl, where the same student was trained without the teacher.
        details: the content of validation_details.json.
        black_box: the student learnt from texts that the teacher wrote.

    Returns:
        The files written (`loss`, `score`, `learning_rate`, `throughput`, `comparison`, `gains`, `layers`, each .png and
        .svg); [] without any figures.

    Raises:
        DistillkitError: a picture cannot be written.
    """
    written: list[Path] = []
    with own_style():
        heading = printable(title)
        for name, figure in (
            ("loss", loss_plot(metrics, control, heading, black_box=black_box)),
            ("score", score_plot(metrics, control, validation or {}, heading)),
            ("learning_rate", learning_rate_plot(metrics, heading)),
            ("throughput", throughput_plot(metrics, control, heading)),
            ("comparison", comparison_plot(validation or {}, heading)),
            ("gains", gains_plot(details or {}, heading)),
            ("layers", layers_plot(cut or {}, heading)),
        ):
            if figure is not None:
                written += write_figure(figure, folder, name)
    return written
