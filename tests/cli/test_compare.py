"""`distillkit compare` and `runs`: real runs beside one another, recorded and scored again, refused where they must be."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chromium import Tab, browser, chromium_path
from conversation_runs import chat_models, conversations

from distillkit.comparing.leaks import letters
from distillkit.console import Console
from distillkit.data.examples import load_examples
from distillkit.run.directory import RunDirectory
from distillkit.settings.resolve import resolve

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def made(distil: Any, pair: SimpleNamespace) -> SimpleNamespace:
    """`a` and `b` hold out the same texts; `other` has another tokenizer, another seed, no validation, and more texts."""

    def run(**settings: Any) -> Path:
        return distil(**{"held_out_size": 10, "quality_gate": "off", **settings}).run_directory

    return SimpleNamespace(
        a=run(skip_validation=False, control=True),
        b=run(skip_validation=False, temperature=4.0, learning_rate=1e-2),
        other=run(student_model_path=pair.foreign_student, seed=7, sample_size=90),
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_recorded_scores_are_compared_as_they_are(command: Run, made: SimpleNamespace, tmp_path: Path) -> None:
    found = command("compare", made.a, made.b, "--out", tmp_path, "--json").json
    assert found["texts"]["how"] == "shared"
    assert [run["scored_again"] for run in found["runs"]] == [False, False]
    assert set(found["settings"]) == {"temperature", "learning_rate", "control"}
    assert found["notes"] == []
    validations = [read(run / "validation.json") for run in (made.a, made.b)]
    assert found["texts"]["documents"] == validations[0]["documents"]
    for run, validation in zip(found["runs"], validations, strict=True):
        assert set(run["scores"]) == {"before", "control", "after", "teacher"} & set(validation)
        for model, score in run["scores"].items():
            assert score["bits_per_byte"] == pytest.approx(validation[model]["bits_per_byte"], rel=1e-12)
            assert score["ci95"] == pytest.approx(validation[model]["bits_per_byte_ci95"], rel=1e-9)
        assert run["gain"]["ci95"] == pytest.approx(validation["gain"]["ci95"], rel=1e-9)
        if "control" in validation:
            assert run["teacher_gain"]["ci95"] == pytest.approx(validation["teacher_gain"]["ci95"], rel=1e-9)
        assert run["parameters"] == validation["after"]["parameters"]
        assert run["total_seconds"] == pytest.approx(sum(run["seconds"].values()))
    first, second = (validation["after"]["bits_per_byte"] for validation in validations)
    assert found["runs"][1]["against_first"]["after"]["bits_per_byte"] == pytest.approx(first - second, rel=1e-9)
    assert found["runs"][1]["against_first"]["teacher"]["bits_per_byte"] == pytest.approx(0, abs=1e-12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.html", "compare.png", "compare.svg"]


@pytest.fixture(scope="module")
def again(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`found`, `page`: a comparison in which all students are scored again."""
    from distillkit.comparing.compare import compare, write_comparison

    found = compare([str(made.a), str(made.other), str(made.b)], made.a.parent, Console(quiet=True))
    page, _ = write_comparison(found, tmp_path_factory.mktemp("compared"), "en")
    return SimpleNamespace(found=found, page=page)


def test_what_another_student_has_learnt_is_left_out(made: SimpleNamespace, again: SimpleNamespace) -> None:
    test = load_examples(made.a / "data" / "test")
    learnt = [
        letters(text) for part in ("train", "validation") for text in load_examples(made.other / "data" / part)["text"]
    ]
    known = {
        number
        for number, text in zip(test["document"], map(letters, test["text"]), strict=True)
        if any(text[at : at + 50] in one for one in learnt for at in range(len(text) - 49))
    }
    texts = again.found["texts"]
    assert texts["how"] == "first run"
    assert 0 < len(known) < texts["of_documents"] == len(set(test["document"]))
    assert texts["learnt_from"] == {made.other.name: len(known)}
    assert texts["documents"] == texts["of_documents"] - len(known)
    left = [text for number, text in zip(test["document"], test["text"], strict=True) if number not in known]
    assert texts["bytes"] == sum(len(text.encode()) for text in left)
    # The sum over every token, one text after another, in float64.
    for place, folder in ((0, made.a), (1, made.other)):
        assert again.found["runs"][place]["scores"]["after"]["bits_per_byte"] == pytest.approx(
            naive_bits_per_byte(folder / "student" / "best", left), rel=1e-5
        )


