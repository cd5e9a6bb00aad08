"""The picture of a search."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from matplotlib.figure import Figure

from distillkit.reports import tune_plot


def trial(rate: float, score: float | None, texts: int = 8, epochs: int = 1, **others: Any) -> dict[str, Any]:
    return {"settings": {"learning_rate": rate, **others}, "bits_per_byte": score, "texts": texts, "epochs": epochs}


def found(trials: list[dict[str, Any]]) -> dict[str, Any]:
    finite = [one for one in trials if one["bits_per_byte"] is not None]
    best = min(finite, key=lambda one: one["bits_per_byte"]) if finite else None
    return {"all_trials": trials, "best": best, "searched": list(trials[0]["settings"])}


MANY = [
    trial(2e-5 * 1.4**n, None if n == 11 else 3 - n / 10, 8 * (1 + n % 3), 1 + n % 2, temperature=1 + n % 3, alpha=0.7,
          divergence=("jsd", "forward-kl")[n % 2])
    for n in range(12)
]  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    write = tune_plot.write_figure

    def remember(figure: Figure, folder: Path, name: str) -> list[Path]:
        figures.append(figure)
        return write(figure, folder, name)

    monkeypatch.setattr(tune_plot, "write_figure", remember)
    return figures


def test_it_is_written_as_two_files_that_can_be_read(tmp_path: Path) -> None:
    written = tune_plot.draw_tune_plot(found(MANY), tmp_path, title="run")
    assert [path.name for path in written] == ["tune.png", "tune.svg"]
    assert matplotlib.image.imread(tmp_path / "tune.png").std() > 0.05
    ElementTree.parse(tmp_path / "tune.svg")
    before = (tmp_path / "tune.svg").read_bytes()
    tune_plot.draw_tune_plot(found(MANY), tmp_path, title="run")
    assert (tmp_path / "tune.svg").read_bytes() == before


def test_every_finite_trial_and_the_best_are_there(tmp_path: Path, drawn: list[Figure]) -> None:
    tune_plot.draw_tune_plot(found(MANY), tmp_path, title="run")
    main, *small = drawn[0].axes
    points = [(x, y) for line in main.lines for x, y in zip(*line.get_data(), strict=True)]
    expected = [(one["settings"]["learning_rate"], one["bits_per_byte"]) for one in MANY if one["bits_per_byte"]]
    assert sorted({(float(x), float(y)) for x, y in points}) == sorted(expected)
    assert len(points) == len(expected) + 1
    assert [axes.get_xlabel() for axes in small] == ["temperature", "divergence"]  # alpha was always the same
    assert [label.get_text() for label in small[1].get_xticklabels()] == ["forward-kl", "jsd"]
    assert len(main.lines) == len({one["texts"] * one["epochs"] for one in MANY if one["bits_per_byte"]}) + 1


def test_a_search_of_the_learning_rate_alone_has_no_small_axes(tmp_path: Path, drawn: list[Figure]) -> None:
    tune_plot.draw_tune_plot(found([trial(1e-4, 2.0)]), tmp_path, title="run")
    assert len(drawn[0].axes) == 1


def test_without_a_finite_trial_nothing_is_drawn(tmp_path: Path) -> None:
    assert tune_plot.draw_tune_plot(found([trial(1e-4, None)]), tmp_path, title="run") == []
