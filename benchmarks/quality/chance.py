"""How far chance alone moves a student: the same training from starts that differ by less than a rounding.

    python benchmarks/quality/chance.py --texts PROSE.txt --results benchmarks/quality/chance.jsonl

The quickstart's student (14 layers, 62 % of the neurons, chosen and fitted) on 200 texts of at most 128 tokens, 50 steps of 4 at 4e-4, the
same batches; "ce" without a teacher, "kd" at temperature 1, alpha 0.5. Draw 0 begins with the start itself, draw n with its embedding
multiplied by 1 + n * 1e-6. Scored on 60 test texts. Lines that are in the file are not computed again.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from lab import Corpus, Recipe, Results, SharedTeacher, cut_student, held_out, train, whole_teacher

ARMS: dict[str, dict[str, Any]] = {
    "ce": {"alpha": 0.0, "beta": 1.0},
    "kd": {"temperature": 1.0, "alpha": 0.5, "beta": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for name, path in (("python-docs", None), (arguments.texts.stem, arguments.texts)):
        corpus = Corpus(name, path, arguments.seed, 200)
        student, _ = cut_student(corpus, "teacher:14,ffn=0.62")
        teacher = SharedTeacher(whole_teacher(), corpus)
        for draw in range(arguments.draws):
            for arm, options in ARMS.items():
                facts = {"corpus": name, "seed": arguments.seed, "training": arm, "draw": draw}
                if results.has(**facts):
                    continue
                torch.manual_seed(arguments.seed)
                own = copy.deepcopy(student)
                with torch.no_grad():
                    own.get_input_embeddings().weight.mul_(1 + draw * 1e-6)
                figures = train(own, corpus, Recipe(50, 4, 4e-4, options=options), teacher if arm == "kd" else None)
                results.add(held_out(own, corpus, corpus.test), **facts, **figures)


if __name__ == "__main__":
    main()
