"""Cutting away more than half of the layers at once, or in two steps with a training between them, at equal steps of training.

    python benchmarks/quality/two_steps.py --texts PROSE.txt --results benchmarks/quality/two_steps.jsonl

SmolLM2-135M (30 layers) to 10. "at once": cut, fitted, 300 steps. "in two steps": cut to 20, fitted, 150 steps; that student cut to 10, fitted to
itself, 150 steps. Choice and fit are the program's defaults; batches of 2 texts of at most 64 tokens, the same for both; temperature 1, alpha
0.5, the whole teacher teaches always. Scored on 60 test texts. Lines that are in the file are not computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from lab import Corpus, Recipe, Results, SharedTeacher, held_out, train, whole_teacher

from distillkit.console import Console
from distillkit.models.block_chain import BlockChain, boundary_states
from distillkit.models.fitted_start import fit_to_teacher, target_places
from distillkit.models.layer_choice import choose_layers
from distillkit.models.pruning import keep_layers
from distillkit.teachers.cut_student import equal_texts

STEPS = 300
OPTIONS = {"temperature": 1.0, "alpha": 0.5, "beta": 0.5}
WAYS = {"at once": (10,), "in two steps": (20, 10)}


def cut(model: Any, count: int, corpus: Corpus) -> Any:
    """`count` layers of a model, chosen and fitted on the training texts as the program does it."""
    texts = [row["teacher_ids"] for row in corpus.train]
    batches, few = (list(equal_texts(texts, tokens, 64).split(32)) for tokens in (16_000, 2_000))
    # A trained model's embedding is bound to its own weights; what keeps all layers is a plain copy.
    reader = keep_layers(model, model.config.num_hidden_layers)
    with BlockChain(reader.to(corpus.compute.teacher)) as chain:
        choice = choose_layers(
            "greedy", count, len(chain), lambda some, places: boundary_states(chain, some, places), chain, few,
            equal_texts(texts, 768, 64), Console(quiet=True),
        )  # fmt: skip
        targets = boundary_states(chain, batches, target_places(choice.kept, len(chain)))
    student = keep_layers(model, choice.kept).eval()
    fit_to_teacher(student, choice.kept, targets, batches, whole=True, autocast=corpus.compute.autocast)
    return student


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    results = Results(arguments.results)
    whole = whole_teacher()
    for seed in arguments.seeds:
        for name, path in (("python-docs", None), (arguments.texts.stem, arguments.texts)):
            corpus = Corpus(name, path, seed, 2 * STEPS, 64)
            teacher = SharedTeacher(whole, corpus)
            for way, counts in WAYS.items():
                facts = {"corpus": name, "seed": seed, "way": way}
                if results.has(**facts, layers=counts[-1], stage="after"):
                    continue
                student, steps = whole, STEPS // len(counts)
                for part, count in enumerate(counts):
                    student = cut(student, count, corpus)
                    if not results.has(**facts, layers=count, stage="before"):
                        results.add(held_out(student, corpus, corpus.test), **facts, layers=count, stage="before")
                    torch.manual_seed(seed)
                    recipe = Recipe(steps, 2, 4e-4, options=OPTIONS)
                    # The second training goes on where the first one stopped reading.
                    figures = train(student, corpus, recipe, teacher, skipped_steps=part * steps)
                    if not results.has(**facts, layers=count, stage="after"):
                        scores = held_out(student, corpus, corpus.test)
                        results.add(scores, **facts, layers=count, stage="after", steps=steps, **figures)


if __name__ == "__main__":
    main()
