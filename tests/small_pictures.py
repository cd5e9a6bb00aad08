"""Runs whose pictures nobody looks at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def small_pictures() -> Iterator[None]:
    """A fifth of the time of a plot goes into the pixels of its pictures. Only inside: other tests look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distillkit.reports.drawing.DPI", 40)
        yield
