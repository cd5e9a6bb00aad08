"""The rules for answers: reasoning, cut answers, refusals, duplicates, patterns; what is stored of their verdicts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from distillkit.data.reasoning import without_reasoning
from distillkit.settings.parameters import Parameters
from distillkit.teachers.answer_rules import AnswerRules, text_counts
from distillkit.teachers.continuation_filter import ContinuationFilter
from distillkit.teachers.generated_file import Continuation, Prompt, asked_often
from distillkit.teachers.judged_file import JUDGED, forget_judged, judged_once, learnt_counts
from distillkit.teachers.refusals import OPENINGS, is_refusal


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Paris.", "Paris."),
        ("  Paris.\n", "  Paris.\n"),
        ("<think>France?</think>Paris.", "Paris."),
        ("<think>\nFrance?\n\n</think>\n\nParis.\n", "Paris.\n"),
        ("\n<think></think>\n<think>again</think> Paris.", "Paris."),
        ("<think>a <think> b</think>Paris.", "Paris."),
        ("<think>France?", None),
        ("<think>a</think><think>b", None),
        ("<think>only</think>", ""),
        ("France?\n</think>\nParis.", "Paris."),  # The template had opened it.
        ("Write <think>x</think> in front.", "Write <think>x</think> in front."),
        ("The tag <think> opens.", "The tag <think> opens."),
    ],
)
def test_reasoning_at_the_beginning(answer: str, left: str | None) -> None:
    assert without_reasoning(answer) == left


def test_reasoning_that_the_template_has_opened() -> None:
    assert without_reasoning("France?</think> Paris.", opened=True) == "Paris."
    assert without_reasoning("France? Let me", opened=True) is None


@pytest.mark.parametrize(
    "text",
    [
        *OPENINGS,
        "I’m sorry, but I can’t help with that.",
        "  **I cannot assist** with this request.",
        '"As an AI language model, I do not have opinions."',
        "I'M SORRY,\n BUT no.",
        "К сожалению, я не могу ответить на этот вопрос.",
        "Я не могу помочь вам с этим.",
        "Как языковая модель, я не имею мнения.",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "Paris is the capital.",
        "As an aide to the king, he wrote letters.",
        "Sorry is a word of five letters.",
        "He said: I'm sorry, but I can't help you.",
        "I cannot imagine a better place.",
        "Как июль, так и август были сухими.",
        "Я не могу не согласиться.",
    ],
)
def test_what_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


def prompts(answers: int = 1) -> list[Prompt]:
    return asked_often([Prompt(7, "Who?", [1], 4), Prompt(9, "Where?", [2], 6)], answers)


def written(prompt: Prompt, text: str, **changes: Any) -> Continuation:
    done = Continuation(prompt.index, text, 3, "eos", True, None, answer=prompt.answer)
    return dataclasses.replace(done, **changes)


def reasons(rules: AnswerRules, asked: list[Prompt], texts: list[Continuation], **more: Any) -> list[str | None]:
    found = rules.judged(asked, texts, **more)
    assert [(done.index, done.answer) for done in found] == [(prompt.index, prompt.answer) for prompt in asked]
    assert all(done.kept is (done.reason is None) for done in found)
    return [done.reason for done in found]


def test_each_rule_has_its_reason() -> None:
    asked = prompts(2)
    texts = [
        written(asked[0], "I'm sorry, but no."),
        written(asked[1], "<think>I'm sorry?</think>As an AI, I", finish="length"),
        written(asked[2], "twice", kept=False, reason="duplicate"),
        written(asked[3], "<think>so many thoughts", finish="length"),
    ]
    assert reasons(AnswerRules(), asked, texts) == [None, None, "duplicate", None]
    assert reasons(AnswerRules(refusals="drop"), asked, texts) == ["refusal", "refusal", "duplicate", None]
    assert reasons(AnswerRules(cut_answers="drop"), asked, texts) == [None, "cut", "duplicate", "cut"]
    strip = AnswerRules(reasoning="strip")
    assert reasons(strip, asked, texts) == [None, None, "duplicate", "reasoning without an end"]
    assert [done.text for done in strip.judged(asked, texts)][1] == "As an AI, I"
    assert reasons(strip, asked, texts, opened=lambda prompt: prompt.index == 7)[0] == "reasoning without an end"
    assert reasons(AnswerRules(keep_answers=r"re:(?i)an ai\b"), asked, texts) == [
        "pattern",
        None,
        "duplicate",
        "pattern",
    ]
    # The pattern is looked for in what is learnt.
    both = AnswerRules(reasoning="strip", keep_answers="re:think|sorry")
    assert reasons(both, asked, texts) == [None, "pattern", "duplicate", "reasoning without an end"]
    counts = text_counts(both.judged(asked, texts))
    assert counts == {
        "written": 4, "kept": 1, "dropped": {"duplicate": 1, "pattern": 1, "reasoning without an end": 1}
    }  # fmt: skip


def test_what_stripping_leaves_is_judged_again() -> None:
    asked = prompts(2)
    texts = [
        written(asked[0], "<think>one way</think>Ada."),
        written(asked[1], "<think>another</think> ada."),
        written(asked[2], "<think>none</think>\n"),
        written(asked[3], "<think>x</think>Ada."),
    ]
    assert reasons(AnswerRules(reasoning="strip"), asked, texts) == [None, "duplicate", "empty", None]


def test_the_program_sees_what_the_other_rules_keep() -> None:
    asked = prompts(2)
    texts = [written(prompt, f"<think>t</think>answer {number}") for number, prompt in enumerate(asked)]
    texts[1] = written(asked[1], "I'm sorry, but no.")
    seen = []

    def judge(prompt: Prompt, done: Continuation) -> tuple[bool, str]:
        seen.append((prompt.text, prompt.answer, done.text))
        return not done.text.endswith("3"), "too large: by far" if done.text.endswith("3") else "fine"

    rules = AnswerRules(refusals="drop", reasoning="strip", keep_answers="run:x")
    assert reasons(rules, asked, texts, judge=judge) == [None, "refusal", None, "program: too large: by far"]
    assert seen == [("Who?", 0, "answer 0"), ("Where?", 0, "answer 2"), ("Where?", 1, "answer 3")]
    assert text_counts(rules.judged(asked, texts, lambda *_: (False, "why")))["dropped"] == {"program": 3, "refusal": 1}


def test_duplicates_of_one_prompt() -> None:
    of_prompt, of_all = ContinuationFilter(of_prompt=True), ContinuationFilter()
    for judge, other in ((of_prompt, None), (of_all, "duplicate")):
        assert judge.judge("Who?", "Ada.") is None
        assert judge.judge("Who?", " ada. ") == "duplicate"
        assert judge.judge("Where?", "Ada.") == other
        assert judge.judge("Where?", "") == "empty"


def test_verdicts_are_given_once(tmp_path: Path) -> None:
    asked = prompts(2)
    texts = [written(prompt, f"answer {number}") for number, prompt in enumerate(asked)]
    calls = []

    def judge() -> list[Continuation]:
        calls.append(1)
        return [dataclasses.replace(done, kept=False, reason=f"program: {len(calls)}") for done in texts]

    rules = AnswerRules(keep_answers="run:x").settings()
    first = judged_once(tmp_path, rules, asked, texts, judge)
    assert judged_once(tmp_path, rules, asked, texts, judge) == first
    lines = [json.loads(line) for line in (tmp_path / JUDGED).read_text(encoding="utf-8").splitlines()]
    assert [(line["index"], line["answer"], line["reason"]) for line in lines] == [
        (7, 0, "program: 1"), (7, 1, "program: 1"), (9, 0, "program: 1"), (9, 1, "program: 1"),
    ]  # fmt: skip
    assert learnt_counts(tmp_path) == {"written": 4, "kept": 0, "dropped": {"program": 4}}
    # Other rules, other texts, a changed byte, lines whose settings are not there: judged again.
    judged_once(tmp_path, AnswerRules(keep_answers="run:y").settings(), asked, texts, judge)
    judged_once(tmp_path, rules, asked, texts, judge)
    assert len(calls) == 3
    judged_once(tmp_path, rules, asked, [dataclasses.replace(texts[0], text="other"), *texts[1:]], judge)
    assert len(calls) == 4
    (tmp_path / JUDGED).write_text((tmp_path / JUDGED).read_text().replace("program: 4", "program: 5", 1))
    judged_once(tmp_path, rules, asked, [dataclasses.replace(texts[0], text="other"), *texts[1:]], judge)
    assert len(calls) == 5
    (tmp_path / "answers.settings.json").unlink()
    judged_once(tmp_path, rules, asked, [dataclasses.replace(texts[0], text="other"), *texts[1:]], judge)
    assert len(calls) == 6
    forget_judged(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert learnt_counts(tmp_path) is None


def test_the_defaults_decide_nothing() -> None:
    assert not AnswerRules.of(Parameters()).decide
    for changed in ({"refusals": "drop"}, {"cut_answers": "drop"}, {"reasoning": "strip"}, {"keep_answers": "re:x"}):
        changes: dict[str, Any] = {**changed}
        assert AnswerRules.of(Parameters(**changes)).decide
    assert AnswerRules(keep_answers="run:python 'my file.py' --x").command == ["python", "my file.py", "--x"]
    assert AnswerRules(keep_answers="re:run:").command is None
