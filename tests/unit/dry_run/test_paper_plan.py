"""docs/scale.md holds what benchmarks/scale/plan.py computes from the code as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_paper_plan_is_up_to_date() -> None:
    plan = runpy.run_path(str(ROOT / "benchmarks" / "scale" / "plan.py"))
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert plan["with_plan"](page) == page, "python benchmarks/scale/plan.py --write docs/scale.md"