def naive_bits_per_byte(folder: Path, texts: list[str]) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    bits = 0.0
    for text in texts:
        ids = [start, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        bits -= sum(float(logits[at].log_softmax(-1)[ids[at + 1]]) for at in range(len(ids) - 1)) / math.log(2)
    return bits / sum(len(text.encode()) for text in texts)


def test_all_are_scored_again_where_one_has_to_be(again: SimpleNamespace) -> None:
    first, other, last = again.found["runs"]
    assert [run["scored_again"] for run in (first, other, last)] == [True, True, True]
    assert set(first["scores"]) == {"before", "control", "after", "teacher"}
    assert set(other["scores"]) == {"before", "after", "teacher"}  # It has no control.
    assert last["against_first"]["teacher"]["bits_per_byte"] == 0  # The same teacher, which is scored once.
    assert other["against_first"]["teacher"]["bits_per_byte"] == 0
    assert last["against_first"]["before"]["bits_per_byte"] == 0
    assert other["generated_tokens_per_second"] is None
    assert other["parameters"] > first["parameters"]


def test_runs_of_conversations_are_scored_by_their_answers(distil: Any, tmp_path: Path) -> None:
    from distillkit.comparing.compare import compare

    models = chat_models(tmp_path)
    rows = [{"messages": [{"role": turn.role, "content": turn.text} for turn in document.conversation.turns]}
            for document in conversations(60).splits["all"] if document.conversation]  # fmt: skip
    texts = tmp_path / "chats.jsonl"
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    runs = [
        distil(teacher_model_path=models.teacher, student_model_path=student, dataset_path=texts, max_length=200,
               sample_size=12, batch_size=4, teacher_cache="off").run_directory
        for student in (models.same, models.llama3)
    ]  # fmt: skip
    found = compare([str(run) for run in runs], tmp_path, Console(quiet=True))
    assert found["texts"]["how"] == "shared"
    # One template is longer than the other, so that some conversations are cut for one student and not for the other.
    shared = set.intersection(*map(documents_of, runs))
    said = [json.loads(line) for pieces in shared for piece in pieces for line in piece.split("\n")]
    assert found["texts"]["documents"] == len(shared) <= found["texts"]["of_documents"]
    assert found["texts"]["bytes"] == sum(len(text.encode()) for role, text in said if role == "assistant")
    assert all(math.isfinite(run["scores"]["after"]["bits_per_byte"]) for run in found["runs"])
    with pytest.raises(Exception, match="was trained on conversations and"):
        compare([str(runs[0]), str(distil().run_directory)], tmp_path, Console(quiet=True))


def documents_of(run: Path) -> set[frozenset[str]]:
    """The held-out documents of a run, each as the pieces that were taken of it."""
    stored = load_examples(run / "data" / "test")
    rows = list(zip(stored["document"], stored["text"], strict=True))
    return {frozenset(text for number, text in rows if number == wanted) for wanted, _ in rows}


def test_what_cannot_be_compared_is_refused_with_what_mends_it(
    command: Run, made: SimpleNamespace, tmp_path: Path
) -> None:
    unfinished = RunDirectory.create(tmp_path / "unfinished", resolve({}))
    older = shutil.copytree(made.b, tmp_path / "older", ignore=shutil.ignore_patterns("checkpoints"))
    manifest = older / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 0'), encoding="utf-8")
    textless = shutil.copytree(made.b, tmp_path / "textless", ignore=shutil.ignore_patterns("test"))
    for given, code, words, hint in (
        ([made.a], 2, "one run alone", "distillkit compare RUN RUN"),
        ([made.a, made.a], 2, "is named twice", "distillkit compare RUN RUN"),
        ([made.a, "absent"], 2, "compare: 'absent' does not exist", "distillkit runs"),
        ([made.a, unfinished.path], 3, "its texts are not prepared", f"distillkit distill --run {unfinished.path}"),
        ([made.a, older], 3, "schema version 0", "use the version of distillkit that made it"),
        ([made.a, textless], 3, "its test texts are needed", f"distillkit prepare-data --run {textless} --force"),
        ([made.a, made.b, "--lang", "fr"], 2, "--lang", "--lang en or --lang ru"),
        ([made.a, made.b, "--out", older / "config.yaml" / "x"], 2, "config.yaml is a file", "--out DIR"),
    ):
        done = command("compare", "--out", tmp_path / "none", *given, code=code)
        assert words in done.err
        assert hint in done.err
        assert done.out == ""
    assert not (tmp_path / "none").exists()


def test_it_is_written_to_where_the_first_run_lies_and_a_place_that_fails_is_said(
    command: Run, made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = shutil.copytree(made.a, tmp_path / "away" / "a", ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.chdir(tmp_path)
    assert command("compare", away, made.b, "--json").json["page"] == str(tmp_path / "away" / "compare.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away"]
    # Nobody waits for scores that cannot be written then.
    monkeypatch.setattr("os.access", lambda *_: False)
    assert (
        "away is read-only\nhint: name a folder that can be written: --out DIR"
        in command("compare", away, made.other, code=1).err
    )
    monkeypatch.undo()
    (tmp_path / "page" / "compare.html").mkdir(parents=True)
    failed = command("compare", away, made.b, "--out", tmp_path / "page", code=1).err
    assert "compare.html" in failed
    assert "--out DIR" in failed
    assert "--output-dir" not in failed


def test_a_student_that_is_gone_keeps_what_was_recorded(command: Run, made: SimpleNamespace, tmp_path: Path) -> None:
    gone = shutil.copytree(made.b, tmp_path / "gone", ignore=shutil.ignore_patterns("checkpoints"))
    shutil.rmtree(gone / "student")
    out = ["--out", tmp_path / "out"]
    recorded = command("compare", made.a, gone, *out, "--json").json
    assert [run["scored_again"] for run in recorded["runs"]] == [False, False]
    refused = command("compare", made.a, gone, made.other, *out, code=3)
    assert "gone: its student has to be scored on the texts of this comparison, and student/best/" in refused.err
    assert f"distillkit distill --run {gone} --force" in refused.err
    unmeasured = shutil.copytree(made.a, tmp_path / "unmeasured", ignore=shutil.ignore_patterns("validation*"))
    mixed = command("compare", unmeasured, gone, *out, "--json", "--students-only").json
    assert [run["scored_again"] for run in mixed["runs"]] == [True, False]
    assert [note["note"] for note in mixed["notes"]] == ["student_gone"]
    assert "teacher" not in mixed["runs"][0]["scores"]
    again, validated = mixed["runs"][0]["scores"]["after"], read(made.a / "validation.json")["after"]
    assert again["bits_per_byte"] == pytest.approx(validated["bits_per_byte"], rel=1e-5)


def test_models_that_are_gone_leave_the_students(
    command: Run, made: SimpleNamespace, pair: SimpleNamespace, tmp_path: Path
) -> None:
    hidden = pair.teacher.with_name("hidden")
    pair.teacher.rename(hidden)
    try:
        found = command("compare", made.a, made.other, "--out", tmp_path, "--json").json
    finally:
        hidden.rename(pair.teacher)
    assert [note["note"] for note in found["notes"]] == ["origin_gone", "origin_gone"]
    assert set(found["runs"][0]["scores"]) == {"control", "after"}


TABLES = {
    "en": ("Bits per byte on the same texts", "95 % interval", "Settings that differ", "temperature", "Cost, size, speed", "time of training"),
    "ru": ("Бит на байт на одних текстах", "95 %-й интервал", "Различия в настройках", "temperature", "Затраты, размер, скорость",
           "время обучения", "Сравнение на"),
}  # fmt: skip


@pytest.mark.parametrize("lang", TABLES)
def test_tables_in_a_narrow_place(command: Run, made: SimpleNamespace, tmp_path: Path, lang: str) -> None:
    done = command(
        "compare", made.a.name, made.b.name, "--output-dir", made.a.parent, "--out", tmp_path, "--lang", lang
    )
    for part in TABLES[lang]:
        assert part in done.out
    assert f"page: {tmp_path / 'compare.html'}" in done.out
    assert f'<html lang="{lang}">' in (tmp_path / "compare.html").read_text(encoding="utf-8")


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = chromium_path()
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started.tab()


def test_a_browser_shows_the_figures_and_nothing_else(again: SimpleNamespace, tab: Tab) -> None:
    for width, scheme in ((360, "dark"), (1440, "light")):
        tab.look(width, scheme)
        tab.open(again.page)
        assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.named("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown") == []
        assert [event["request"]["url"] for event in tab.named("Network.requestWillBeSent")] == [again.page.as_uri()]
        outside = """Array.from(document.querySelectorAll('figure > svg')).filter(one => one.getClientRects().length)
          .flatMap(svg => Array.from(svg.querySelectorAll('text')).filter(text => {
            const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
            return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.bottom > outer.bottom + 1;
          }).map(text => text.textContent))"""
        assert tab.run(outside) == []
    shown = tab.run("Array.from(document.querySelectorAll('data[data-of]')).map(one => [one.dataset.of, one.value])")
    assert len(shown) > 40
    for path, value in shown:
        found: Any = again.found
        for key in path.split(".")[1:]:
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert float(value) == found, path
    tab.look(700, "dark", media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.send("Page.printToPDF", preferCSSPageSize=True)["data"].startswith("JVBERi0")


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(made: SimpleNamespace, tmp_path: Path) -> Path:
    """A folder of two runs: `a`, and one with a long name that was not measured."""
    for name, run in (("a", made.a), ("gpt2_to_a-student-with-a-long-name_white_texts_20260105-120000", made.other)):
        shutil.copytree(run, tmp_path / "out" / name, ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "out"


def test_the_list_of_runs(command: Run, runs: Path, made: SimpleNamespace) -> None:
    listed = {run["name"]: run for run in command("runs", "--output-dir", runs, "--json").json["runs"]}
    validation = read(made.a / "validation.json")
    a = listed["a"]
    assert (a["status"], a["verdict"]) == ("complete", validation["verdict"])
    assert a["teacher_share"] == validation["teacher_gain"]["bits_per_byte"]
    assert a["disk_bytes"] == sum(path.stat().st_size for path in (runs / "a").rglob("*") if path.is_file())
    assert Path(a["teacher_model"]).name == "teacher"
    assert a["seconds"] > 0
    words = command("runs", "--output-dir", runs).out  # Too wide for a table: names stay whole.
    assert "\ngpt2_to_a-student-with-a-long-name_white_texts_20260105-120000\n" in words
    assert "  training: complete, not measured" in words
    assert "teacher's share: " in words
    shutil.rmtree(next(path for path in runs.iterdir() if path.name.startswith("gpt2")))
    assert "teacher's share" in command("runs", "--output-dir", runs).out.splitlines()[2]


def test_one_run_is_shown(command: Run, runs: Path) -> None:
    words = command("runs", "show", "a", "--output-dir", runs).out
    for part in (
        "Run a",
        "Settings that are not the defaults",
        "Stages",
        "Size on the disk",
        "bits per byte",
        "student: ",
    ):
        assert part in words
    shown = command("runs", "show", "a", "--output-dir", runs, "--json").json["run"]
    assert shown["stages"]["distill"]["status"] == "complete"
    assert sum(shown["disk"].values()) == shown["disk_bytes"]
    assert "sample_size" in shown["settings"]
    assert "name one run" in command("runs", "show", "--output-dir", runs, code=2).err
    assert "runs show: 'none' does not exist" in command("runs", "show", "none", "--output-dir", runs, code=2).err
    assert (
        f"see: distillkit runs --output-dir {runs}" in command("runs", "show", "none", "--output-dir", runs, code=2).err
    )
    assert "is not an action" in command("runs", "drop", "a", "--output-dir", runs, code=2).err


def test_runs_are_removed_once_somebody_has_agreed(command: Run, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rm = ["runs", "rm", "--output-dir", runs]
    assert "name the runs to remove" in command(*rm, code=2).err
    assert "File name too long" in command(*rm, "a" * 300, code=2).err
    assert f"see: distillkit runs --output-dir {runs}" in command(*rm, "absent", code=2).err
    shutil.copytree(runs / "a", runs / ("ö" * 125))  # 250 bytes: nothing can be put before such a name
    assert len(command(*rm, "ö" * 125, "--yes", "--json").json["removed"]) == 1
    refused = command(*rm, "a", code=2)
    assert f"distillkit runs rm a --yes --output-dir {runs}" in refused.err
    monkeypatch.setattr(Console, "can_ask", True)
    for answer, left in (("\n", True), ("", True), ("yes\n", False)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(readline=lambda answer=answer: answer))
        done = command(*rm, "a")
        assert "Remove this run for good? [y/N]" in done.err
        assert ("nothing was removed" in done.err) is left
        assert (runs / "a").exists() is left
    other = next(path.name for path in runs.iterdir() if path.name.startswith("gpt2"))
    (runs / other).rename(runs / ".tmp-removed-before")
    assert "a removal was cut off" in command("runs", "--output-dir", runs).err
    assert command(*rm, "--json").json["finished"] == [str(runs / ".tmp-removed-before")]
    assert not any(path.is_dir() for path in runs.iterdir())
