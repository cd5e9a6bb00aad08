"""Conversations without files: documents that are read, models that have templates, and runs on them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chat_templates import CHATML, FAMILIES, as_chat
from tiny_models import make_paragraph, save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.document import Document, DocumentSet
from distillkit.data.mixture import Mixture
from distillkit.data.notes import ReadingNotes
from distillkit.run.directory import RunDirectory
from distillkit.run.further_teachers import locate_further
from distillkit.run.pair import locate_pair
from distillkit.settings.resolve import resolve
from distillkit.stages import distill
from distillkit.stages.prepare_data import prepare

QUIET = Console(quiet=True)


def conversations(count: int = 40, seed: int = 3) -> DocumentSet:
    """Of one or two exchanges each, every third with a system's turn."""
    generator = random.Random(seed)
    documents = []
    for number in range(count):
        turns = [Turn("system", "Be brief.")] if number % 3 == 0 else []
        for _ in range(generator.choice((1, 1, 2))):
            turns += [Turn("user", make_paragraph(generator, 1)), Turn("assistant", make_paragraph(generator, 1))]
        conversation = Conversation(tuple(turns))
        documents.append(Document(conversation.canonical(), f"chats:{number}", conversation=conversation))
    return DocumentSet("chats", {"all": documents}, {}, reading=ReadingNotes().record())


def chat_models(root: Path) -> SimpleNamespace:
    """A ChatML teacher; students: ChatML with its tokenizer, one without a template, Llama-3 with another, a base model."""

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
    """A run on conversations, its data prepared: `run`, `config`, `stats`."""
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
    pair.further = locate_further(config, QUIET)
    prepare(Mixture.of(conversations()), pair, pair.text_encoders(config), config, run, QUIET)
    stats = json.loads((run.data / "stats.json").read_text())
    return SimpleNamespace(run=run, config=config, stats=stats)


def distilled(made: SimpleNamespace) -> dict[str, Any]:
    """The first line of its metrics.jsonl, once it is trained."""
    distill.run(made.config, made.run, QUIET)
    metrics = [json.loads(line) for line in (made.run.path / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in metrics if "soft_loss" in line)
