"""The plan in words for people; scripts read the figures of `plan.estimate_run` by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.wording import format_bytes
from distillkit.words import reworded, say
from distillkit.words import words as known_words

_PART_OF_TIME = "  "
# What was decided, where that is said; and the keys of what it came to.
_DECISIONS = (
    ("teacher_cache", "plan.reads", "plan.reads"),
    ("teacher_streaming", "plan.in_memory", "plan.in_memory"),
    ("teacher_devices", "plan.lies_on", "plan.lies_on"),
    ("compiled_loss", "plan.compiled", "plan"),
    ("control", "plan.control", "plan"),
)


def plan_rows(
    estimate: Mapping[str, Any], *, teacher: str, student: str, student_unknown: str | None = None, lang: str = "en"
) -> list[tuple[str, str]]:
    """(what, in words) for everything that is known of the run and matters to it.

    Args:
        estimate: of `estimate_run`.
        teacher, student: their names.
        student_unknown: what to say of a student whose size is not known; by default that it is not here yet.
    """
    return _Plan(estimate, lang, student_unknown).rows(teacher, student)


@dataclass(frozen=True)
class _Plan:
    """A plan in a language.

    Attributes:
        unknown: what to say of a student whose size is not known, where that is not that it is not here yet.
    """

    estimate: Mapping[str, Any]
    lang: str
    unknown: str | None

    def say(self, key: str, **parts: object) -> str:
        return say(self.lang, f"plan.{key}", **parts)

    def rows(self, teacher: str, student: str) -> list[tuple[str, str]]:
        estimate = self.estimate
        refused = estimate["refused"]
        rows = [(self.say("refused"), str(refused))] if refused else []
        rows.append((self.say("device"), str(estimate["device"])))
        served = "server_requests_at_most" in estimate
        if not served or estimate["teacher_parameters"] is not None:
            rows += self._teachers() or [
                (self.say("teacher"), self._model(teacher, estimate["teacher_parameters"], self.say("unknown")))
            ]
        rows.append((self.say("student"), self._model(student, estimate["student_parameters"], self._unknown())))
        if estimate.get("trained_parameters") is not None:
            adapter = self.say("adapter", count=f"{estimate['trained_parameters']:,}")
            rows.append((self.say("trained"), adapter))
        steps, tokens = estimate["optimizer_steps_at_most"], estimate["training_tokens_at_most"]
        rows.append((self.say("training"), self.say("amount", steps=f"{steps:,}", tokens=f"{tokens:,}")))
        if estimate["texts"] != "prepared":
            rows.append((self.say("texts"), self.say(f"texts.{estimate['texts']}")))
        if estimate.get("early_stopping"):
            rows.append((self.say("sooner"), reworded(self.lang, str(estimate["early_stopping"]))))
        own = estimate.get("on_policy_steps")
        if own:
            sampled = f"{estimate['sampled_tokens_at_most']:,}"
            rows.append((self.say("on_policy"), self.say("on_policy_words", steps=f"{own:,}", tokens=sampled)))
        rows += [*self._decided(), *self._asked()]
        answers = estimate.get("answers_of_each_model_at_most")
        if answers:
            rows.append((self.say("answers"), self.say("answers_each", count=f"{answers:,}")))
        memory = self._of_free(estimate["memory_bytes"], estimate["memory_free_bytes"])
        if (processes := estimate.get("processes", 1)) > 1:
            memory = self.say("each", amount=memory, processes=processes)
        rows.append((self.say("memory"), memory))
        disk = self._of_free(estimate["disk_bytes"], estimate["disk_free_bytes"])
        kept = estimate["teacher_cache_bytes"]
        rows.append((self.say("disk"), self.say("kept", disk=disk, kept=format_bytes(kept)) if kept else disk))
        return rows + self._times()

    def _teachers(self) -> list[tuple[str, str]]:
        """Of several teachers each one, what it counts and how it is read; [] of one."""
        rows: list[tuple[str, str]] = []
        for number, one in enumerate(self.estimate.get("teachers") or (), 1):
            words = self._model(one["name"], one["parameters"], self.say("unknown"))
            words += self.say("weight", weight=f"{one['weight']:.3g}")
            if number > 1 and one["teacher_cache"] is not None:
                choice, _, why = str(one["teacher_cache"]).partition(": ")
                key = f"plan.reads.{choice}"
                told = say(self.lang, key) if key in known_words(self.lang) else choice
                words += f"; {self.say('reads_it')} {told}: {reworded(self.lang, why)}"
            rows.append((self.say("one_teacher", number=number), words))
        return rows

    def _unknown(self) -> str:
        return self.unknown or self.say("unknown")

    def _model(self, name: str, parameters: int | None, unknown: str) -> str:
        if parameters is None:
            return f"{name}, {unknown}"
        return f"{name}, {self.say('parameters', count=count_words(parameters, self.lang))}"

    def _decided(self) -> list[tuple[str, str]]:
        """What was decided, and why. A plan that nothing is compiled in says nothing of it."""
        rows: list[tuple[str, str]] = []
        for name, what, came_to in _DECISIONS:
            choice, _, why = str(self.estimate.get(name) or "").partition(": ")
            if choice and (name, choice) != ("compiled_loss", "off"):
                key = f"{came_to}.{choice}"
                words = say(self.lang, key) if key in known_words(self.lang) else choice
                rows.append((say(self.lang, what), f"{words}: {reworded(self.lang, why)}"))
        return rows

    def _asked(self) -> list[tuple[str, str]]:
        """Of a server."""
        requests = self.estimate.get("server_requests_at_most")
        if requests is None:
            return []
        sent = f"{self.estimate['server_prompt_tokens_at_most']:,}"
        words = self.say("requests", requests=f"{requests:,}", tokens=sent)
        written = self.estimate.get("server_completion_tokens_at_most")
        words += self.say("written", tokens=f"{written:,}") if written is not None else ""
        time = self.estimate.get("server_time")
        return [(self.say("asked"), words)] + (
            [(self.say("server_time"), reworded(self.lang, str(time)))] if time else []
        )

    def _of_free(self, needed: int | None, free: int) -> str:
        """`3.2 of 21.0 GB free`."""
        there = format_bytes(free)
        if needed is None:
            return self.say("free", unknown=self._unknown(), free=there)
        amount = format_bytes(needed)
        if needed > free:
            return self.say("too_much", amount=amount, free=there)
        # The unit once, where both have it.
        number, unit = amount.split(" ")
        return self.say("of_free", amount=number if unit == there.split(" ")[1] else amount, free=there)

    def _times(self) -> list[tuple[str, str]]:
        total: float | None = self.estimate["total_seconds"]
        phases: Mapping[str, float] = self.estimate["phases"] or {}
        if total is None:
            return [(self.say("time"), self._unknown())]
        rows = [(self.say("time"), duration_words(total, self.lang) if phases else self.say("no_time"))]
        return rows + [
            (_PART_OF_TIME + self._phase(name), duration_words(seconds, self.lang)) for name, seconds in phases.items()
        ]

    def _phase(self, name: str) -> str:
        """Stages are named as their commands are."""
        key = f"plan.phase.{name}"
        return say(self.lang, key) if key in known_words(self.lang) else name


def duration_words(seconds: float, lang: str = "en") -> str:
    """`about 40 s`, `about 15 min`, `about 3 h 20 min`."""
    if seconds < 1:
        return say(lang, "duration.none")
    if seconds < 90:
        return say(lang, "duration.seconds", seconds=f"{seconds:.0f}")
    minutes = round(seconds / 60)
    if minutes < 90:
        return say(lang, "duration.minutes", minutes=minutes)
    hours, rest = divmod(minutes, 60)
    key = "duration.hours_minutes" if rest and hours < 10 else "duration.hours"
    return say(lang, key, hours=f"{hours:,}", minutes=rest)


def count_words(count: int, lang: str = "en") -> str:
    """`135 million`, `1.56 billion`."""
    for power, name in ((1e9, "billion"), (1e6, "million")):
        if count >= power:
            return say(lang, f"plan.{name}", count=f"{count / power:.3g}")
    return f"{count:,}"
