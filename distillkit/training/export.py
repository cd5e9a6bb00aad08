"""A student as a folder that `AutoModelForCausalLM.from_pretrained` loads, with its tokenizer and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from distillkit import __version__
from distillkit.models.loading import load_tokenizer
from distillkit.models.save_errors import plain_save_errors
from distillkit.reports.model_card import model_card
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_transformers
from distillkit.storage import write_bytes, write_folder


def export_student(folder: Path, model: nn.Module, pair: ModelPair, config: Parameters) -> None:
    """Write weights, configuration, tokenizer and card; the folder is replaced as a whole.

    Raises:
        DistillkitError: it cannot be written; what was there before is still there.
    """
    tokenizer = load_tokenizer(pair.student, trust_remote_code=config.trust_remote_code)

    def fill(target: Path) -> None:
        with silence_transformers(), plain_save_errors(target):
            model.save_pretrained(str(target))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            tokenizer.save_pretrained(str(target))
        (target / "README.md").write_text(model_card(card_facts(pair, config, None)), encoding="utf-8")

    write_folder(folder, fill, sum(weights.numel() * weights.element_size() for weights in model.parameters()))


def write_card(folder: Path, pair: ModelPair, config: Parameters, validation: dict[str, Any]) -> None:
    """Rewrite the card of an exported student with the content of validation.json."""
    write_bytes(folder / "README.md", model_card(card_facts(pair, config, validation)).encode("utf-8"))


def card_facts(pair: ModelPair, config: Parameters, validation: dict[str, Any] | None) -> dict[str, Any]:
    """What the model card says."""
    return {
        "distillkit": __version__,
        "teacher": pair.teacher.describe(),
        "student": pair.student.describe(),
        "box_type": config.box_type,
        "same_tokenizer": pair.same_tokenizer,
        "dataset": config.dataset_path or config.dataset,
        "parameters": {
            name: getattr(config, name)
            for name in ("sample_size", "max_length", "temperature", "alpha", "beta", "epochs", "batch_size",
                         "gradient_accumulation", "learning_rate", "seed")
        },
        "trust_remote_code": config.trust_remote_code,
        "validation": validation,
    }  # fmt: skip
