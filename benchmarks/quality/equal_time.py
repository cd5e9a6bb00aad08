"""The teacher, or more steps on fresh text in the time that it takes? And depth or width where both train for as long?

    python benchmarks/quality/equal_time.py --texts PROSE.txt --results benchmarks/quality/equal_time.jsonl

SmolLM2-135M-Instruct cut to 10 layers, and to 14 with 62 % of their neurons (63.7 million parameters each), chosen and fitted on
200 texts of at most 128 tokens; batches of 4 at 4e-4. "kd": 50 steps at temperature 1, alpha 0.5, with the teacher's pass over
each text in the time. "ce": 50 steps without a teacher. "ce, as long": as many steps without a teacher as fit into the time that
kd's steps took, the later ones on texts that nobody else has read. "kd, as long as 10 layers": steps of the narrower student in the time
of those of the other. Numbers of steps follow from seconds that were measured in the same process, and are in the lines. Run it alone
on the machine. Scored on 60 test texts. Lines that are in the file are not computed again.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from lab import Corpus, Recipe, Results, SharedTeacher, cut_student, held_out, train, whole_teacher

STEPS, BATCH, SPARE = 50, 4, 60
KD = {"temperature": 1.0, "alpha": 0.5, "beta": 0.5}
CE = {"alpha": 0.0, "beta": 1.0}
STARTS = {"10 layers": "teacher:10", "14 narrower": "teacher:14,ffn=0.62"}


class Experiment:
    """The trainings of one corpus and seed."""

    def __init__(self, corpus: Corpus, fresh: list[Any], results: Results) -> None:
        self.corpus, self.fresh, self.results = corpus, fresh, results
        self.facts: dict[str, Any] = {"corpus": corpus.name, "seed": corpus.seed}

    def seconds(self, student: Any, start: str, training: str, steps: int = STEPS) -> float:
        """Train a copy of a student unless that has been done; how long it took."""
        facts = {**self.facts, "start": start, "training": training}
        if (line := self.results.find(**facts)) is not None:
            return float(line["seconds"])
        torch.manual_seed(self.corpus.seed)
        own, corpus = copy.deepcopy(student), copy.copy(self.corpus)
        with_teacher = training.startswith("kd")
        if steps > STEPS:
            # The same batches as the others, and then texts that nobody else has read.
            first = corpus.batches(BATCH, STEPS)
            more = [self.fresh[index : index + BATCH] for index in range(0, BATCH * (steps - STEPS), BATCH)]
            corpus.batches = lambda size, count: [*first, *more][:count]  # type: ignore[method-assign]
        # Each training has its teacher read the texts anew: that is part of its time.
        teacher = SharedTeacher(whole_teacher(), corpus) if with_teacher else None
        figures = train(own, corpus, Recipe(steps, BATCH, 4e-4, options=KD if with_teacher else CE), teacher)
        self.results.add(held_out(own, corpus, corpus.test), **facts, steps=steps, **figures)
        return float(figures["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for seed in arguments.seeds:
        for name, path in (("python-docs", None), (arguments.texts.stem, arguments.texts)):
            corpus = Corpus(name, path, seed, BATCH * (STEPS + SPARE))
            fresh, corpus.train = corpus.train[BATCH * STEPS :], corpus.train[: BATCH * STEPS]
            experiment = Experiment(corpus, fresh, results)
            students = {start: cut_student(corpus, reference)[0] for start, reference in STARTS.items()}
            deep, narrow = students.values()
            whole = experiment.seconds(deep, "10 layers", "kd")
            narrower = experiment.seconds(narrow, "14 narrower", "kd")
            plain = experiment.seconds(narrow, "14 narrower", "ce")
            experiment.seconds(
                narrow,
                "14 narrower",
                "ce, as long",
                min(STEPS + SPARE, max(STEPS + 1, round(STEPS * narrower / plain))),
            )
            experiment.seconds(
                narrow, "14 narrower", "kd, as long as 10 layers", min(STEPS, round(STEPS * whole / narrower))
            )


if __name__ == "__main__":
    main()
