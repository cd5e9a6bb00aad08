"""A model's chat template: conversations to the text that the model reads, and where the turns stand in it.

A template is Jinja (`chat_template` of a tokenizer), rendered by transformers' own sandboxed renderer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from distillkit.data.conversation import Turn
from distillkit.data.special_tokens import special_names
from distillkit.data.text_encoder import TextEncoder
from distillkit.errors import PreconditionError

Origin = Literal["model", "file", "teacher", "plain"]

PLAIN = (
    "{%- if bos_token is defined and bos_token %}{{ bos_token }}{% endif %}"
    "{%- for message in messages %}"
    "{{ '### ' + message['role']|capitalize + ':\\n' + message['content'] }}"
    "{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
"""Of a model that has no template: `### User:`, a line end, the text; behind an answer its end-of-text token."""

_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = (Turn("user", "Where is it?"), Turn("assistant", "Over there."))
_SYSTEM = Turn("system", "Be brief.")


class TemplateRefusalError(ValueError):
    """The template cannot render a conversation; the text says why, in its own words."""


@dataclass(frozen=True)
class ChatTemplate:
    """How one model reads conversations.

    Attributes:
        source: the template, Jinja.
        origin: where it is from: the model's files, a file of the user's, the teacher of the same tokenizer, or here.
        variables: what transformers gives a template besides the turns: the names of the tokenizer's special tokens.
        end_name, end_id: the token that ends an answer.
        joins_system: the template refuses turns of the system: their text goes in front of the user's first.
    """

    source: str
    origin: Origin
    variables: Mapping[str, str]
    end_name: str
    end_id: int
    joins_system: bool

    @classmethod
    def of(cls, encoder: TextEncoder, source: str, origin: Origin, whose: str) -> ChatTemplate:
        """A template as the tokenizer of `encoder` reads it.

        Args:
            whose: "the student", for messages.

        Raises:
            PreconditionError: it is no template, or no special token of this tokenizer ends its answers.
        """
        variables = _variables(encoder.tokenizer)
        named = (
            f"{whose}'s chat template" if origin == "model" else f"the chat template for {whose} ({_ORIGINS[origin]})"
        )
        try:
            behind = _behind_answer(source, variables)
        except TemplateRefusalError as error:
            raise PreconditionError(f"{named} cannot render a question and its answer: {error}", hint=_HINT) from error
        ends = first_name(behind, added_names(encoder))
        if ends is None:
            raise PreconditionError(
                f"{named} writes no special token behind an answer ({behind!r}): a model would never learn to stop",
                hint=_HINT,
            )
        try:
            rendered, _ = _rendered(source, variables, (_SYSTEM, *_PROBE))
            joins = _SYSTEM.text not in rendered
        except TemplateRefusalError:
            joins = True
        return cls(source, origin, variables, *ends, joins)

    @property
    def marks_answers(self) -> bool:
        """Whether the template itself says what of it an assistant writes (`{% generation %}`)."""
        return _MARKERS.search(self.source) is not None

    def read(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        """The turns as the template is given them: the system's text in front of the first user's where it must be."""
        if not (self.joins_system and turns and turns[0].role == "system"):
            return tuple(turns)
        system, rest = turns[0], turns[1:]
        if not rest or rest[0].role != "user":
            return (Turn("user", system.text), *rest)
        return (Turn("user", f"{system.text}\n\n{rest[0].text}"), *rest[1:])

    def render(self, turns: Sequence[Turn], *, prompt: bool = False) -> str:
        """What the model reads.

        Args:
            turns: of `read`.
            prompt: whether what precedes an answer follows (`add_generation_prompt`).

        Raises:
            TemplateRefusalError: the template cannot render these turns.
        """
        return _rendered(self.source, self.variables, turns, prompt=prompt)[0]

    def marked(self, turns: Sequence[Turn]) -> list[tuple[int, int]]:
        """The ranges of characters that the template says an assistant writes, in order.

        Raises:
            TemplateRefusalError: the template cannot render these turns.
        """
        return _rendered(self.source, self.variables, turns, marks=True)[1]

    @cached_property
    def opening(self) -> str:
        """What an answer begins with before its content, behind the generation prompt: a space, mostly nothing."""
        question, answer = _PROBE
        prompt = self.render([question], prompt=True)
        whole = self.render(_PROBE)
        at = whole.find(answer.text)
        return whole[len(prompt) : at] if whole.startswith(prompt) and at >= len(prompt) else ""

    def record(self) -> dict[str, Any]:
        """Of data/stats.json."""
        return {
            "origin": self.origin,
            "end_of_turn": self.end_name,
            "end_of_turn_id": self.end_id,
            "joins_system": self.joins_system,
            "source": self.source,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], tokenizer: Any) -> ChatTemplate:
        """What `record` gave.

        Raises:
            KeyError: it is not of this form.
        """
        return cls(
            record["source"], record["origin"], _variables(tokenizer), record["end_of_turn"],
            int(record["end_of_turn_id"]), bool(record["joins_system"]),
        )  # fmt: skip

    def same_as(self, other: ChatTemplate) -> bool:
        """Whether both render every conversation alike."""
        return (self.source, self.end_id) == (other.source, other.end_id) and dict(self.variables) == dict(
            other.variables
        )


_HINT = "give another with --chat-template FILE, or use the model's instruction-tuned sibling"
_ORIGINS: Mapping[Origin, str] = {
    "model": "its own",
    "file": "of --chat-template",
    "teacher": "the teacher's, whose tokenizer it has",
    "plain": "the plain one, as it has none",
}


def own_template(tokenizer: Any) -> str | None:
    """The template in a model's files; None where there is none (or several, and none of them is the default)."""
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        return None


