"""A few models of the zoo in all roles, and the page that tells of all: tests/zoo runs the rest."""

from __future__ import annotations

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from zoo_roles import PAGE, ROLES, outcome_of, page, stored

# One of each kind of memory: a cache, windows, experts, a state, a state that mixes texts, both, positions from the first column.
SAMPLE = ("llama", "gemma2", "qwen2_moe", "mamba", "rwkv", "jamba", "bart")


@pytest.mark.parametrize("kind", SAMPLE)
def test_the_stored_outcome_is_what_happens(kind: str) -> None:
    assert outcome_of(kind) == stored()[kind]


def test_the_page_is_made_of_the_stored_outcomes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(stored()), "python tests/zoo_roles.py --page"


def test_nothing_fails_in_silence() -> None:
    for kind, found in stored().items():
        if "made" not in found:
            assert set(found) == set(ROLES)
            assert found["teacher"] == found["student"] == "works" or all(
                not outcome.startswith("works") for outcome in (found["teacher"], found["black box"])
            ), kind


def test_the_usual_ones_work_in_every_role() -> None:
    for kind in ("gpt2", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3"):
        assert set(stored()[kind].values()) == {"works"}, kind
    assert len(set(stored()) & MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()) > 150
