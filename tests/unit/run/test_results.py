"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillkit.run.results import DistillResult, result_table


def figures(**more: Any) -> dict[str, Any]:
    return {"bits_per_byte": 1.5, "perplexity": 9.0, "parameters": 7, **more}


def test_whether_answers_stop_is_a_column_only_where_it_was_asked() -> None:
    plain = DistillResult(Path("run"), before=figures(), after=figures())
    columns, rows = result_table(plain)
    assert columns == ["", "bits per byte", "perplexity", "parameters"]
    assert rows == [["student before", "1.5000", 9.0, 7], ["student after", "1.5000", 9.0, 7]]
    asked = DistillResult(Path("run"), before=figures(), after=figures(answers={"asked": 24, "stopped": 18}))
    columns, rows = result_table(asked)
    assert columns[-1] == "answers that stop"
    assert [row[-1] for row in rows] == ["–", "18 of 24"]
