"""What a run came to, read back from its files; the same for the table at the end, --json and `distill_models()`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distillkit.reports.early_stop import early_remark
from distillkit.reports.harness_table import harness_rows
from distillkit.reports.next_steps import next_steps
from distillkit.reports.teacher_following import Followed, followed
from distillkit.reports.teacher_share import share_advice, share_sentence
from distillkit.reports.training_texts import TrainingTexts
from distillkit.run.directory import RunDirectory
from distillkit.settings import declared
from distillkit.words import say


@dataclass(frozen=True)
class DistillResult:
    """The outcome of a run.

    Attributes:
        run_directory: everything that the run wrote.
        student_path: the distilled student, for `AutoModelForCausalLM.from_pretrained`; None before training.
        teacher, before, after: measured figures (`bits_per_byte`, `perplexity`, …); None where not measured.
        teachers: of several teachers the figures of each, with `name` and `weight`; `teacher` is then their mixture. () of one.
        tuned_teacher: the same of the teacher that taught, where it was tuned (`tune_teacher`).
        gap_closed: (before - after) / (before - teacher) in bits per byte; None where undefined or not measured.
        gain: `bits_per_byte` gained over the held-out documents and its 95 % interval `ci95`.
        verdict: "improved", "inconclusive", "worse"; None without validation.
        documents: held-out documents that were scored; None without validation.
        metrics: the content of metrics.json (`train`, `teacher_pass`, `best`).
        control: figures of the same student trained without the teacher; None where there is no control.
        teacher_gain: `bits_per_byte` that the student is better than its control, and the 95 % interval `ci95`.
        lm_eval: of lm-evaluation-harness, task -> metric -> `before`, `after`, …, `stderr`, `higher_is_better`; None where it was
            not asked for (`lm_eval`).
        advice: what to try where the teacher is not shown to have helped, else "".
        next_steps: what was found wanting, and what to try; one sentence each.
    """

    run_directory: Path
    student_path: Path | None = None
    teacher: dict[str, Any] | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    gap_closed: float | None = None
    gain: dict[str, Any] | None = None
    verdict: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    control: dict[str, Any] | None = None
    teacher_gain: dict[str, Any] | None = None
    tuned_teacher: dict[str, Any] | None = None
    advice: str = ""
    next_steps: tuple[str, ...] = ()
    lm_eval: dict[str, Any] | None = None
    teachers: tuple[dict[str, Any], ...] = ()
    documents: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: paths as text."""
        return {
            "run_directory": str(self.run_directory),
            "student_path": str(self.student_path) if self.student_path else None,
            "teacher": self.teacher,
            "teachers": list(self.teachers),
            "before": self.before,
            "after": self.after,
            "tuned_teacher": self.tuned_teacher,
            "gap_closed": self.gap_closed,
            "gain": self.gain,
            "verdict": self.verdict,
            "documents": self.documents,
            "control": self.control,
            "teacher_gain": self.teacher_gain,
            "advice": self.advice,
            "next_steps": list(self.next_steps),
            "lm_eval": self.lm_eval,
            "metrics": self.metrics,
        }

    def score_change(self, lang: str) -> str:
        """`2.41 -> 1.90 (improved)`, the verdict in a language; "" where nothing was measured."""
        if not self.before or not self.after or self.verdict is None:
            return ""
        named = say(lang, f"verdict.{self.verdict}")
        return f"{self.before['bits_per_byte']:.3f} -> {self.after['bits_per_byte']:.3f} ({named})"

    @property
    def verdict_sentence(self) -> str:
        """The verdict as a sentence."""
        return self.verdict_words("en")

    def verdict_words(self, lang: str) -> str:
        """The verdict as a sentence of a language; "" without one."""
        if self.verdict is None or not self.gain:
            return ""
        gain = self.gain["bits_per_byte"]
        named = say(lang, f"verdict.{self.verdict}")
        sentence = say(
            lang, "verdict.gained" if gain >= 0 else "verdict.lost", verdict=named, amount=f"{abs(gain):.4f}"
        )  # fmt: skip
        interval = self.gain.get("ci95")
        if not interval:
            # A share of the gap would be read as measured.
            few = say(lang, "verdict.one" if self.documents == 1 else "verdict.few", count=self.documents or 0)
            return sentence + few + early_remark(self.metrics.get("train", {}), lang)
        sentence += say(lang, "verdict.interval", low=f"{interval[0]:+.4f}", high=f"{interval[1]:+.4f}")
        # A student that got worse has gone no part of the way.
        if self.gap_closed is not None and self.gap_closed >= 0:
            key = "verdict.gap" if self.gap_closed <= 1 else "verdict.beyond"
            sentence += say(lang, key, closed=f"{100 * self.gap_closed:.1f}")
        return sentence + early_remark(self.metrics.get("train", {}), lang)

    def following_words(self, lang: str) -> str:
        """That a student which improved says less of what its teacher would say than before, in a language; else ""."""
        found = followed(self.verdict, self.before, self.after)
        return "" if found is None else _following_sentence(found, lang)

    @property
    def teacher_sentence(self) -> str:
        """What part of the gain is the teacher's; "" without a control."""
        return self.teacher_words("en")

    def teacher_words(self, lang: str) -> str:
        """What part of the gain is the teacher's, in a language; "" without a control."""
        return share_sentence(self.gain, self.teacher_gain, lang) if self.gain and self.teacher_gain else ""


