"""The README.md of exported students, from the command line to the card, for every method that a run can use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked_cli import ForkedCli, forked_cli
from huggingface_hub import ModelCard
from settings_file import settings_file
from tiny_models import save_model_folder, teacher_of_letters, tiny_tokenizer

Card = Callable[..., ModelCard]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCli]:
    with forked_cli(tmp_path_factory.mktemp("forked"), CUDA_VISIBLE_DEVICES="") as program:
        yield program


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that writes letters, for black box."""
    tokenizer = tiny_tokenizer()
    return save_model_folder(tmp_path_factory.mktemp("writer"), teacher_of_letters(tokenizer), tokenizer)


@pytest.fixture
def card(cli: ForkedCli, pair: SimpleNamespace, small: dict[str, Any], tmp_path: Path) -> Card:
    """`card(alignment="alm", …)` -> the card of the final student of a small run; `validated=True`: of the best one."""

    def run(*, validated: bool = False, **settings: Any) -> ModelCard:
        values = {
            "teacher_model_path": pair.teacher, "student_model_path": pair.student, "dataset_path": pair.texts,
            "output_dir": tmp_path, **small, "skip_validation": not validated,
            "install_deps": False, **settings,
        }  # fmt: skip
        values = {name: value for name, value in values.items() if value is not None}
        done = cli.run("distill", "--config", str(settings_file(tmp_path, **values)), "--folder-name", "run", "--quiet")
        assert done.code == 0, done.err
        return ModelCard.load(tmp_path / "run" / "student" / ("best" if validated else "final") / "README.md")

    return run


def method(card: ModelCard) -> str:
    """The paragraph under "Method"."""
    return card.text.split("## Method\n\n")[1].split("\n")[0]


ONE, ACROSS = "White box with one tokenizer: ", "White box across tokenizers: "


@pytest.mark.parametrize(
    ("settings", "begins", "contains"),
    [
        ({}, ONE, "the teacher's whole distribution"),
        ({"alignment": "alm"}, ONE, "approximate likelihood matching"),
        ({"foreign": True}, ACROSS, "byte-prefix marginalisation"),
        ({"foreign": True, "alignment": "bpm"}, ACROSS, "byte-prefix marginalisation"),
        ({"foreign": True, "alignment": "strict"}, ACROSS, "the tokens that both have"),
        ({"foreign": True, "alignment": "alm"}, ACROSS, "approximate likelihood matching"),
        ({"foreign": True, "alignment": "uld"}, ACROSS, "universal logit distillation"),
        ({"box_type": "black"}, "Black box: ", "texts that the teacher wrote"),
        ({"alpha": 0.0}, "Fine-tuning", "the teacher had no part"),
        ({"alpha": 0.0, "box_type": "black"}, "Fine-tuning", "the teacher had no part"),
    ],
)
def test_the_card_names_the_method_that_was_used(
    card: Card, pair: SimpleNamespace, writer: Path, settings: dict[str, Any], begins: str, contains: str
) -> None:
    settings = dict(settings)
    if settings.pop("foreign", False):
        settings["student_model_path"] = pair.foreign_student
    if settings.get("box_type") == "black":
        settings["teacher_model_path"] = writer
    words = method(card(**settings))
    assert words.startswith(begins)
    assert contains in words


def test_a_validated_student(card: Card, pair: SimpleNamespace, tmp_path: Path) -> None:
    student = tmp_path / "licensed"
    student.mkdir()
    for path in Path(pair.student).iterdir():
        (student / path.name).write_bytes(path.read_bytes())
    (student / "README.md").write_text("---\nlicense: mit\n---\n# A student\n", encoding="utf-8")
    shown = card(validated=True, student_model_path=student, quality_gate="off")
    assert shown.data.license == "mit"
    assert "Student before distillation: `licensed` (a local folder), licence `mit`" in shown.text
    assert shown.data.get("base_model") is None  # It does not lie on the Hub; nor do the texts.
    assert shown.data.get("datasets") is None
    assert "Verdict: **" in shown.text
    results = {(result.metric_type, result.metric_name.split(", ")[1]): result.metric_value
               for result in shown.data.eval_results or []}  # fmt: skip
    assert results.keys() == {
        (metric, moment)
        for metric in ("bits_per_byte", "perplexity")
        for moment in ("after distillation", "before distillation")
    }
    assert f"| student after | {results['bits_per_byte', 'after distillation']:.4f} |" in shown.text
    final = ModelCard.load(tmp_path / "run" / "student" / "final" / "README.md")
    assert "was not measured" in final.text


def test_what_differs_from_the_plain_method(card: Card) -> None:
    shown = card(divergence="jsd", divergence_mix=0.3, temperature=3.0)
    assert "- Divergence: `jsd, mix 0.3`\n- Distributions softened by temperature: `3`\n" in shown.text
    assert "Sparse" not in shown.text


def test_what_changes_over_the_training(card: Card) -> None:
    shown = card(temperature_schedule="anneal", alpha_schedule="decay").text
    assert "- Weights over the training: `alpha falls linearly to 0, beta rises to 1`\n" in shown
    assert "- Distributions softened by temperature: `2, falling linearly to 1 over the training`\n" in shown


def test_weights_that_go_by_the_temperature(card: Card) -> None:
    text = card(alpha_schedule="tempered").text
    assert "- Weights: `alpha divided by the square of the temperature, beta the rest`\n" in text


def test_a_temperature_of_1_has_nowhere_to_fall(card: Card) -> None:
    assert "falling" not in card(temperature=1.0, temperature_schedule="anneal").text


def test_a_sparse_cache(card: Card) -> None:
    shown = card(teacher_cache="sparse", sparse_size=16, sparse_method="top-k", temperature=1.0)
    assert "\n\n- Sparse targets: `16 likeliest ids per token`\n\n" in shown.text
    assert "- Divergence" not in shown.text


def test_no_settings_of_a_teacher_that_had_no_part(card: Card) -> None:
    assert "- Distributions" not in card(alpha=0.0, temperature=3.0).text
