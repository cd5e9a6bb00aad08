"""Messages of the library `datasets` in a user's words."""

from __future__ import annotations

import pytest

from distillkit.data.hub_errors import explain
from distillkit.data.standard_sets import DatasetEntry
from distillkit.errors import UsageError


@pytest.mark.parametrize(
    ("message", "configurations"),
    [
        ("Config name is missing.\nPick one among the available configs: ['a', 'b-available']\nExample: `x('a')`", "a, b-available"),
        ("BuilderConfig 'x' not found. Available: ['one']", "one"),
        ("BuilderConfig 'x' not found. Available: []", ""),
    ],
)  # fmt: skip
def test_the_configurations_are_named(message: str, configurations: str) -> None:
    error = explain(ValueError(message), DatasetEntry("me/set", config="x"))
    assert isinstance(error, UsageError)
    assert error.message.endswith(f"no configuration 'x'; configurations: {configurations}")


def test_a_long_message_that_names_none_takes_linear_time() -> None:
    """A pattern would try every "onfig" with every "vailable"."""
    error = explain(ValueError("onfig" * 50_000 + "vailable" * 50_000), DatasetEntry("me/set"))
    assert error is None or "configurations:" not in error.message
