"""Black box on conversations: the teacher is asked what their last answer answers, and the student learns what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.training_rows import Row
from distillkit.teachers.generated_file import Continuation, Prompt


def question_prompts(examples: Iterable[Mapping[str, Any]], teacher: ConversationReader) -> list[Prompt]:
    """One prompt per conversation: all before its last answer, in the teacher's template with its generation prompt. Those
    that leave no room for an answer give none."""
    prompts = []
    for example in examples:
        asked = Conversation.from_canonical(example["text"]).prompt
        try:
            # An answer that opens a conversation answers nothing.
            ids = teacher.prompt_ids(asked) if asked else None
        except TemplateRefusalError:
            continue  # It renders the conversation only together with what comes after.
        if ids and len(ids) < teacher.encoder.longest:
            text = Conversation(asked).canonical()
            prompts.append(Prompt(int(example["id"]), text, ids, bytes=len(text.encode("utf-8"))))
    return prompts


def answer_rows(
    continuations: Sequence[Continuation], prompts: Sequence[Prompt], student: ConversationReader
) -> tuple[list[Row], int]:
    """The conversations with the teacher's answers as the student reads them; an answer and its end of turn are targets. What
    was cut off, by the teacher's length or the student's, has no end.

    Returns:
        The rows, and how many conversations the student cannot read, or leave no room for an answer.
    """
    by_index = {prompt.index: prompt for prompt in prompts}
    rows: list[Row] = []
    dropped = 0
    for continuation in continuations:
        if not continuation.kept:
            continue
        asked = Conversation.from_canonical(by_index[continuation.index].text).turns
        try:
            read = student.read([*asked, Turn("assistant", continuation.text)])
        except TemplateRefusalError:
            read = None
        if read is not None and (continuation.finish != "eos" or len(read.ids) > student.encoder.longest):
            read = read.without_end()
        target = None if read is None else read.turns[-1].target
        if read is None or target is None or not student.encoder.can_read(read.ids):
            dropped += 1
            continue
        ids = read.ids[: student.encoder.longest]
        span = (max(1, target[0]), min(target[1], len(ids)))
        if span[0] >= span[1]:
            dropped += 1
            continue
        rows.append(
            {
                "id": continuation.index,
                "student_ids": ids,
                "first_target": span[0],
                "target_spans": [span],
                "teacher_text": True,
            }
        )
    return rows, dropped
