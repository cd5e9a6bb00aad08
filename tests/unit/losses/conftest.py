"""Fixtures for the tests of losses."""

from __future__ import annotations

import pytest

from distillkit.device import row_tiles


@pytest.fixture(params=[2, None])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many rows of the module's `V` columns are passed over at a time; None: as many as there are in a chunk so small."""
    if request.param is not None:
        monkeypatch.setattr(row_tiles, "_NUMBERS", request.param * request.module.V)
        monkeypatch.setattr(row_tiles, "_FEWEST", request.param)
