"""The rules for answers applied to what the teacher of a run wrote, with the user's program where one is given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillkit.data.conversation import Conversation
from distillkit.data.reasoning import BEGIN
from distillkit.run.context import TrainingContext
from distillkit.teachers.answer_hook import AnswerHook
from distillkit.teachers.answer_rules import AnswerRules, Judge
from distillkit.teachers.generated_file import Continuation, Prompt
from distillkit.teachers.judged_file import forget_judged, judged_once

# Tokens at the end of a prompt in which a template's `<think>` and its line end stand.
_ENDING = 12


def judged_texts(
    context: TrainingContext,
    rules: AnswerRules,
    examples: Iterable[Mapping[str, Any]],
    prompts: Sequence[Prompt],
    continuations: Sequence[Continuation],
) -> list[Continuation]:
    """The texts as they are learnt, in the order of `prompts`; without rules they are what was written.

    Args:
        examples: where the prompts come from; their last answers are the known ones.

    Raises:
        DistillkitError, PreconditionError: the program that judges failed, or the disk is full.
        Interrupted: a signal arrived.
    """
    folder = context.run.teacher
    if not rules.decide:
        forget_judged(folder)
        return list(continuations)
    chat = context.pair.conversations is not None
    decode = context.encoders.teacher.tokenizer.decode if chat and not context.pair.teacher.is_served else None

    def opened(prompt: Prompt) -> bool:
        if decode is None:
            return False
        return decode(list(prompt.ids[-_ENDING:]), skip_special_tokens=False).rstrip().endswith(BEGIN)

    def judge() -> list[Continuation]:
        with contextlib.ExitStack() as stack:
            ask: Judge | None = None
            if rules.command is not None:
                hook = stack.enter_context(AnswerHook(rules.command))
                total = sum(done.kept for done in continuations)
                progress = stack.enter_context(context.console.progress("answers are judged", total, unit="texts"))
                known = {int(example["id"]): example["text"] for example in examples}

                def verdict_of(prompt: Prompt, done: Continuation) -> tuple[bool, str]:
                    verdict = hook.judge(question(prompt, done, known[prompt.index], chat=chat))
                    progress.advance()
                    return verdict

                ask = verdict_of
            return rules.judged(prompts, continuations, ask, opened)

    return judged_once(folder, rules.settings(), prompts, continuations, judge)


def question(prompt: Prompt, done: Continuation, text: str, *, chat: bool) -> dict[str, Any]:
    """What the program is asked of an answer.

    Args:
        text: of the example that the prompt comes from: a conversation in its canonical form, or a plain text.

    Returns:
        {prompt, answer, known_answer, finish}: of a conversation `prompt` are its messages, and `known_answer` its own last turn,
        None where that is not the assistant's; of a plain text its beginning, and what follows.
    """
    asked: Any = prompt.text
    known: str | None = text[len(prompt.text) :]
    if chat:
        asked = [{"role": turn.role, "content": turn.text} for turn in Conversation.from_canonical(prompt.text).turns]
        last = Conversation.from_canonical(text).turns[-1]
        known = last.text if last.role == "assistant" else None
    return {"prompt": asked, "answer": done.text, "known_answer": known, "finish": done.finish}
