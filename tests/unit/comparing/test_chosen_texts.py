"""Which texts are compared on: shared ones, else the first run's without what another has learnt from; never none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit.comparing import chosen_texts
from distillkit.comparing.chosen_texts import choose_texts
from distillkit.comparing.documents import HeldOutDocument
from distillkit.comparing.opened import OpenedRun
from distillkit.console import Console
from distillkit.errors import UsageError

QUIET = Console(quiet=True)


def text(number: int) -> str:
    return f"The document number {number} tells of {number} mills, {number} rivers and of the {number} people who lived there."


def opened(name: str, held_out: list[int], learnt: list[int] = (), first: int = 0) -> OpenedRun:  # type: ignore[assignment]
    documents = [HeldOutDocument(first + place, (text(number),)) for place, number in enumerate(held_out)]
    run: Any = SimpleNamespace(path=Path(name), learnt=[f"Before. {text(number)} After." for number in learnt])
    return OpenedRun(run, name, documents, {}, {}, {}, {})


@pytest.fixture(autouse=True)
def what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen_texts, "learnt_texts", lambda run: run.learnt)


def test_documents_that_all_hold_out_are_found_wherever_they_stand() -> None:
    one, two, three = list(range(10)), [20, 9, 8, 7, 6, 5, 4], [4, 5, 6, 7, 8, 9, 1]
    # Nobody is asked what was learnt: each has kept its held-out texts out of its training.
    found = choose_texts([opened("a", one), opened("b", two, learnt=[5], first=100), opened("c", three)], QUIET)
    assert (found.how, found.of, found.learnt) == ("shared", 10, {})
    assert [document.pieces[0] for document in found.documents] == [text(number) for number in range(4, 10)]
    assert found.numbers == [[4, 5, 6, 7, 8, 9], [106, 105, 104, 103, 102, 101], [0, 1, 2, 3, 4, 5]]


def test_with_too_few_of_them_the_first_runs_are_taken_that_no_other_has_learnt_from() -> None:
    a, b, c = opened("a", list(range(10))), opened("b", [0, 20], learnt=[1, 2, 30]), opened("c", [21], learnt=[2, 3])
    found = choose_texts([a, b, c], QUIET)
    assert (found.how, found.learnt) == ("first run", {"b": 2, "c": 1})
    assert [document.number for document in found.documents] == [0, 4, 5, 6, 7, 8, 9]
    assert found.numbers == [[0, 4, 5, 6, 7, 8, 9], None, None]


def test_a_small_test_part_that_all_share_is_enough() -> None:
    assert choose_texts([opened("a", [1, 2]), opened("b", [2, 1, 3])], QUIET).how == "shared"


def test_where_nothing_is_left_it_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no held-out text of a is left to compare on: of its 3 .*b 3") as caught:
        choose_texts([opened("a", [1, 2, 3]), opened("b", [9], learnt=[1, 2, 3])], QUIET)
    assert "name another run first" in str(caught.value.hint)
