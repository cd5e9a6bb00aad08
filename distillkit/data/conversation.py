"""Conversations: what was said, by whom, in which order; no template is applied to them yet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True)
class Turn:
    """What one side said.

    Attributes:
        role: who; a tool's results and calls are not among them.
        text: what; may be empty.
    """

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns in their order: at most one of the system, and that first; then user and assistant by turns, the user first.

    The last turn may be the user's: of what is only asked (black box) there is no turn of the assistant at all.
    """

    turns: tuple[Turn, ...]

    def canonical(self) -> str:
        """One line of JSON for each turn: equal for equal conversations, and about as long as what is read of them.

        Documents are divided, counted and compared by it; no model ever reads it.
        """
        return "\n".join(json.dumps([turn.role, turn.text], ensure_ascii=False) for turn in self.turns)

    @classmethod
    def from_canonical(cls, text: str) -> Conversation:
        """The conversation whose canonical form is `text`.

        Raises:
            ValueError: it is that of none.
        """
        return cls(tuple(Turn(role, said) for role, said in map(json.loads, text.split("\n"))))

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """What a teacher is asked to answer: all turns but a last one of the assistant."""
        return self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns
