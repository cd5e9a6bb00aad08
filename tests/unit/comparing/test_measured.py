"""Recorded bits are found by text, paired by document, and their interval is that of a naive bootstrap."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from distillkit.comparing.documents import HeldOutDocument
from distillkit.comparing.measured import MODELS, recorded_scores, scores_of
from distillkit.comparing.result import difference, differing_settings
from distillkit.settings import declared


def details(count: int, seed: int, gain: float = 0.0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    sizes = np.random.default_rng(99).integers(50, 900, count)
    hard = np.random.default_rng(98).normal(1.5, 0.4, count)
    bits = {name: (hard - gain * (name == "after") + draw.normal(0, 0.05, count)) * sizes for name in MODELS}
    numbers = [3 * number + 1 for number in range(count)]
    return {
        "documents": {
            "document": numbers,
            "bytes": {name: sizes.tolist() for name in MODELS},
            "bits": {name: of.tolist() for name, of in bits.items()},
        }
    }


def test_documents_are_known_by_their_texts() -> None:
    one = HeldOutDocument(4, ("first piece", "second piece"))
    assert one.digest == HeldOutDocument(9, ("second piece", "first piece")).digest
    for other in (("first piece",), ("first piece", "second  piece"), ("first piece", "second piece", "second piece"),
                  ("first piecesecond piece",)):  # fmt: skip
        assert one.digest != HeldOutDocument(4, other).digest


def test_recorded_bits_are_taken_in_the_order_that_is_asked_for() -> None:
    stored = details(20, 1)
    wanted = [3 * number + 1 for number in (7, 0, 19)]
    found = recorded_scores(stored, wanted)
    assert found is not None
    for name in MODELS:
        expected = [stored["documents"]["bits"][name][place] * math.log(2) for place in (7, 0, 19)]
        assert found[name].nll.tolist() == pytest.approx(expected, rel=1e-15)
        assert found[name].bytes.tolist() == [stored["documents"]["bytes"][name][place] for place in (7, 0, 19)]
    assert recorded_scores(stored, [2]) is None
    assert recorded_scores({}, wanted) is None


def naive_interval(first: dict[str, Any], other: dict[str, Any], samples: int) -> tuple[float, float, float]:
    """Documents drawn one by one, sums in Python floats."""
    ours, theirs = (one["documents"]["bits"]["after"] for one in (first, other))
    sizes = first["documents"]["bytes"]["after"]
    draw = random.Random(8)
    count, found = len(sizes), []
    for _ in range(samples):
        drawn = [draw.randrange(count) for _ in range(count)]
        whole = sum(sizes[place] for place in drawn)
        found.append(sum(ours[place] - theirs[place] for place in drawn) / whole)
    low, high = np.quantile(found, [0.025, 0.975])
    return (sum(ours) - sum(theirs)) / sum(sizes), float(low), float(high)


def test_thedifference_is_that_of_a_naive_bootstrap_over_documents() -> None:
    first, other = details(300, 1), details(300, 2, gain=0.02)
    numbers = first["documents"]["document"]
    scores = [recorded_scores(one, numbers) for one in (first, other)]
    assert scores[0] is not None
    assert scores[1] is not None
    found = difference(scores[0]["after"], scores[1]["after"], 3)
    estimate, low, high = naive_interval(first, other, 3000)
    assert found["bits_per_byte"] == pytest.approx(estimate, rel=1e-12)
    assert found["ci95"] == pytest.approx([low, high], abs=0.08 * (high - low))
    assert found["verdict"] == "better"
    # Paired: the documents differ by far more than the runs do.
    alone = [np.array(one["documents"]["bits"]["after"]) / one["documents"]["bytes"]["after"] for one in (first, other)]
    assert high - low < 0.2 * 2 * 1.96 * math.sqrt(sum(of.var() for of in alone) / 300)


def test_a_run_does_not_differ_from_itself_and_few_documents_give_no_interval() -> None:
    same = recorded_scores(details(30, 1), details(30, 1)["documents"]["document"])
    assert same is not None
    assert difference(same["after"], same["after"], 0) == {
        "bits_per_byte": 0.0, "ci95": [0.0, 0.0], "verdict": "not shown"
    }  # fmt: skip
    few = scores_of(np.array([5.0, 6.0]), np.array([4, 5]))
    assert difference(few, few, 0)["ci95"] is None


def test_settings_that_differ() -> None:
    plain = {name: declared.default(name) for name in declared.fields()}
    changed = {**plain, "temperature": 7.0, "folder_name": "elsewhere"}
    older = {name: value for name, value in plain.items() if name != "alpha"}
    assert differing_settings([plain, changed, older]) == {
        "temperature": [plain["temperature"], 7.0, plain["temperature"]]
    }
