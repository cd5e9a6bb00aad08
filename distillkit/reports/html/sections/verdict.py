"""What came of the run, in one sentence; what is missing; the figures that matter most."""

from __future__ import annotations

from distillkit.reports.html.elements import Markup, element, together
from distillkit.reports.html.writer import Writer, looked_up
from distillkit.reports.teacher_following import followed
from distillkit.reports.teacher_share import teacher_verdict

HERE = "--run ."


def verdict(w: Writer) -> Markup:
    """One sentence: better or not, by how much, and what part of it is the teacher's."""
    facts = w.facts
    decided = facts.validation.get("verdict")
    if not decided:
        if facts.complete("distill"):
            return w("verdict.not_measured")
        return w("verdict.not_trained")
    figures = {
        "before": w.figure("validation.before.bits_per_byte", "score"),
        "after": w.figure("validation.after.bits_per_byte", "score"),
    }
    return together(w(f"verdict.{decided}", **figures), _share(w), ".")


def away(w: Writer) -> Markup | None:
    """That a student which improved follows its teacher less than before."""
    validation = w.facts.validation
    if followed(validation.get("verdict"), validation.get("before"), validation.get("after")) is None:
        return None
    figures: dict[str, Markup] = {}
    for side in ("before", "after"):
        figures[f"agreement_{side}"] = w.figure(f"validation.{side}.teacher_agreement", "share")
        figures[f"kl_{side}"] = w.figure(f"validation.{side}.teacher_kl", "score")
    return element("p", w("verdict.away", **figures))


def _share(w: Writer) -> Markup:
    """The second half of the sentence."""
    facts = w.facts
    teachers = facts.validation.get("teacher_gain")
    if teachers is None:
        return w("share.no_part" if facts.config.get("alpha") == 0 else "share.no_control")
    found = teacher_verdict(teachers)
    decided = facts.validation.get("verdict")
    key = {"helped": "share.helped", "not shown": "share.not_shown", "harmed": "share.harmed"}[found]
    if found == "helped" and decided != "improved":
        key = "share.helped_alone"
    share = w.figure("validation.teacher_gain.bits_per_byte", "score")
    interval = w.interval("validation.teacher_gain.ci95", "score")
    return w(key, share=together(share, None if interval is None else together(" ", interval)))


def gaps(w: Writer) -> Markup | None:
    """What the run has not done, each with the command that does it."""
    facts = w.facts
    found: list[Markup] = []
    for stage, record in facts.stages.items():
        if record.status == "complete":
            continue
        key = "gap.cut_off" if record.status == "running" else "gap.failed"
        error = element("q", record.error) if record.error else None
        command = f"distillkit {'distill' if stage == 'prepare-data' else stage} {HERE}"
        found.append(_gap(w, w(key, stage=element("code", stage), error=error), command))
    if "distill" not in facts.stages:
        found.append(_gap(w, w("gap.distill"), f"distillkit distill {HERE}"))
    elif facts.complete("distill"):
        for stage in ("control", "validate", "demo"):
            record = facts.stages.get(stage)
            if record is None and (stage != "control" or facts.config.get("alpha") != 0):
                found.append(_gap(w, w(f"gap.{stage}"), f"distillkit {stage} {HERE}"))
            elif stage == "control" and record is not None and record.why is not None:
                found.append(_gap(w, w("gap.control_why", why=element("q", record.why)), f"distillkit control {HERE}"))
        if facts.validation and not facts.details:
            found.append(_gap(w, w("gap.details"), f"distillkit validate {HERE} --force"))
        if facts.validation and not facts.validation.get("teacher"):
            found.append(w("gap.teacher"))
    if facts.config.get("box_type") == "black":
        found.append(w("gap.black_box"))
    found += [w("gap.damaged", problem=problem) for problem in facts.problems]
    if not found:
        return None
    heading = element("h2", w("gaps"), id="h-gaps")
    return element("div", heading, element("ul", [element("li", gap) for gap in found]), class_="gaps")


def _gap(w: Writer, words: Markup, command: str) -> Markup:
    return together(words, " ", w("missing.make"), " ", element("code", command))


def tiles(w: Writer) -> Markup | None:
    """The figures that matter most."""
    facts = w.facts
    if not facts.validation:
        return None
    interval = w.interval("validation.gain.ci95", "gain")
    shown = [
        ("tile.gain", w.figure("validation.gain.bits_per_byte", "gain"),
         w("tile.interval", interval=interval) if interval is not None else w("tile.no_interval")),
        ("tile.share", w.figure("validation.teacher_gain.bits_per_byte", "gain"), _share_note(w)),
        # A share that stands on a handful of texts would be read as measured.
        ("tile.gap", w.figure("validation.gap_closed", "share"), w("tile.gap_note")) if interval is not None
        else ("tile.gap", w.dash(), w("tile.no_interval")),
        ("tile.size", w.figure("validation.after.parameters", "millions"), _size_note(w)),
    ]  # fmt: skip
    return element(
        "dl",
        [element("div", element("dt", w(key)), element("dd", figure, element("small", note))) for key, figure, note in shown],
        class_="tiles",
    )  # fmt: skip


def _share_note(w: Writer) -> Markup:
    if not w.facts.validation.get("teacher_gain"):
        return w("tile.no_control")
    interval = w.interval("validation.teacher_gain.ci95", "gain")
    return w("tile.interval", interval=interval) if interval is not None else w("tile.no_interval")


def _size_note(w: Writer) -> Markup:
    ours, theirs = (looked_up(w.facts.validation, [name, "parameters"]) for name in ("after", "teacher"))
    if not ours or not theirs:
        return w("tile.parameters")
    return w("tile.size_note", share=w.derived(ours / theirs, "share"))
