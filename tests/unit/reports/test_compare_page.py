"""compare.html and its picture from a made-up comparison: every figure is the comparison's, hostile texts do no harm."""

from __future__ import annotations

import copy
import importlib.util
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from distillkit.reports.compare_plot import draw_comparison
from distillkit.reports.html.comparison.facts import MODELS, ComparisonFacts
from distillkit.reports.html.comparison.page import SECTIONS, comparison_page
from distillkit.reports.html.comparison.sentences import ComparisonWriter, differences, headline, notes
from distillkit.reports.html.elements import plain
from distillkit.reports.html.words import LANGUAGES, words
from distillkit.reports.html.writer import looked_up
from distillkit.reports.run_names import short_names

_spec = importlib.util.spec_from_file_location("report_page", Path(__file__).with_name("test_html_page.py"))
assert _spec is not None
assert _spec.loader is not None
_report = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_report)
Page, HOSTILE, SHOWN = _report.Page, _report.HOSTILE, _report.SHOWN

LONG = "SmolLM2-135M-Instruct.Q4_1_to_teacher-layers-10_white_python-docs_20260105-"


def made_run(name: str, after: float, *, gain: float | None, **changes: Any) -> dict[str, Any]:
    verdict = "not shown" if gain is None or abs(gain) < 0.02 else "better" if gain > 0 else "worse"
    to_first = None if gain is None else {
        model: {"bits_per_byte": gain, "ci95": [gain - 0.02, gain + 0.02], "verdict": verdict} for model in MODELS
    }  # fmt: skip
    share = {"bits_per_byte": 0.11, "ci95": [0.05, 0.17], "verdict": "better"}
    run: dict[str, Any] = {
        "name": name, "run": f"/runs/{name}", "created": "2026-01-05T12:00:00+00:00", "distillkit": "1.2.3",
        "teacher_model": HOSTILE, "student_model": "distilgpt2", "box_type": "white", "verdict": "improved",
        "scored_again": False,
        "scores": {model: {"bits_per_byte": bits, "ci95": [bits - 0.1, bits + 0.1]}
                   for model, bits in (("before", 2.0), ("control", after + 0.11), ("after", after), ("teacher", 1.0))},
        "gain": share, "teacher_gain": share, "gap_closed": 0.5, "against_first": to_first,
        "parameters": 12_345_678, "size_bytes": 49_382_712, "generated_tokens_per_second": 54.3, "perplexity": 12.0,
        "answers": None, "seconds": {"distill": 3700.0, "validate": 12.5}, "total_seconds": 3712.5,
        "train": {"steps": 500, "tokens": 10_016, "tokens_per_second": 163.8, "peak_memory_bytes": 5_454_913_536},
        "teacher_pass": {"tokens": 5000, "seconds": 9.0, "cache_bytes": 1_000_000}, "disk_bytes": 987_654_321,
        "device": {"type": "cpu", "name": "Some CPU", "precision": "bf16"},
    }  # fmt: skip
    return {**run, **changes}


def made(count: int = 2, **changes: Any) -> dict[str, Any]:
    gains = [None, 0.05, -0.07, 0.004, 0.05]
    names = [HOSTILE, *(f"{LONG}{number}" for number in range(9))]
    runs = [made_run(names[number], 1.5 - (gains[number] or 0), gain=gains[number]) for number in range(count)]
    return {
        "level": 0.95,
        "texts": {"how": "first run", "documents": 37, "bytes": 12_345, "of_documents": 40,
                  "learnt_from": {HOSTILE: 3}, "unread": 2},
        "runs": runs, "settings": {"temperature": [1.0, 2.0][:1] + [2.0] * (count - 1), "dataset": [HOSTILE] * count},
        "notes": [{"note": "origin_gone", "run": HOSTILE, "why": f"{HOSTILE} is gone"}],
    } | changes  # fmt: skip


