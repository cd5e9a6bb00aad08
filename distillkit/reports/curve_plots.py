"""Pictures over the steps of a training: loss terms, held-out score, learning rate, throughput; with those of the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distillkit.reports.drawing import (
    BLUE,
    CONTROL_DASHES,
    FAINT_INK,
    GREEN,
    INK,
    MOST_RAW_POINTS,
    NAMES,
    OLIVE,
    ORANGE,
    PURPLE,
    Points,
    draw_series,
    finish_steps,
    finite,
    is_logarithmic,
    new_figure,
    number,
    put_legend,
    series,
)
from distillkit.reports.step_lines import totals

Lines = Sequence[Mapping[str, Any]]


def loss_plot(metrics: Lines, control: Lines, heading: str, *, black_box: bool) -> Figure | None:
    """The terms of the loss, and the loss of the control, which has the true tokens alone.

    Args:
        metrics, control: lines of metrics.jsonl.
        black_box: the soft term is of texts that the teacher wrote.
    """
    total = series(totals(metrics), "loss")
    soft, hard = (series(metrics, name) for name in ("soft_loss", "hard_loss"))
    names = ("the teacher's texts", "the true texts") if black_box else ("soft: the teacher", "hard: true tokens")
    drawn: list[tuple[str, Points, str, Any, str]] = [
        ("total", total, BLUE, "-", "o"),
        (names[1], hard, ORANGE, "--", "s"),
    ]
    # Plain fine-tuning (alpha 0) has no soft term: its column is nothing but zeros.
    if np.any(soft[1]):
        drawn.insert(1, (names[0], soft, GREEN, "-.", "^"))
    drawn.append(("soft: the student's own texts", series(metrics, "on_policy_loss"), OLIVE, ":", "v"))
    if not any(len(points[0]) for _, points, *_ in drawn):
        return None
    drawn.append(("no teacher: true tokens", series(control, "hard_loss"), PURPLE, CONTROL_DASHES, "D"))
    figure, (axes,) = new_figure("Training loss", heading)
    for label, points, color, style, marker in drawn:
        draw_series(axes, points, label=label, color=color, style=style, marker=marker)
    logarithmic = is_logarithmic([points[1] for _, points, *_ in drawn])
    finish_steps(axes, "nats per token, lower is better", logarithmic=logarithmic)
    smoothed = any(len(points[0]) > MOST_RAW_POINTS for _, points, *_ in drawn)
    put_legend(figure, axes, heading="thick: moving average, faint: every logged step" if smoothed else None)
    return figure


def score_plot(metrics: Lines, control: Lines, validation: Mapping[str, Any], heading: str) -> Figure | None:
    """The held-out score while training, of student and control, and what the final measurement says."""
    steps, scores = points = series(metrics, "eval_bits_per_byte")
    if not len(steps):
        return None
    figure, (axes,) = new_figure("Held-out score of the student", heading)
    draw_series(axes, points, label="student", color=BLUE, style="-", marker="o")
    untaught = series(control, "eval_bits_per_byte")
    draw_series(axes, untaught, label=NAMES["control"], color=PURPLE, style=CONTROL_DASHES, marker="s")
    best = int(np.argmin(scores))
    axes.plot(
        steps[best], scores[best], linestyle="none", marker="*", markersize=11, color=ORANGE, markeredgecolor=INK,
        markeredgewidth=0.6, zorder=5, label=f"best: {number(scores[best])}, step {steps[best]:,}",
    )  # fmt: skip
    values = [scores, untaught[1]]
    for name, color, style in (("before", FAINT_INK, ":"), ("teacher", GREEN, "--")):
        value = bits_per_byte(validation, name)
        if value is not None:
            axes.axhline(
                value, color=color, linestyle=style, linewidth=1.3, label=f"{name} (test): {number(value)}"
            )  # fmt: skip
            values.append(np.array([value]))
    finish_steps(axes, "bits per byte, lower is better", logarithmic=is_logarithmic(values))
    # The verdict is measured on other texts than the curve: the lines are no exact target.
    measured = any(len(part) == 1 for part in values[2:])
    put_legend(figure, axes, heading="curves: validation texts; level lines: test texts" if measured else None)
    return figure


def learning_rate_plot(metrics: Lines, heading: str) -> Figure | None:
    """The learning rate, and the norm of the gradient below it."""
    panels = [
        (points, label, color, marker)
        for points, label, color, marker in (
            (series(metrics, "learning_rate"), "learning rate", BLUE, "o"),
            (series(metrics, "grad_norm"), "gradient norm", PURPLE, "s"),
        )
        if len(points[0])
    ]
    if not panels:
        return None
    name = " and ".join(label for _, label, *_ in panels).capitalize()
    figure, all_axes = new_figure(name, heading, rows=len(panels))
    for axes, (points, label, color, marker) in zip(all_axes, panels, strict=True):
        is_norm = label == "gradient norm"
        draw_series(axes, points, label=label, color=color, style="-", marker=marker, smooth=is_norm)
        logarithmic = is_norm and is_logarithmic([points[1]])
        finish_steps(axes, label, step_label=axes is all_axes[-1], logarithmic=logarithmic)
        if not is_norm:
            top = max(float(points[1].max()), 1e-6)
            axes.set_ylim(-0.04 * top, 1.08 * top)
    return figure


def throughput_plot(metrics: Lines, control: Lines, heading: str) -> Figure | None:
    """Tokens that are trained on per second, of student and control."""
    drawn = [
        ("student", throughput(metrics), BLUE, "-", "o"),
        (NAMES["control"], throughput(control), PURPLE, CONTROL_DASHES, "s"),
    ]
    drawn = [one for one in drawn if len(one[1][0])]
    if not drawn:
        return None
    figure, (axes,) = new_figure("Throughput of the training", heading)
    for label, points, color, style, marker in drawn:
        usual = f"{label}, median {np.median(points[1]):,.0f}"
        draw_series(axes, points, label=usual, color=color, style=style, marker=marker)
    logarithmic = is_logarithmic([points[1] for _, points, *_ in drawn])
    finish_steps(axes, "tokens per second", logarithmic=logarithmic)
    if not logarithmic:
        axes.set_ylim(bottom=0)
    put_legend(figure, axes)
    return figure


def throughput(metrics: Lines) -> Points:
    """Tokens per second between each line and the one before, at the step of the later one."""
    (steps, tokens), (timed, seconds) = series(metrics, "tokens"), series(metrics, "seconds")
    both, of_tokens, of_seconds = np.intersect1d(steps, timed, return_indices=True)
    begun = np.concatenate([[0.0], tokens[of_tokens]]), np.concatenate([[0.0], seconds[of_seconds]])
    more, longer = np.diff(begun[0]), np.diff(begun[1])
    told = (more > 0) & (longer > 0)
    return both[told], more[told] / longer[told]


def bits_per_byte(validation: Mapping[str, Any], name: str) -> float | None:
    """The figure of one of the models; None where it is missing or cannot be drawn."""
    return finite((validation.get(name) or {}).get("bits_per_byte"))
