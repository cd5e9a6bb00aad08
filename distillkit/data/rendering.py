"""Where the turns stand in a rendered conversation, and what of it an assistant writes.

Contents are found by a second rendering in which every content is a name that occurs nowhere else: what stands between
these names is the template's, and has to stand between the contents too. Answers begin where the prompt of the turns before
them ends (the difference of prefixes) and end with the end-of-turn token; where the template marks them itself
(`{% generation %}`), the marks decide, and have to agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from distillkit.data.chat_template import ChatTemplate, TemplateRefusalError
from distillkit.data.conversation import Turn

Span = tuple[int, int]
"""[begin, end)."""

# Of private use: in no text but by ill will, and no template looks for it.
_MARK = "\ue0d5{}\ue0d6"
_FIND = re.compile("\ue0d5(\\d+)\ue0d6")


@dataclass(frozen=True)
class RenderedTurn:
    """One turn in the text of a conversation; ranges of characters.

    Attributes:
        turn: as the template was given it.
        content: what was said, as it stands there; None where the template leaves it out, or changes the content of a turn
            that is no answer.
        target: of an answer: what the assistant writes, its end-of-turn token included.
        end: of an answer: its end-of-turn token; None where the template writes none.
    """

    turn: Turn
    content: Span | None
    target: Span | None = None
    end: Span | None = None


@dataclass(frozen=True)
class Rendered:
    """A conversation as the text that a model reads."""

    text: str
    turns: tuple[RenderedTurn, ...]


def rendered(template: ChatTemplate, turns: Sequence[Turn]) -> Rendered:
    """Render a conversation, and find its turns.

    Args:
        turns: as in the conversation.

    Raises:
        TemplateRefusalError: the template does not render these turns, or it cannot be told where the answers stand.
    """
    given = template.read(turns)
    text = template.render(given)
    contents = _contents(template, given, text)
    found: list[RenderedTurn] = []
    for index, turn in enumerate(given):
        if turn.role != "assistant":
            found.append(RenderedTurn(turn, None if contents is None else contents[index]))
            continue
        prompt = _prompt(template, given[:index], text)
        if contents is None:
            found.append(_by_prompts(template, given, index, text, prompt))
            continue
        content = contents[index]
        if content is None:
            raise TemplateRefusalError("it leaves an answer out")
        following = [span[0] for span in contents if span is not None and span[0] >= content[1] and span != content]
        end = _find(text, template.end_name, content[1], min(following, default=len(text)))
        found.append(RenderedTurn(turn, content, (_begin(template, text, content, prompt), (end or content)[1]), end))
    if template.marks_answers:
        found = _by_marks(template, given, text, found)
    return Rendered(text, tuple(found))


def joined(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Turns of which no two in a row are of one role, for templates that demand that: their texts are set off by a blank
    line."""
    result: list[Turn] = []
    for turn in turns:
        if result and result[-1].role == turn.role:
            result[-1] = Turn(turn.role, f"{result[-1].text}\n\n{turn.text}")
        else:
            result.append(turn)
    return tuple(result)


def _contents(template: ChatTemplate, turns: Sequence[Turn], text: str) -> list[Span | None] | None:
    """Where the contents stand, by turn; None where the template does more with them than to strip them."""
    named = [Turn(turn.role, _MARK.format(index)) for index, turn in enumerate(turns)]
    pieces = _FIND.split(template.render(named))
    order, literals = [int(index) for index in pieces[1::2]], pieces[0::2]
    if len(set(order)) != len(order) or not text.startswith(literals[0]):
        return None
    spans: list[Span | None] = [None] * len(turns)
    at = len(literals[0])
    for place, index in enumerate(order):
        behind, last = literals[place + 1], place + 1 == len(order)
        for shown in _shown(turns[index].text):
            end = at + len(shown)
            fits = text.startswith(shown, at) and text.startswith(behind, end)
            if fits and (not last or end + len(behind) == len(text)):
                spans[index] = (at, end)
                at = end + len(behind)
                break
        else:
            return None
    return spans


def _shown(content: str) -> Iterator[str]:
    """How templates write a content: as it is, or stripped."""
    yield from dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip()))


def _prompt(template: ChatTemplate, before: Sequence[Turn], text: str) -> int | None:
    """Where what is read before an answer ends; None where the template writes it otherwise in the whole."""
    try:
        prompt = template.render(before, prompt=True)
    except TemplateRefusalError:
        return None  # Nothing, or not these turns, before the first answer: some want a user's turn.
    return len(prompt) if text.startswith(prompt) else None


def _begin(template: ChatTemplate, text: str, content: Span, prompt: int | None) -> int:
    if prompt is not None and prompt <= content[0]:
        return prompt
    opening = template.opening
    return content[0] - len(opening) if opening and text[: content[0]].endswith(opening) else content[0]


def _find(text: str, name: str, begin: int, limit: int) -> Span | None:
    at = text.find(name, begin, limit)
    return None if at < 0 else (at, at + len(name))


def _by_prompts(
    template: ChatTemplate, turns: Sequence[Turn], index: int, text: str, begin: int | None
) -> RenderedTurn:
    """An answer whose content the template has changed (it moves or drops reasoning): from its prompt to its end of turn."""
    turn = turns[index]
    after = next((at for at in range(index + 1, len(turns)) if turns[at].role == "assistant"), None)
    limit = len(text) if after is None else _prompt(template, turns[:after], text)
    if begin is None or limit is None or template.end_name in turn.text:
        raise TemplateRefusalError("it changes an answer, and it cannot be told where that stands")
    end = _find(text, template.end_name, begin, limit)
    if end is None:
        raise TemplateRefusalError("it changes an answer, and writes no end of turn behind it")
    return RenderedTurn(turn, (begin, end[0]), (begin, end[1]), end)


def _by_marks(
    template: ChatTemplate, turns: Sequence[Turn], text: str, found: list[RenderedTurn]
) -> list[RenderedTurn]:
    """The answers as the template marks them. A mark may begin before the prompt ends (with the name of the role), and end
    before or behind the end-of-turn token: that is where an answer ends in any case.

    Raises:
        TemplateRefusalError: its marks are not where its answers are.
    """
    marks = template.marked(turns)
    answers = [item for item in found if item.target is not None and item.content is not None]
    others = [item.content for item in found if item.content is not None]
    agree = len(marks) == len(answers)
    result = list(found)
    for (begin, end), item in zip(marks, answers, strict=False):
        target, content = item.target, item.content
        if target is None or content is None:
            continue
        touched = [span for span in others if span != content and span[0] < end and begin < span[1]]
        agree &= begin <= content[0] and content[1] <= end and not touched and not text[target[1] : end].strip()
        result[found.index(item)] = replace(item, target=(max(begin, target[0]), target[1]))
    if not agree:
        raise TemplateRefusalError("its {% generation %} marks are not where its answers stand")
    return result