def added_names(encoder: TextEncoder) -> dict[str, int]:
    """Every token that is written as a name, name -> id: the special ones, and those that were added."""
    others = {token.content: index for index, token in getattr(encoder.tokenizer, "added_tokens_decoder", {}).items()}
    return {name: index for name, index in (others | special_names(encoder)).items() if name.strip()}


def names_pattern(names: Mapping[str, int]) -> re.Pattern[str] | None:
    """Finds the names in a text, the longest first."""
    ordered = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def first_name(text: str, names: Mapping[str, int]) -> tuple[str, int] | None:
    """The first of the names in a text, and its id."""
    pattern = names_pattern(names)
    found = pattern.search(text) if pattern else None
    return None if found is None else (found.group(), names[found.group()])


def _variables(tokenizer: Any) -> dict[str, str]:
    given = getattr(tokenizer, "special_tokens_map", {})
    return {name: value for name, value in given.items() if isinstance(value, str)}


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _rendered(
    source: str, variables: Mapping[str, str], turns: Sequence[Turn], *, prompt: bool = False, marks: bool = False
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and with `marks` the ranges that the template marks as an assistant's."""
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, marked = render_jinja_template(
            [_messages(turns)], chat_template=source, add_generation_prompt=prompt, return_assistant_tokens_mask=marks,
            **dict[str, Any](variables),
        )  # fmt: skip
    # A template is code of others: whatever it stumbles over, it cannot render this.
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise TemplateRefusalError(" ".join(str(error).split()) or type(error).__name__) from error
    return str(texts[0]), [(int(begin), int(end)) for begin, end in (marked[0] if marks else ())]


def _behind_answer(source: str, variables: Mapping[str, str]) -> str:
    (whole, _), answer = _rendered(source, variables, _PROBE), _PROBE[1].text
    at = whole.rfind(answer)
    if at < 0:
        raise TemplateRefusalError("it leaves the answer out")
    return whole[at + len(answer) :]


# By what the families write around a turn; the first that occurs.
_FAMILIES = {
    "<|im_start|>": "ChatML",
    "<|start_header_id|>": "Llama 3",
    "<start_of_turn>": "Gemma",
    "[INST]": "Mistral",
    "<|start_of_role|>": "Granite",
    "<|start|>": "Harmony",
    "<|assistant|>": "Zephyr",
}


def family_of(source: str) -> str | None:
    """The family of a template, `ChatML`, by what it writes around a turn; None where that is of no known one."""
    return next((name for mark, name in _FAMILIES.items() if mark in source), None)
