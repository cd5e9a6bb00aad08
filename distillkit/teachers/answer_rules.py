"""Which of a teacher's texts are learnt, by rules that the user sets: reasoning, cut answers, refusals, a pattern, a program.

The rules work on what is written, and change nothing in teacher/generated.jsonl: with other rules no teacher has to write anew.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distillkit.data.reasoning import without_reasoning
from distillkit.settings.answer_values import COMMAND, PATTERN, command_words
from distillkit.settings.parameters import AnswerPolicy, Parameters, ReasoningPolicy
from distillkit.teachers.continuation_filter import ContinuationFilter
from distillkit.teachers.continuation_filter import Reason as FilterReason
from distillkit.teachers.generated_file import Continuation, Prompt
from distillkit.teachers.refusals import is_refusal

# "program" may be followed by the words of that program: "program: the number differs".
Reason = Literal["cut", "reasoning without an end", "refusal", "pattern", "program"] | FilterReason
Judge = Callable[[Prompt, Continuation], tuple[bool, str]]
"""Whether a text is kept, and why not."""

# Of what the rules decide; raised when that changes, the list of refusals included.
_FORMAT = 1


@dataclass(frozen=True)
class AnswerRules:
    """What the parameters of the same names say."""

    refusals: AnswerPolicy = "keep"
    cut_answers: AnswerPolicy = "keep"
    reasoning: ReasoningPolicy = "keep"
    keep_answers: str | None = None

    @classmethod
    def of(cls, config: Parameters) -> AnswerRules:
        """Those of a configuration."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})

    @property
    def decide(self) -> bool:
        """Whether there is anything for them to decide."""
        return self != AnswerRules()

    @property
    def command(self) -> list[str] | None:
        """The words of the program that judges, None where there is none."""
        given = self.keep_answers
        return command_words(given) if given is not None and given.startswith(COMMAND) else None

    def settings(self) -> dict[str, Any]:
        """All that verdicts depend on besides the texts, as far as it can be known."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    def judged(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Continuation],
        judge: Judge | None = None,
        opened: Callable[[Prompt], bool] = lambda prompt: False,
    ) -> list[Continuation]:
        """The texts as they are learnt. What was dropped before stays dropped.

        Args:
            prompts, continuations: of one another, in one order.
            judge: the user's program, for `command`; it sees what all other rules keep.
            opened: whether a prompt ends inside a reasoning block.
        """
        pattern = self._pattern()
        duplicates = ContinuationFilter(of_prompt=True)
        found = []
        for prompt, done in zip(prompts, continuations, strict=True):
            if done.kept:
                done = self._judged(prompt, done, opened(prompt), duplicates)
            if done.kept and pattern is not None and pattern.search(done.text) is None:
                done = _dropped(done, "pattern")
            if done.kept and judge is not None:
                keeps, why = judge(prompt, done)
                if not keeps:
                    done = _dropped(done, f"program: {why}" if why else "program")
            found.append(done)
        return found

    def _pattern(self) -> re.Pattern[str] | None:
        given = self.keep_answers
        if given is None or not given.startswith(PATTERN):
            return None
        return re.compile(given.removeprefix(PATTERN))

    def _judged(self, prompt: Prompt, done: Continuation, opened: bool, duplicates: ContinuationFilter) -> Continuation:
        if self.cut_answers == "drop" and done.finish != "eos":
            return _dropped(done, "cut")
        answer = without_reasoning(done.text, opened=opened)
        if self.reasoning == "strip":
            if answer is None:
                return _dropped(done, "reasoning without an end")
            if answer != done.text:
                done = dataclasses.replace(done, text=answer)
            reason = duplicates.judge(prompt.text, answer)
            if reason is not None:
                return _dropped(done, reason)
        if self.refusals == "drop" and answer is not None and is_refusal(answer):
            return _dropped(done, "refusal")
        return done


def _dropped(done: Continuation, reason: str) -> Continuation:
    return dataclasses.replace(done, kept=False, reason=reason)


def text_counts(continuations: Iterable[Continuation]) -> dict[str, Any]:
    """{written, kept, dropped: {reason: how many}}, the commonest reason first."""
    texts = list(continuations)
    reasons = Counter((done.reason or "").partition(":")[0] for done in texts if not done.kept)
    return {
        "written": len(texts),
        "kept": sum(done.kept for done in texts),
        "dropped": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }
