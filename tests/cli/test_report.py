"""report.html of real runs: written at their end and by `distillkit report`, read in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chromium import Tab, browser, chromium_path

from distillkit.cli.main import main
from distillkit.reporting.gather import gather
from distillkit.reporting.write import refresh_report, report_after
from distillkit.run.directory import RunDirectory
from distillkit.settings.resolve import resolve

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def finished(distil: Any, pair: SimpleNamespace) -> Path:
    """A run of all stages, across tokenizers."""
    texts = pair.root / "hostile.txt"
    hostile = '</script><img src=x onerror=alert(1)> & "quoted" rose from 17 to 23.\n\n'
    texts.write_text("".join(hostile + part for part in pair.texts.read_text().split("\n\n")), encoding="utf-8")
    result = distil(
        student_model_path=pair.foreign_student, dataset_path=texts, skip_validation=False, control=True, skip_demo=False,
        save_plot=True, quality_gate="off",
    )  # fmt: skip
    return result.run_directory


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, without what is large."""
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_run_ends_with_a_report(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert len(page.encode()) < 3_000_000
    assert "What this run does not tell" not in page  # Nothing is missing.
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_the_details_add_up_to_validation_json(finished: Path) -> None:
    validation, details = (read(finished / name) for name in ("validation.json", "validation_details.json"))
    documents = details["documents"]
    assert details["texts_left_out"] == 0
    for name in ("before", "control", "after", "teacher"):
        bits, size = sum(documents["bits"][name]), sum(documents["bytes"][name])
        assert bits / size == pytest.approx(validation[name]["bits_per_byte"], rel=1e-12)
        low, high = validation[name]["bits_per_byte_ci95"]
        assert low < validation[name]["bits_per_byte"] < high
        for division in details["lost"].values():
            assert sum(found["bits"] for found in division[name].values()) == pytest.approx(bits, rel=1e-9)
            assert sum(found["bytes"] for found in division[name].values()) == size
    kinds = details["lost"]["kind"]["after"]
    assert kinds["digits"]["bytes"] > 0
    assert kinds["words"]["bytes"] > kinds["punctuation"]["bytes"] > kinds["digits"]["bytes"]


def test_the_command_gives_the_same_configuration(finished: Path) -> None:
    facts = gather(RunDirectory.open(finished))
    assert facts.command[:2] == ["distillkit", "distill"]
    given: dict[str, Any] = {}
    words = list(facts.command[2:])
    while words:
        name = words.pop(0).removeprefix("--")
        negative = name.startswith("no-") and name.replace("-", "_") not in facts.config
        key = name.removeprefix("no-" if negative else "").replace("-", "_")
        isolated = not words or words[0].startswith("--")
        given[key] = not negative if isolated else words.pop(0)
    found = resolve(given).as_dict()
    apart = {"output_dir", "folder_name"}
    assert {k: v for k, v in found.items() if k not in apart} == {
        k: v for k, v in facts.config.items() if k not in apart
    }


def test_report_writes_it_again_in_either_language(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    english = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert main(["report", "--run", str(run), "--lang", "ru", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        "command": "report", "status": "complete", "run": str(run), "report": str(run / "report.html"), "lang": "ru"
    }  # fmt: skip
    russian = (run / "report.html").read_text(encoding="utf-8")
    assert '<html lang="ru">' in russian
    assert "Ученик" in russian
    report_after(RunDirectory.open(run), {"demo": "skipped"})
    assert (run / "report.html").read_text(encoding="utf-8") == russian  # It keeps its language.
    report_after(RunDirectory.open(run), {"prepare-data": "skipped"}, "en", asked=True)
    assert (run / "report.html").read_text(encoding="utf-8") == russian  # Nothing that it tells has changed.
    assert main(["report", "--run", str(run), "--quiet"]) == 0
    # The name of the folder is the name of the run.
    assert (run / "report.html").read_text(encoding="utf-8") == english.replace(read_name(english), "run")
    kept = (run / "report.html").stat().st_mtime_ns
    assert main(["report", "--run", str(run), "--quiet"]) == 0
    assert (run / "report.html").stat().st_mtime_ns == kept
    assert main(["report", "--run", str(run), "--lang", "fr"]) == 2
    assert "--lang en or --lang ru" in capsys.readouterr().err


def read_name(page: str) -> str:
    found = re.search("<bdi>(.*?)</bdi>", page)
    assert found is not None
    return found[1]


def test_an_exported_student_is_told_of(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "llama-cli" not in page
    assert "distillkit export --run . --dtype q8_0" in page
    (run / "export").mkdir()
    (run / "export" / "a b.gguf").write_bytes(bytes(1500))
    refresh_report(RunDirectory.open(run))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "llama-cli -m &#x27;export/a b.gguf&#x27;" in page
    assert "1.5\xa0kB" in page
    (run / "report.html").unlink()
    refresh_report(RunDirectory.open(run))
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("works", [True, False])
def test_open_shows_it(
    run: Path, works: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or works)
    assert main(["report", "--run", str(run), "--open"]) == 0
    assert shown == [(run / "report.html").as_uri()]
    assert ("there is no browser here" in capsys.readouterr().err) is not works


def test_a_run_that_only_trained_says_what_is_missing(distil: Any) -> None:
    folder = distil(save_metrics=False).run_directory
    page = (folder / "report.html").read_text(encoding="utf-8")
    for part in (
        "nothing is known of its quality",
        "validation was skipped",
        "No control was trained",
        "the demo was skipped",
    ):
        assert part in page
    # Without metrics.jsonl the checkpoint has the curve.
    assert page.count("<polyline") > 2


def test_a_run_that_has_begun_has_a_report_too(cli_pair: list[str], tmp_path: Path) -> None:
    place = ["--output-dir", str(tmp_path), "--folder-name", "begun"]
    assert main(["prepare-data", *cli_pair, *place, "--quiet"]) == 0
    folder = tmp_path / "begun"
    assert not (folder / "report.html").exists()
    manifest = RunDirectory.open(folder)
    manifest.begin_stage("distill", {})
    assert main(["report", "--run", str(folder), "--quiet"]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The training has not come to its end" in page
    assert "was cut off before its end" in page
    assert "as the same" in page  # Both tokenizers are one, which the text token by token shows.


def test_black_box_has_a_report(distil: Any, pair: SimpleNamespace) -> None:
    folder = distil(box_type="black", student_model_path=pair.foreign_student, skip_validation=False).run_directory
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Black box" in page
    assert "texts that the teacher wrote" in page
    assert "soft: what the teacher says" not in page


def test_a_damaged_file_is_named_and_the_rest_is_told(run: Path) -> None:
    (run / "demo.json").write_text("{", encoding="utf-8")
    (run / "data" / "stats.json").write_text("[]", encoding="utf-8")
    assert main(["report", "--run", str(run), "--quiet"]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "A file of the run cannot be read: demo.json is damaged" in page
    assert "stats.json is damaged" in page
    assert str(run) not in page
    assert "The student" in page


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = chromium_path()
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started.tab()


FIGURES = """Array.from(document.querySelectorAll('data[data-of]'))
  .filter(one => one.dataset.of.startsWith('validation.'))
  .map(one => [one.dataset.of, one.value, one.textContent])"""


def test_a_browser_has_nothing_to_say_and_nothing_to_fetch(finished: Path, tab: Tab) -> None:
    tab.look(1440)
    tab.open(finished / "report.html")
    assert tab.run("document.querySelectorAll('section').length") >= 10
    assert tab.named("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown") == []
    requested = [event["request"]["url"] for event in tab.named("Network.requestWillBeSent")]
    assert requested == [(finished / "report.html").as_uri()]
    assert tab.run("document.images.length + document.scripts.length") == 0


def test_the_figures_in_a_browser_are_those_of_validation_json(finished: Path, tab: Tab) -> None:
    tab.open(finished / "report.html")
    validation = read(finished / "validation.json")
    shown = tab.run(FIGURES)
    assert len(shown) > 40
    for path, value, text in shown:
        found: Any = validation
        for key in path.split(".")[1:]:
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert float(value) == found, path
        digits = text.replace("−", "-").replace(",", "").rstrip(" %")
        if re.fullmatch(r"[+-]?\d+\.\d+", digits) and "million" not in text:
            scale = 100 if text.endswith("%") else 1
            assert float(digits) == pytest.approx(scale * found, abs=0.51 * 10.0 ** -len(digits.partition(".")[2])), (
                path
            )
    listed = {path for path, _, _ in shown}
    for name in ("before", "control", "after", "teacher"):
        assert f"validation.{name}.bits_per_byte" in listed


SHIFTS = """new Promise(done => {
  let moved = 0;
  new PerformanceObserver(list => list.getEntries().forEach(one => moved += one.value))
    .observe({type: 'layout-shift', buffered: true});
  requestAnimationFrame(() => setTimeout(() => done(moved), 50));
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_a_page_fits_phones_and_desks_in_both_schemes(finished: Path, tab: Tab, width: int, scheme: str) -> None:
    tab.look(width, scheme)
    tab.open(finished / "report.html")
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.run(SHIFTS) == 0
    tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 384) is (scheme == "dark")
    # Of each picture one drawing is shown, the one for this width.
    wanted = "narrow" if width == 360 else "wide"
    shown = "Array.from(document.querySelectorAll('figure > svg')).filter(one => one.getClientRects().length)"
    assert tab.run(f"new Set({shown}.map(one => one.getAttribute('class'))).size") == 1
    assert tab.run(f"{shown}[0].getAttribute('class')") == wanted
    # No letter of a picture lies outside of it.
    outside = f"""{shown}.flatMap(svg => Array.from(svg.querySelectorAll('text')).filter(text => {{
      const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
      return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.bottom > outer.bottom + 1;
    }}).map(text => text.textContent))"""
    assert tab.run(outside) == []


def test_it_prints_on_a4(finished: Path, tab: Tab) -> None:
    tab.look(700, "dark", media="print")
    tab.open(finished / "report.html")
    # Paper is white, whatever the screen.
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("getComputedStyle(document.body).color") == "rgb(29, 31, 33)"
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    printed = tab.send("Page.printToPDF", preferCSSPageSize=True)["data"]
    assert printed.startswith("JVBERi0")


def test_the_keyboard_reaches_everything_that_folds_or_scrolls(finished: Path, tab: Tab) -> None:
    tab.look(360)
    tab.open(finished / "report.html")
    reached = "Array.from(document.querySelectorAll('a, summary, [tabindex=\"0\"]')).every(one => one.tabIndex === 0)"
    assert tab.run(reached)
    scrolling = """Array.from(document.querySelectorAll('*')).filter(one => one.scrollWidth > one.clientWidth + 1
      && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX)).every(one => one.tabIndex === 0)"""
    assert tab.run(scrolling)
    for kind in ("rawKeyDown", "keyUp"):
        tab.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert tab.run("document.activeElement.className") == "skip"
    assert tab.run("document.activeElement.getBoundingClientRect().left >= 0")
