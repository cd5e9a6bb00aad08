"""What makes a better student of the same teacher, at equal steps: one command, three seeds, two corpora.

    python benchmarks/quality/recipes.py --texts PROSE.txt --results benchmarks/quality/recipes.jsonl

SmolLM2-135M-Instruct cut in different ways to at most 64 million parameters, 200 texts of at most 128 tokens, 50 steps of 4
(the quickstart's amounts). All students of a corpus and seed see the same batches; each is also trained without the
teacher ("ce", alpha 0) from the same start. Scored on 60 test texts before and after. Lines that are in the file are not
computed again; `tables.py` makes the README's tables of them.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lab import Corpus, Recipe, Results, SharedTeacher, cut_student, held_out, train, whole_teacher


@dataclass(frozen=True)
class Start:
    """A student before training: a name, what it is cut to, and how."""

    name: str
    reference: str
    settings: dict[str, Any] = field(default_factory=dict)


STARTS = (
    Start("even layers", "teacher:10", {"layer_choice": "even", "student_start": "cut"}),
    Start("chosen layers", "teacher:10", {"student_start": "cut"}),
    Start("chosen and fitted", "teacher:10"),
    Start("narrower, fitted", "teacher:14,ffn=0.62"),
)
TRAININGS = {
    "ce": {"alpha": 0.0, "beta": 1.0},
    "kd": {"temperature": 1.0, "alpha": 0.5, "beta": 0.5},
    "defaults": {},
    "defaults, annealed": {"temperature_schedule": "anneal"},
    "defaults, decaying": {"alpha_schedule": "decay"},
    "defaults, constant": {"alpha_schedule": "constant"},
    "quality": {"temperature": 3.0, "alpha": 0.8, "beta": 0.2},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, help="a file of prose, the second corpus")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--starts", nargs="+", default=[start.name for start in STARTS])
    parser.add_argument("--trainings", nargs="+", choices=list(TRAININGS), default=["ce", "kd"])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[4e-4])
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    results = Results(arguments.results)
    whole = whole_teacher()
    corpora: list[tuple[str, Path | None]] = [("python-docs", None)]
    if arguments.texts is not None:
        corpora.append((arguments.texts.stem, arguments.texts))
    for seed in arguments.seeds:
        for name, path in corpora:
            corpus = Corpus(name, path, seed, 4 * arguments.steps)
            teacher = SharedTeacher(whole, corpus)
            if not results.has(corpus=name, seed=seed, start="teacher"):
                results.add(held_out(whole, corpus, corpus.test), corpus=name, seed=seed, start="teacher")
            for start in (start for start in STARTS if start.name in arguments.starts):
                wanted = [
                    {
                        "corpus": name, "seed": seed, "start": start.name, "training": training, "learning_rate": rate,
                        "steps": arguments.steps,
                    }
                    for training in arguments.trainings
                    for rate in arguments.learning_rates
                ]  # fmt: skip
                wanted = [facts for facts in wanted if not results.has(**facts)]
                if not wanted:
                    continue
                student, record = cut_student(corpus, start.reference, **start.settings)
                before = {"corpus": name, "seed": seed, "start": start.name, "steps": 0}
                if not results.has(**before):
                    size = sum(weights.numel() for weights in student.parameters())
                    scores = held_out(student, corpus, corpus.test)
                    results.add(scores, **before, reference=start.reference, kept=record["kept"], parameters=size)
                for facts in wanted:
                    torch.manual_seed(seed)
                    own = copy.deepcopy(student)
                    options = TRAININGS[facts["training"]]
                    recipe = Recipe(arguments.steps, 4, facts["learning_rate"], options=options)
                    figures = train(own, corpus, recipe, None if facts["training"] == "ce" else teacher)
                    validation = held_out(own, corpus, corpus.validation).bits_per_byte
                    results.add(held_out(own, corpus, corpus.test), **facts, **figures, validation=round(validation, 5))


if __name__ == "__main__":
    main()