def page_of(comparison: dict[str, Any], lang: str = "en") -> Any:
    return Page(comparison_page(ComparisonFacts(comparison, "1.2.3"), lang))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_is_whole_and_its_figures_are_the_comparisons(lang: str) -> None:
    found = made(4)
    text = comparison_page(ComparisonFacts(found, "1.2.3"), lang)
    page = Page(text)
    assert text == comparison_page(ComparisonFacts(copy.deepcopy(found), "1.2.3"), lang)
    anchors = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert anchors == ["#main", *(f"#{name}" for name in SECTIONS)]
    assert page.elements[0] == ("html", {"lang": lang})
    for path, value, _ in page.figures:
        file, *keys = path.split(".")
        assert (file, float(value)) == ("comparison", looked_up(found, keys)), path
    named = {path for path, _, _ in page.figures}
    for place in range(4):
        for model in MODELS:
            assert f"comparison.runs.{place}.scores.{model}.bits_per_byte" in named
            assert (f"comparison.runs.{place}.against_first.{model}.ci95.0" in named) is (place > 0)
        assert f"comparison.runs.{place}.total_seconds" in named
    for tag, attributes in page.elements:
        assert tag not in ("script", "img", "a") or (tag == "a" and (attributes["href"] or "").startswith("#"))
        assert tag != "svg" or attributes.get("aria-label") or attributes.get("aria-hidden")
    assert "http" not in text.replace("http-equiv", "")


def test_hostile_texts_are_escaped() -> None:
    text = comparison_page(ComparisonFacts(made(), "1.2.3"), "en")
    said = "".join(Page(text).words)
    assert "<img src=x onerror=alert(1)>" in said
    assert said.count(SHOWN) >= 5  # names, models, settings, notes
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)


def test_what_is_said() -> None:
    w = ComparisonWriter(ComparisonFacts(made(4), "1"), "en")
    said = [plain(sentence) for sentence in differences(w)]
    assert said[0] == (
        f"{LONG}0 is better than {plain(w.run(HOSTILE))}: +0.0500 bits per byte, 95 % interval [+0.0300, +0.0700]"
    )
    assert said[1].startswith(f"{LONG}1 is worse than ")
    assert said[2].startswith(f"No difference is shown between {LONG}2 and ")
    assert (
        plain(headline(w))
        == f"{LONG}0 has the best score of 4 runs: 1.4500 bits per byte on texts that no student had seen"
    )
    two = made()
    two["runs"][1]["against_first"]["after"]["ci95"] = None
    w = ComparisonWriter(ComparisonFacts(two, "1"), "en")
    assert plain(headline(w)).endswith("differs from " + plain(w.run(HOSTILE)) + " by +0.0500 bits per byte; with so few documents "
                                       "that may be chance")  # fmt: skip
    page_of(two, "ru")


def test_every_note_has_its_words() -> None:
    texts = {key: text for key, text in words("en").items() if key.startswith("compare.note.")}
    given = [
        {"note": key.removeprefix("compare.note."), "run": "a", "why": "w", "theirs": "t", "ours": "o"} for key in texts
    ]
    for lang in LANGUAGES:
        said = [plain(note) for note in notes(ComparisonWriter(ComparisonFacts(made(notes=given), "1"), lang))]
        assert len(set(said)) == len(texts) > 7


def test_figures_that_are_not_known_become_dashes() -> None:
    found = made(3, settings={})
    bare = found["runs"][2]
    bare |= {"parameters": None, "total_seconds": None, "seconds": {}, "teacher_gain": None, "device": {}}
    for key in ("control", "teacher", "before"):
        del bare["scores"][key], bare["against_first"][key]
    page = page_of(found)
    assert "No setting differs." in "".join(page.words)
    assert not any(path.startswith("comparison.runs.2.against_first.control") for path, _, _ in page.figures)


def test_short_names_stay_apart() -> None:
    assert short_names(["a", "b" * 20], 20) == ["a", "b" * 20]
    assert short_names([f"{LONG}7", "x"], 20) == ["SmolLM2-13…20260105-7"[:11] + "20260105-7"[-9:], "x"]
    cut = short_names([f"{LONG[:40]}{number}{LONG[40:]}" for number in range(12)], 18)
    assert len(set(cut)) == 12
    assert max(map(len, cut)) <= 18
    assert cut[11].startswith("12 ")


def test_the_picture_can_be_read_where_it_is_printed_80_mm_wide(tmp_path: Path) -> None:
    picture, vector = (path.read_bytes() for path in draw_comparison(made(5), tmp_path))
    width, height = struct.unpack(">II", picture[16:24])
    # At 300 dots an inch: letters of 7.5 points are still 6.5 where it is printed 80 mm wide.
    assert 80 <= width / 300 * 25.4 < 93
    assert height < 2 * width
    assert vector.startswith(b"<?xml")
