"""Which layers a cut student should keep, and whether fitting them first pays: before and after training.

    python benchmarks/quality/layers.py --texts PROSE.txt --results benchmarks/quality/layers.jsonl

SmolLM2-135M (30 layers) cut to 20, 15 and 10, two corpora, three seeds. All students of a corpus and seed see the same
batches, 300 steps of 2 texts of at most 64 tokens at temperature 1, alpha 0.5; scored on 60 test texts before and after.
There are 600 texts: 50 steps read a sixth of them, 1000 read them three times and a third. The ways of choosing and the
fitted start are those of the program. Lines that are in the file are not computed again.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from lab import Corpus, Recipe, Results, SharedTeacher, held_out, train, whole_teacher

from distillkit.console import Console
from distillkit.models.block_chain import BlockChain, boundary_states
from distillkit.models.fitted_start import fit_to_teacher, target_places
from distillkit.models.layer_choice import choose_layers
from distillkit.models.pruning import keep_layers
from distillkit.teachers.cut_student import equal_texts

COUNTS = (10, 15, 20)
MAIN = (("even", "cut"), ("greedy", "fitted"))
MORE = (("greedy", "cut"), ("even", "fitted"), ("influence", "cut"), ("contiguous", "cut"), ("perplexity", "cut"))
RECIPE = Recipe(steps=300, batch_size=2, learning_rate=4e-4, options={"temperature": 1.0, "alpha": 0.5, "beta": 0.5})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--all-ways", action="store_true", help="all ways and starts instead of the two main ones")
    parser.add_argument("--steps", type=int, nargs="+", default=[RECIPE.steps])
    arguments = parser.parse_args()
    results = Results(arguments.results)
    console = Console(quiet=True)
    whole = whole_teacher()
    for seed in arguments.seeds:
        for name, path in (("python-docs", None), (arguments.texts.stem, arguments.texts)):
            corpus = Corpus(name, path, seed, 600, 64)
            compute = corpus.compute
            reader = copy.deepcopy(whole).to(compute.teacher)
            texts = [row["teacher_ids"] for row in corpus.train]
            batches = list(equal_texts(texts, 16_000, 64).split(32))
            few = list(equal_texts(texts, 2_000, 64).split(32))
            trial = equal_texts(texts, 768, 64)
            teacher = SharedTeacher(whole, corpus)
            if not results.has(corpus=name, seed=seed, way="teacher"):
                results.add(held_out(whole, corpus, corpus.test), corpus=name, seed=seed, way="teacher")
            for count in arguments.counts:
                for way, start in MAIN + MORE if arguments.all_ways else MAIN:
                    facts = {"corpus": name, "seed": seed, "layers": count, "way": way, "start": start}
                    wanted = [steps for steps in arguments.steps if not results.has(**facts, steps=steps)]
                    if not wanted:
                        continue
                    before = results.find(**facts, steps=0)
                    with BlockChain(reader) as chain:
                        kept = (
                            before["kept"]
                            if before is not None
                            else choose_layers(
                                way, count, len(chain),
                                lambda some, places, chain=chain: boundary_states(chain, some, places),
                                chain, few, trial, console,
                            ).kept
                        )  # fmt: skip
                        targets = boundary_states(chain, batches, target_places(kept, len(chain)))
                    student = keep_layers(whole, kept).eval()
                    if start == "fitted":
                        fit_to_teacher(student, kept, targets, batches, whole=True, autocast=compute.autocast)
                    if before is None:
                        results.add(held_out(student, corpus, corpus.test), **facts, steps=0, kept=kept)
                    for steps in wanted:
                        torch.manual_seed(seed)
                        own = copy.deepcopy(student)
                        recipe = Recipe(steps, RECIPE.batch_size, RECIPE.learning_rate, options=RECIPE.options)
                        figures = train(own, corpus, recipe, teacher)
                        results.add(held_out(own, corpus, corpus.test), **facts, steps=steps, **figures)


if __name__ == "__main__":
    main()
