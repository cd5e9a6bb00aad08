"""What can be known of a parameter besides its type and default: the vocabulary of the declaration in `parameters.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# --- values that make no sense whatever the documented range ------------------------------------------------------------


@dataclass(frozen=True)
class Possible:
    """Which numbers a parameter can have at all; `allow_out_of_range` does not lift this.

    Attributes:
        holds: whether a number is possible.
        words: what it must be, to follow "it must be".
    """

    holds: Callable[[float], bool]
    words: str


def at_least(low: int) -> Possible:
    """`low` and everything above."""
    return Possible(lambda value: value >= low, f"at least {low}")


POSITIVE = Possible(lambda value: value > 0, "greater than 0")
NOT_NEGATIVE = Possible(lambda value: value >= 0, "0 or greater")
SHARE = Possible(lambda value: 0 <= value <= 1, "between 0 and 1")
PART = Possible(lambda value: 0 < value <= 1, "greater than 0 and at most 1")
PART_BELOW_ONE = Possible(lambda value: 0 <= value < 1, "0 or greater, and less than 1")
INNER_SHARE = Possible(lambda value: 0 < value < 1, "greater than 0 and less than 1")
SEED = Possible(lambda value: 0 <= value < 2**31, "between 0 and 2147483647")


# --- configurations in which a parameter has an effect ------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """Where a parameter that only some configurations use has an effect.

    Attributes:
        words: who uses it, to follow "it is used by".
        holds: whether a whole configuration (name to value) is one of those.
    """

    words: str
    holds: Callable[[Mapping[str, Any]], bool]


# --- all facts of one parameter -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterFacts:
    """What is known of a parameter besides its type and default.

    Attributes:
        group: the heading under which it is listed, one of `declared.GROUPS`.
        topic: what an advanced one is about, one of `declared.TOPICS`; None for the others.
        low, high: the documented range, inclusive; lifted by `allow_out_of_range`.
        possible: the numbers outside which a run is meaningless; None for what is no number.
        choices: the closed set of values, where a table of the registry holds it; a `Literal` type holds it itself.
        examples: values worth showing.
        affects: the first stage whose result depends on it; later stages follow from that. None: no result does.
        may_grow: a larger number than that of an existing result extends the result instead of contradicting it.
        replaced_by: the parameter that wins over this one where both have a value.
        complement: the parameter that is 1 minus this one.
        used_by: where it has an effect, if not everywhere.
        location: it says where a run lies: "directory" that of all runs, "folder" the name of its own. No part of what
            config.yaml reproduces, and never changed for an existing run.
        takes_path: its text may name a file or a folder; Python takes a `Path` for it.
        may_be_blank: white space is a value of it.
        is_large: a whole number that may be written with a suffix: `60M`, `1.5B`.
        on_command_line: False for what only configuration files, presets, Python and, unless it is a mapping, the
            environment can express.
        opposite_flag: the flag for "no" of a yes-or-no parameter, where `--no-NAME` would be wrong.
    """

    group: str
    topic: str | None = None
    low: float | None = None
    high: float | None = None
    possible: Possible | None = None
    choices: Collection[str] | None = None
    examples: tuple[str, ...] = ()
    affects: str | None = None
    may_grow: bool = False
    replaced_by: str | None = None
    complement: str | None = None
    used_by: Use | None = None
    location: Literal["directory", "folder"] | None = None
    takes_path: bool = False
    may_be_blank: bool = False
    is_large: bool = False
    on_command_line: bool = True
    opposite_flag: str | None = None


def parameter(default: Any, group: str, **facts: Any) -> Any:
    """A dataclass field with its `ParameterFacts`."""
    metadata = {"facts": ParameterFacts(group=group, **facts)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
