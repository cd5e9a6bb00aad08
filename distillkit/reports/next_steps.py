"""What to try next, from what a run came to: a finding and the settings that may mend it, a sentence each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.reports.teacher_share import share_advice, teacher_verdict
from distillkit.settings import parameters as declared

# Of the gap to the teacher; a student that has closed less is said to be far from it.
FAR = 0.5
# A training was still getting better if the last part of its steps brought at least this part of what all of them brought.
LAST_STEPS, LAST_GAIN = 0.2, 0.05


def next_steps(
    *,
    verdict: str | None,
    gap_closed: float | None,
    teacher_gain: Mapping[str, Any] | None,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    run: Path,
) -> list[str]:
    """Sentences, the most telling first; [] where there is nothing to mend, or nothing was measured.

    Args:
        verdict, gap_closed, teacher_gain: of `validate`.
        metrics: the content of metrics.json.
        config: the parameters of the run.
        run: its directory, for commands.
    """
    falling = still_falling(metrics.get("held_out") or [])
    tune = f"distillkit tune --run {shlex.quote(str(run))}"
    steps: list[str] = []
    if verdict == "worse":
        rate = declared.number_words(float(f"{config['learning_rate'] / 3:.1g}"))
        steps.append(
            f"the student got worse: try a lower learning rate (--learning-rate {rate}), texts that are more like what it is "
            f"measured on, or let {tune} look for the settings"
        )
    if falling:
        steps.append(f"the held-out score was still getting better when the training stopped: {_longer(config, run)}")
    if verdict == "inconclusive":
        ways = [
            "more texts to measure on (--held-out-size)",
            *([] if falling else ["more text to learn from (--sample-size)"]),
        ]
        steps.append(
            f"the gain is too small to be told from chance: try {' and '.join(ways)}, or let {tune} look for better settings"
        )
    if verdict == "improved" and gap_closed is not None and gap_closed < FAR:
        steps.append(
            f"the student is still far from its teacher ({100 * gap_closed:.0f} % of the gap closed): "
            f"{_nearer(config, falling)} bring it nearer"
        )
    if teacher_gain is not None and (advice := share_advice(teacher_gain, config)):
        lost = teacher_verdict(teacher_gain) == "harmed"
        steps.append(
            f"{'the student lost to its control' if lost else 'the teacher is not shown to have helped'}: {advice}"
        )
    return steps


def still_falling(held_out: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last fifth of the steps brought a twentieth or more of the whole gain, and ended with the best score.

    Args:
        held_out: `step` and `bits_per_byte` of every score, in order; the first is that of the start.
    """
    scores = [(int(line["step"]), float(line["bits_per_byte"])) for line in held_out]
    if len(scores) < 3:
        return False
    (_, first), (end, last) = scores[0], scores[-1]
    # Two scores at least: the last one alone says nothing of where the curve goes.
    before = [score for step, score in scores[:-1] if step <= (1 - LAST_STEPS) * end]
    gained = first - last
    return gained > 0 and last <= min(score for _, score in scores) and min(before) - last >= LAST_GAIN * gained


def _longer(config: Mapping[str, Any], run: Path) -> str:
    epochs, most = int(config["epochs"]), declared.facts("epochs").high
    if most is not None and 2 * epochs > most:
        return "more text (--sample-size) would bring more"
    return f"go on with distillkit distill --run {shlex.quote(str(run))} --epochs {2 * epochs}"


def _nearer(config: Mapping[str, Any], falling: bool) -> str:
    ways = ["a larger student", "more text (--sample-size)"]
    if not falling:
        ways.append("other settings (distillkit tune)")
    if config.get("box_type") == "black":
        ways.append("the teacher's probabilities, where they can be had (--box-type white),")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"
