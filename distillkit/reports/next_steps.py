"""What to try next, from what a run came to: a finding and the settings that may mend it, a sentence each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.reports.teacher_share import listed, share_advice, teacher_verdict
from distillkit.reports.training_texts import TrainingTexts
from distillkit.settings import declared
from distillkit.words import say

# Of the gap to the teacher; a student that has closed less is said to be far from it.
FAR = 0.5
# A training was still getting better if the last part of its steps brought at least this part of what all of them brought.
LAST_STEPS, LAST_GAIN = 0.2, 0.05
# Bits per byte that the chance of one training can make, whatever the interval over the texts says: in benchmarks/quality the
# teacher's part differs by so much between seeds, and a rounding in the start alone moves a student by 0.004.
CHANCE = 0.02


def next_steps(
    *,
    verdict: str | None,
    gap_closed: float | None,
    teacher_gain: Mapping[str, Any] | None,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    run: Path,
    examples: int | None = None,
    too_few: int | None = None,
    lang: str = "en",
) -> list[str]:
    """Sentences, the most telling first; [] where there is nothing to mend, or nothing was measured.

    Args:
        verdict, gap_closed, teacher_gain: of `validate`.
        metrics: the content of metrics.json.
        config: the parameters of the run.
        run: its directory, for commands.
        examples: there were to train on; None where that is not known.
        too_few: documents that were measured, where they are too few for an interval; else None.
    """
    if too_few is not None:
        # What else follows from such scores is not worth saying.
        return [say(lang, "next.too_few", count=f"{too_few:,}")]
    texts = TrainingTexts.of(config, metrics, examples)
    falling = still_falling(metrics.get("held_out") or [])
    tune = f"distillkit tune --run {shlex.quote(str(run))}"
    steps: list[str] = []
    if verdict == "worse":
        rate = declared.number_words(float(f"{config['learning_rate'] / 3:.1g}"))
        steps.append(say(lang, "next.worse", rate=rate, tune=tune))
    if falling:
        steps.append(say(lang, "next.falling", longer=_longer(config, run, texts, lang)))
    if verdict == "inconclusive":
        learnt = [] if falling else [texts.more(lang, "way.more_learnt")]
        ways = listed([say(lang, "way.more_measured"), *learnt], "way.and", lang)
        steps.append(say(lang, "next.inconclusive", ways=ways, tune=tune))
    if verdict == "improved" and gap_closed is not None and gap_closed < FAR:
        ways = _nearer(config, falling, texts, lang)
        steps.append(say(lang, "next.far", closed=f"{100 * gap_closed:.0f}", ways=ways))
    if teacher_gain is not None and (advice := share_advice(teacher_gain, config, texts, lang)):
        lost = teacher_verdict(teacher_gain) == "harmed"
        steps.append(say(lang, "next.lost" if lost else "next.not_helped", advice=advice))
    if teacher_gain is not None and (again := _again(teacher_gain, config, run, lang)):
        steps.append(again)
    return steps


def _again(teacher_gain: Mapping[str, Any], config: Mapping[str, Any], run: Path, lang: str) -> str:
    """Where the interval says that the teacher helped or did harm, and by less than another seed may change; else ""."""
    if teacher_verdict(teacher_gain) == "not shown" or abs(float(teacher_gain["bits_per_byte"])) >= CHANCE:
        return ""
    seed, file = int(config["seed"]) + 1, shlex.quote(str(run / "config.yaml"))
    return say(lang, "next.again", command=f"distillkit distill --config {file} --seed {seed}")


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


def _longer(config: Mapping[str, Any], run: Path, texts: TrainingTexts, lang: str) -> str:
    # Where the number of steps is given, that of the epochs has no effect.
    name = "max_steps" if texts.limited else "epochs"
    wanted, most = 2 * int(config[name]), declared.facts(name).high
    if most is not None and wanted > most:
        return say(lang, "next.more_source" if texts.exhausted else "next.more_text")
    if texts.unread:
        wanted = max(wanted, texts.needed)
    command = f"distillkit distill --run {shlex.quote(str(run))} {declared.flag(name)} {wanted}"
    return say(lang, "next.longer", command=command)


def _nearer(config: Mapping[str, Any], falling: bool, texts: TrainingTexts, lang: str) -> str:
    ways = [say(lang, "way.larger_student"), texts.more(lang)]
    ways += [] if falling else [say(lang, "way.tune")]
    ways += [say(lang, "way.white_box")] if config.get("box_type") == "black" else []
    return listed(ways, "way.or", lang)