def read_result(run: RunDirectory) -> DistillResult:
    """Read the outcome of a run as far as it has got.

    Raises:
        PreconditionError: a result file is corrupt.
    """
    distilled = run.record("distill")
    trained = distilled is not None and distilled.status == "complete"
    validated = run.record("validate")
    validation = run.read_output("validate", "validation.json") if validated and validated.status == "complete" else {}
    metrics = run.read_output("distill", "metrics.json")
    if not metrics and distilled is not None:
        metrics = {name: value for name, value in distilled.metrics.items() if isinstance(value, dict)}
    teacher_gain = validation.get("teacher_gain")
    found = DistillResult(
        run_directory=run.path,
        student_path=run.best_student if trained else None,
        teacher=validation.get("teacher"),
        teachers=tuple(validation.get("teachers") or ()),
        before=validation.get("before"),
        after=validation.get("after"),
        tuned_teacher=validation.get("tuned_teacher"),
        gap_closed=validation.get("gap_closed"),
        gain=validation.get("gain"),
        verdict=validation.get("verdict"),
        documents=validation.get("documents"),
        control=validation.get("control"),
        teacher_gain=teacher_gain,
        advice=_share_advice(teacher_gain, metrics, run) if teacher_gain else "",
        metrics=metrics,
        lm_eval=validation.get("lm_eval"),
    )
    return replace(found, next_steps=next_steps_of(found, run))


def _config(run: RunDirectory) -> dict[str, Any]:
    """The parameters of a run; what the version that wrote it did not have yet has its default."""
    return {name: declared.default(name) for name in declared.fields()} | run.manifest.config


def _share_advice(teacher_gain: dict[str, Any], metrics: dict[str, Any], run: RunDirectory) -> str:
    config = _config(run)
    return share_advice(teacher_gain, config, TrainingTexts.of(config, metrics, _training_examples(run)))


def _training_examples(run: RunDirectory) -> int | None:
    record = run.record("prepare-data")
    return None if record is None else record.metrics.get("examples", {}).get("train")


def _following_sentence(found: Followed, lang: str) -> str:
    shares = {name: f"{100 * share:.1f}" for name, share in (("agreed", found.agreed), ("agrees", found.agrees))}
    return say(lang, "verdict.away", **shares, kl_before=f"{found.kl_before:.3f}", kl_after=f"{found.kl_after:.3f}")


def next_steps_of(result: DistillResult, run: RunDirectory, lang: str = "en") -> tuple[str, ...]:
    """What was found wanting in a run, and what to try; one sentence each."""
    return tuple(
        next_steps(
            verdict=result.verdict,
            gap_closed=result.gap_closed,
            teacher_gain=result.teacher_gain,
            metrics=result.metrics,
            config=_config(run),
            run=run.path,
            examples=_training_examples(run),
            too_few=result.documents if result.gain and not result.gain.get("ci95") else None,
            lang=lang,
        )
    )


def result_table(result: DistillResult, lang: str = "en") -> tuple[list[str], list[list[Any]]]:
    """The names of the columns, and a row for each model that was measured; whether answers end only of those that were asked."""
    measured = {
        "before": result.before, "control": result.control, "after": result.after, "teacher": result.teacher,
        "tuned_teacher": result.tuned_teacher,
    }  # fmt: skip
    named = {name: say(lang, f"model.{name}") for name in measured}
    if result.teachers:
        named["teacher"] = say(lang, "model.mixture")
    for number, figures in enumerate(result.teachers, 1):
        named[f"teacher {number}"] = say(lang, "model.one_of_several", number=number, weight=f"{figures['weight']:.3g}")
        measured[f"teacher {number}"] = figures
    asked = any(figures and figures.get("answers") for figures in measured.values())
    rows = [
        [
            named[name],
            f"{figures['bits_per_byte']:.4f}",
            figures["perplexity"],
            figures.get("parameters"),
        ]
        + ([stopped_words(figures.get("answers"), lang)] if asked else [])
        for name, figures in measured.items()
        if figures
    ]
    columns = [say(lang, f"result.{name}") for name in ("bits_per_byte", "perplexity", "parameters")]
    return ["", *columns, *([say(lang, "result.stop")] if asked else [])], rows


def harness_table(result: DistillResult, lang: str = "en") -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row for each task and metric of lm-evaluation-harness."""
    models, rows = harness_rows(result.lm_eval or {}, lang)
    columns = [say(lang, f"harness.{name}") for name in ("task", "metric", "better")]
    return [*columns, *(say(lang, f"short.{name}") for name in models)], rows


def stopped_words(answers: dict[str, Any] | None, lang: str = "en") -> str:
    """`18 of 24`: the answers that a model has ended by itself; `–` where it was not asked."""
    if not answers:
        return "–"
    return say(lang, "result.stopped", stopped=answers["stopped"], asked=answers["asked"])
