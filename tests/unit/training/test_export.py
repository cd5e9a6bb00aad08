"""What the model card is told of a run."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit import registry
from distillkit.errors import PreconditionError
from distillkit.models.located import LocatedModel
from distillkit.models.references import ModelReference
from distillkit.reports.card.facts import CardFacts
from distillkit.reports.card.page import model_card
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.storage import with_checksum, write_json
from distillkit.training.export import card_facts


def length_pairs(teacher_ids: list[int]) -> list[int]:
    """Pairs the tokens of both sides
    by their length, the longest first.

    What comes later is for those who call it.
    """
    return teacher_ids


@pytest.fixture
def facts(tmp_path: Path) -> Any:
    """`facts(same=False, student=…, alignment="alm", …)` -> the facts of a run in `tmp_path`."""
    for role, licence in (("teacher", "mit"), ("student", "apache-2.0")):
        (tmp_path / role).mkdir()
        (tmp_path / role / "config.json").write_text("{}")
        (tmp_path / role / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    teacher = LocatedModel(ModelReference("hub", "org/teacher", repo_id="org/teacher"), tmp_path / "teacher", "abc")
    hub_student = LocatedModel(ModelReference("hub", "org/student", repo_id="org/student"), tmp_path / "student", "def")

    def make(*, same: bool = True, student: LocatedModel = hub_student, **settings: Any) -> CardFacts:
        config = dataclasses.replace(Parameters(), **settings)
        run: Any = SimpleNamespace(teacher=tmp_path / "run" / "teacher", read_output=lambda stage, name: {})
        return card_facts(ModelPair(config, teacher, student, same), config, run, None)

    return make


def test_a_registered_alignment_is_described_by_its_code(facts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ALIGNMENTS, "by-length", "by_length:length_pairs")
    monkeypatch.setitem(sys.modules, "by_length", SimpleNamespace(length_pairs=length_pairs))
    text = model_card(facts(same=False, alignment="by-length"))
    summary = "Pairs the tokens of both sides by their length, the longest first."
    assert f"White box across tokenizers: the alignment `by-length`. {summary}\n" in text
    assert "those who call it" not in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "Salesforce/wikitext"),
        ({"dataset": "org/texts:part@main"}, "org/texts"),
        ({"dataset": "mine", "datasets": {"mine": {"id": "org/mine"}}}, "org/mine"),
        ({"dataset": "python-docs"}, None),
        ({"dataset": "./texts.txt"}, None),
        ({"dataset_path": "texts"}, None),
    ],
)
def test_data_sets_of_the_hub_have_an_id(facts: Any, settings: dict[str, Any], expected: str | None) -> None:
    assert facts(**settings).hub_dataset == expected


def test_a_pruned_teacher_has_the_licence_of_the_teacher(facts: Any, tmp_path: Path) -> None:
    assert (facts().licence, facts().teacher_licence) == ("apache-2.0", "mit")
    pruned = LocatedModel(ModelReference("pruned-teacher", "teacher:4", layers=4), tmp_path / "teacher", "abc")
    assert facts(student=pruned).licence == "mit"


def test_what_auto_has_chosen_is_told(facts: Any, tmp_path: Path) -> None:
    note = tmp_path / "run" / "teacher" / "cache.json"
    assert "Sparse targets" not in facts().settings
    write_json(note, with_checksum({"mode": "sparse", "why": "the disk is short"}))
    assert facts().settings["Sparse targets"] == "64 sampled ids per token"
    assert "Sparse targets" not in facts(teacher_cache="exact").settings
    assert facts(box_type="black").settings == {}
    note.write_text("{}")
    with pytest.raises(PreconditionError, match="is damaged"):
        facts()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, {}),
        ({"temperature": 1.0, "divergence": "alpha-beta"}, {"Divergence": "alpha-beta, alpha 0.2, beta 0.7"}),
        ({"temperature": 1.0, "divergence": "skew-kl"}, {"Divergence": "skew-kl"}),
        ({"temperature": 2.0, "divergence": "jsd", "alignment": "alm"}, {}),
        ({"temperature": 1.0, "teacher_precision": "int8"}, {"Weights of the teacher": "int8"}),
        ({"temperature": 1.0, "prefix_map": "canonical", "same": False}, {"First tokens of the student": "canonical"}),
        ({"temperature": 1.0, "prefix_map": "canonical"}, {}),
    ],
)
def test_settings(facts: Any, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert facts(**settings).settings == expected
