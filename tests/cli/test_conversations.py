"""Runs on conversations, from documents that are read to the student's folder: white and black box, one template and two."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chat_templates import CHATML, FAMILIES, as_chat
from tiny_models import make_paragraph, save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.document import Document, DocumentSet
from distillkit.data.notes import ReadingNotes
from distillkit.errors import UsageError
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import locate_pair
from distillkit.settings.resolve import resolve
from distillkit.stages import distill, validate
from distillkit.stages.prepare_data import prepare

QUIET = Console(quiet=True)


def conversations(count: int = 40, seed: int = 3) -> DocumentSet:
    generator = random.Random(seed)
    documents = []
    for number in range(count):
        turns = [Turn("system", "Be brief.")] if number % 3 == 0 else []
        for _ in range(generator.choice((1, 1, 2))):
            turns += [Turn("user", make_paragraph(generator, 1)), Turn("assistant", make_paragraph(generator, 1))]
        conversation = Conversation(tuple(turns))
        documents.append(Document(conversation.canonical(), f"chats:{number}", conversation=conversation))
    return DocumentSet("chats", {"all": documents}, {}, reading=ReadingNotes().record())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A ChatML teacher; students: ChatML with its tokenizer, one without a template, Llama-3 with another, a base model."""
    root = tmp_path_factory.mktemp("models")

    def model(name: str, tokenizer: Any, seed: int, made: Any = None) -> Path:
        made = made or tiny_model("gpt2", len(tokenizer), layers=1, hidden=16, seed=seed, context=512)
        return save_model_folder(root / name, made, tokenizer)

    chat = as_chat(tiny_tokenizer(600), CHATML)
    bare = as_chat(tiny_tokenizer(600), CHATML)
    bare.chat_template = None
    return SimpleNamespace(
        teacher=model("teacher", chat, 1, teacher_of_letters(chat)),
        same=model("same", chat, 2),
        bare=model("bare", bare, 3),
        llama3=model("llama3", as_chat(tiny_tokenizer(400), FAMILIES["llama3"]), 4),
        base=model("base", tiny_tokenizer(300), 5),
    )


def prepared(tmp_path: Path, models: SimpleNamespace, student: str, **settings: Any) -> SimpleNamespace:
    values = {
        "teacher_model_path": str(models.teacher), "student_model_path": str(getattr(models, student)), "sample_size": 12,
        "max_length": 200, "held_out_size": 6, "batch_size": 4, "epochs": 1, "learning_rate": 1e-3, "precision": "fp32",
        "allow_out_of_range": True, "save_plot": False, "control": False, "output_dir": str(tmp_path), "folder_name": "run",
        "dataset": "python-docs", "teacher_cache": "off", "quality_gate": "off",
    }  # fmt: skip
    resolved = resolve(values | settings)
    config = resolved.parameters
    run = RunDirectory.create(tmp_path / "run", resolved)
    pair = locate_pair(config, QUIET)
    prepare(conversations(), pair, pair.text_encoders(config), config, run, QUIET)
    stats = json.loads((run.data / "stats.json").read_text())
    return SimpleNamespace(run=run, config=config, stats=stats)


def distilled(made: SimpleNamespace) -> dict[str, Any]:
    distill.run(made.config, made.run, QUIET)
    metrics = [json.loads(line) for line in (made.run.path / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in metrics if "soft_loss" in line)


@pytest.mark.parametrize("student", ["same", "bare", "llama3", "base"])
@pytest.mark.parametrize("box_type", ["white", "black"])
def test_a_student_keeps_its_template_and_stops(tmp_path, models, student: str, box_type: str) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    made = prepared(tmp_path, models, student, box_type=box_type)
    told = made.stats["conversations"]
    origin = {"same": "model", "bare": "teacher", "llama3": "model", "base": "plain"}[student]
    assert told["student"]["origin"] == origin
    assert made.stats["same_tokenizer"] is (student in ("same", "bare"))
    if box_type == "white" and student in ("llama3", "base"):
        assert 0.5 < made.stats["alignment"]["positions_aligned"] <= 1
    assert distilled(made)["soft_loss"] > 0
    tokenizer = AutoTokenizer.from_pretrained(made.run.best_student)
    assert tokenizer.chat_template == told["student"]["source"]
    ends = GenerationConfig.from_pretrained(made.run.best_student).eos_token_id
    assert told["student"]["end_of_turn_id"] in (ends if isinstance(ends, list) else [ends])
    validate.run(made.config, made.run, QUIET)
    found = json.loads((made.run.path / "validation.json").read_text())
    assert 0 < found["after"]["bits_per_byte"] < 20
    if box_type == "white":
        assert found["after"]["teacher_kl"] >= 0


def test_targets_are_what_the_assistant_says(tmp_path, models) -> None:
    from transformers import AutoTokenizer

    from distillkit.data.examples import load_examples

    made = prepared(tmp_path, models, "same")
    tokenizer = AutoTokenizer.from_pretrained(models.same)
    for row in load_examples(made.run.data / "train").to_list():
        conversation = Conversation.from_canonical(row["text"])
        said = [turn.text + "<|im_end|>" for turn in conversation.turns if turn.role == "assistant"]
        assert [tokenizer.decode(row["student_ids"][begin:end]) for begin, end in row["target_spans"]] == said
        scored = [tokenizer.decode(row["student_ids"][begin:end]) for begin, end in row["student_scored"]]
        assert scored == [text.removesuffix("<|im_end|>") for text in said]
        assert row["bytes"] == sum(len(text.encode()) for text in scored)
        messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
        assert row["student_ids"] == row["teacher_ids"]
        assert row["student_ids"] == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


def test_special_tokens_of_rendered_texts_are_refused(tmp_path, models) -> None:
    with pytest.raises(UsageError, match="the rows are conversations"):
        prepared(tmp_path, models, "same", special_tokens="parse")
