"""Cutting in two steps: half of the layers, some training, the rest of them; against one cut and the same training.

    python benchmarks/quality/two_steps.py --texts PROSE.txt --results benchmarks/quality/two_steps.jsonl

SmolLM2-135M-Instruct (30 layers) to 10 of them, chosen and fitted, 100 steps of 4 texts of at most 128 tokens at 4e-4, temperature 1,
alpha 0.5. `one`: cut to 10, all steps. `two`: cut to 20, half of the steps; then that student is cut to 10 (chosen among its own
layers, fitted to its own states), the other half. Same texts in the same order; the learning rate of each half has its own
warm-up and fall. `two, fitted to the teacher`: the second fit aims at the teacher's states. Scored on 60 test texts.
Lines that are in the file are not computed again.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lab import Corpus, Recipe, Results, SharedTeacher, held_out, train, whole_teacher
from torch import Tensor, nn

from distillkit.console import Console
from distillkit.models.block_chain import BlockChain, boundary_states
from distillkit.models.fitted_start import fit_to_teacher, target_places
from distillkit.models.layer_choice import choose_layers
from distillkit.models.pruning import keep_layers
from distillkit.teachers.cut_student import equal_texts

WAYS = ("one", "two", "two, fitted to the teacher")
OPTIONS = {"temperature": 1.0, "alpha": 0.5, "beta": 0.5}
FIRST, LAST, STEPS, BATCH, RATE = 20, 10, 100, 4, 4e-4


class Texts:
    """What is measured on, as `prepare-data` draws it: texts of one length."""

    def __init__(self, corpus: Corpus) -> None:
        ids = [row["teacher_ids"] for row in corpus.train]
        self.fit = list(equal_texts(ids, 16_000, 128).split(8))
        self.few = list(equal_texts(ids, 2_000, 128).split(8))
        self.trial = equal_texts(ids, 768, 96)


def chosen(model: nn.Module, count: int, texts: Texts) -> list[int]:
    """The numbers of the layers of `model` that are kept."""
    with BlockChain(model) as chain:
        return choose_layers(
            "greedy", count, len(chain), lambda some, places: boundary_states(chain, some, places), chain, texts.few, texts.trial,
            Console(quiet=True),
        ).kept  # fmt: skip


def states(model: nn.Module, places: Sequence[int], texts: Texts) -> list[Tensor]:
    with BlockChain(model) as chain:
        return boundary_states(chain, texts.fit, list(places))


def cut(model: Any, kept: list[int], targets: list[Tensor], texts: Texts, autocast: Any, *, whole: bool = True) -> Any:
    """A copy of `model` that has only the layers `kept`, fitted."""
    student = keep_layers(model, kept).eval()
    fit_to_teacher(student, kept, targets, texts.fit, whole=whole, autocast=autocast)
    return student


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, help="a file of prose, the second corpus")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    results = Results(arguments.results)
    whole = whole_teacher()
    corpora: list[tuple[str, Path | None]] = [("python-docs", None)]
    if arguments.texts is not None:
        corpora.append((arguments.texts.stem, arguments.texts))
    for seed in arguments.seeds:
        for name, path in corpora:
            wanted = [{"corpus": name, "seed": seed, "way": way} for way in WAYS]
            wanted = [facts for facts in wanted if not results.has(**facts)]
            if not wanted:
                continue
            corpus = Corpus(name, path, seed, STEPS * BATCH)
            texts, autocast = Texts(corpus), corpus.compute.autocast
            reader = copy.deepcopy(whole).to(corpus.compute.teacher)
            teacher = SharedTeacher(whole, corpus)
            everything = corpus.train

            def trained(
                student: Any, rows: list[dict[str, Any]], corpus: Corpus = corpus, teacher: Any = teacher
            ) -> None:
                torch.manual_seed(corpus.seed)
                corpus.train = rows
                train(student, corpus, Recipe(len(rows) // BATCH, BATCH, RATE, options=OPTIONS), teacher)

            halfway, first = None, chosen(reader, FIRST, texts)
            for facts in wanted:
                if facts["way"] == "one":
                    kept = chosen(reader, LAST, texts)
                    student = cut(whole, kept, states(reader, target_places(kept, 30), texts), texts, autocast)
                    trained(student, everything)
                else:
                    if halfway is None:
                        halfway = cut(whole, first, states(reader, target_places(first, 30), texts), texts, autocast)
                        trained(halfway, everything[: len(everything) // 2])
                        halfway = halfway.eval()
                    own = copy.deepcopy(halfway).to(corpus.compute.teacher)
                    kept = chosen(own, LAST, texts)
                    if facts["way"] == "two":
                        student = cut(halfway, kept, states(own, target_places(kept, FIRST), texts), texts, autocast)
                    else:
                        places = [first[layer] for layer in kept]
                        targets = states(reader, target_places(places, 30), texts)
                        student = cut(halfway, kept, targets, texts, autocast, whole=False)
                    before = held_out(student, corpus, corpus.validation).bits_per_byte
                    facts = {**facts, "before": round(before, 5)}
                    trained(student, everything[len(everything) // 2 :])
                corpus.train = everything
                validation = held_out(student, corpus, corpus.validation).bits_per_byte
                results.add(held_out(student, corpus, corpus.test), **facts, kept=kept, validation=round(validation, 5))


if __name__ == "__main__":
    main()
