"""metrics.jsonl: written at once, cut back on resume, read though its last line is torn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillkit.errors import DistillkitError
from distillkit.training.metrics_log import MetricsLog, read_metrics


def written(path: Path, *steps: int) -> Path:
    log = MetricsLog(path, resumed_step=0)
    for step in steps:
        log.append({"step": step, "loss": step / 7})
    return path


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_metrics(path)]


def test_every_line_can_be_read_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", resumed_step=0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    for step in (0, 1):
        log.append({"step": step, "loss": 0.1 + step, "words": "“é”"})
        assert read_metrics(tmp_path / "metrics.jsonl")[-1] == {"step": step, "loss": 0.1 + step, "words": "“é”"}
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 2


def test_resuming_drops_the_lines_that_come_again(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 0, 1, 5, 5, 6, 7)
    before = path.read_text(encoding="utf-8").splitlines(keepends=True)
    log = MetricsLog(path, resumed_step=5)
    assert path.read_text(encoding="utf-8") == "".join(before[:4])
    log.append({"step": 6})
    assert steps(path) == [0, 1, 5, 5, 6]


def test_a_fresh_start_begins_an_empty_file(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 0, 1, 2)
    MetricsLog(path, resumed_step=0)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "metrics.jsonl", 0, 1, 2)
    path.write_bytes(path.read_bytes()[:-cut])
    # Only the line break may be missing without the line being torn.
    assert steps(path) == ([0, 1, 2] if cut == 1 else [0, 1])
    log = MetricsLog(path, resumed_step=2)
    log.append({"step": 3})
    assert steps(path) == ([0, 1, 2, 3] if cut == 1 else [0, 1, 3])
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def test_torn_inside_a_character_and_foreign_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes('{"step": 1}\n\n[1]\n{"loss": 2}\n{"step": "2"}\n{"step": 3, "words": "é'.encode()[:-1])
    assert read_metrics(path) == [{"step": 1}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_nothing_is_written_without_a_path(tmp_path: Path) -> None:
    MetricsLog(None, resumed_step=3).append({"step": 4})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_lacks_is_refused(tmp_path: Path, value: float) -> None:
    path = written(tmp_path / "metrics.jsonl", 1)
    with pytest.raises(ValueError, match="JSON"):
        MetricsLog(path, resumed_step=1).append({"step": 2, "loss": value})
    assert steps(path) == [1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", resumed_step=0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(DistillkitError, match=r"metrics\.jsonl"):
        log.append({"step": 1})
