"""plot: the loss terms, the held-out score, the learning rate, the throughput, before/after against control and teacher, single
documents, and the layers."""

from __future__ import annotations

from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.reports.plots import draw_plots
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import make_folder, sha256_of
from distillkit.training.metrics_log import logged_metrics


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """The validation's figures, which are drawn where they are there."""
    path = run.path / "validation.json"
    return {"validation.json": sha256_of(path) if path.is_file() else "missing"}


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Draw plots/*.png and plots/*.svg."""
    metrics = logged_metrics(run.path / "metrics.jsonl", run.checkpoints, f"distill --run {run.path}")
    control = []
    if run.best_control is not None:
        place = run.control / "metrics.jsonl", run.control / "checkpoints"
        control = logged_metrics(*place, f"control --run {run.path}")
    validation = run.read_output("validate", "validation.json") or None
    cut = run.read_output("prepare-data", "data/cut.json") or None
    make_folder(run.plots)
    drawn = draw_plots(
        metrics, validation, run.plots, title=run.path.name, control=control, cut=cut,
        details=run.read_output("validate", "validation_details.json") or None, black_box=config.box_type == "black",
    )  # fmt: skip
    if not drawn:
        raise PreconditionError(
            "there are no figures to draw", hint=f"train first: distillkit distill --run {run.path}"
        )
    pictures = sorted({picture.stem for picture in drawn})
    return StageResult(
        drawn, {"plots": pictures}, console.say("summary.plot", pictures=", ".join(pictures), folder=run.plots)
    )
