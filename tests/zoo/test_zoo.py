"""Every causal language model that transformers knows, made tiny, in every role: what happens is what docs/models.md says."""

from __future__ import annotations

import pytest
from zoo_roles import outcome_of, stored


@pytest.mark.parametrize("kind", sorted(stored()))
def test_what_the_page_says_is_what_happens(kind: str) -> None:
    assert outcome_of(kind) == stored()[kind]
