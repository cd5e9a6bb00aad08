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
    """Turns in their order: at most one of the system, and that first; at least one of the assistant."""

    turns: tuple[Turn, ...]

    def canonical(self) -> str:
        """One line of JSON for each turn: equal for equal conversations, and about as long as what is read of them.

        Documents are divided, counted and compared by it; no model ever reads it.
        """
        return "\n".join(json.dumps([turn.role, turn.text], ensure_ascii=False) for turn in self.turns)

    @classmethod
    def of_canonical(cls, text: str) -> Conversation:
        """The conversation of which `text` is the canonical form."""
        return cls(tuple(Turn(*json.loads(line)) for line in text.split("\n")))

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """What stands before the last turn of the assistant: what a teacher is asked to answer."""
        last = max(index for index, turn in enumerate(self.turns) if turn.role == "assistant")
        return self.turns[:last]
