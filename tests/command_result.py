"""What a command that ran in this process came to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there is an error."""
        return json.loads(self.out)

    @property
    def last_lines(self) -> list[str]:
        return self.err.splitlines()[-2:]

    @property
    def states(self) -> dict[str, str]:
        return {name: stage["state"] for name, stage in self.json["stages"].items()}
