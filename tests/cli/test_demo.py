"""`distillkit demo`: its record, texts of one's own that leave it alone, how they are drawn, and who takes part."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from json_objects import problems

from distillkit.console import Console

Run = Callable[..., Any]
GREEDY = {"temperature": 0.0, "new_tokens": 12}


@pytest.fixture(scope="module")
def run(distil: Callable[..., Any]) -> Path:
    """A run with a demo; tests that make it anew leave it complete."""
    return Path(distil(skip_demo=False).run_directory)


@pytest.fixture(scope="module")
def models(run: Path) -> Any:
    from distillkit.chatting.side_by_side import SideBySide
    from distillkit.run.directory import RunDirectory
    from distillkit.settings.parameters import Parameters

    directory = RunDirectory.open(run)
    return SideBySide.of_run(Parameters(**directory.manifest.config), directory, Console(quiet=True))


@pytest.fixture(scope="module")
def writer(models: Any) -> Any:
    return models.load("teacher")


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "demo.json").read_text(encoding="utf-8"))


def test_texts_of_ones_own_leave_the_record_alone(command: Run, run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("demo.json", "manifest.json", "report.html")}
    done = command("demo", "--run", run, "--prompt", "Once [b]upon", "--prompt", "a time", "--new-tokens", "5")
    assert "Once [b]upon" in done.out
    assert "tokens/s" in done.out
    assert "at most 5 tokens" in done.err
    shown = command("demo", "--run", run, "--prompt", "Once", "--new-tokens", "5", "--json").json
    assert {"command", "status", "run", "stages", "result", "demo"} == set(shown)
    assert [text["prompt"] for text in shown["demo"]["texts"]] == ["Once"]
    assert {name: (run / name).read_bytes() for name in before} == before


def test_the_record_tells_how_it_was_made(run: Path) -> None:
    found = record(run)
    assert {"teacher", "before", "after"} == set(found["models"])
    for name, speed in found["models"].items():
        assert speed["tokens"] == sum(texts[name]["tokens"] for texts in found["figures"])
        assert speed["tokens_per_second"] == pytest.approx(speed["tokens"] / speed["seconds"], rel=0.1, abs=0.1)
    assert (found["temperature"], found["top_p"], found["top_k"], found["seed"]) == (0.7, 0.9, 0, 42)
    assert len(found["figures"]) == len(found["texts"])
    assert "Tokens per second" in (run / "report.html").read_text(encoding="utf-8")


def test_a_record_made_with_options_stays_in_a_whole_run(command: Run, run: Path) -> None:
    """A whole run leaves it alone; `demo` alone makes the usual one again."""
    command("demo", "--run", run, "--temperature", "0", "--no-teacher", "--new-tokens", "6")
    made = record(run)
    assert set(made["texts"][0]) == {"prompt", "before", "after"}
    assert (made["temperature"], made["new_tokens"]) == (0, 6)
    assert made["left_out"] == {"teacher": {"why": "asked"}}
    assert "The teacher was left out" in (run / "report.html").read_text(encoding="utf-8")
    planned = command("distill", "--run", run, "--dry-run", "--json").json["stages"]["demo"]
    assert planned == "skip, complete"
    assert command("distill", "--run", run, "--json").json["stages"]["demo"]["state"] == "skipped"
    assert record(run) == made
    command("demo", "--run", run, "--quiet")
    assert (record(run)["temperature"], record(run)["left_out"]) == (0.7, {})


def test_a_teacher_that_does_not_fit_is_left_out_and_named(
    command: Run, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit.chatting import side_by_side

    weigh = side_by_side.teacher_memory
    monkeypatch.setattr(
        side_by_side, "teacher_memory", lambda *given: dataclasses.replace(weigh(*given), free_bytes=1000)
    )
    done = command("demo", "--run", run, "--prompt", "Once", "--new-tokens", "3")
    assert "the teacher is left out: its weights take" in done.err
    assert "teacher" not in done.out
    assert "teacher" in command("demo", "--run", run, "--prompt", "Once", "--new-tokens", "3", "--teacher").out


def test_lines_of_a_pipe_are_continued_one_by_one(command: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run / "demo.json").read_bytes()
    for more, answers in (([], 2), (["--prompt", "First"], 3)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("One\n\nTwo\n/quit\nThree\n"))
        done = command("demo", "--run", run, "--interactive", "--json", "--new-tokens", "3", *more)
        objects = [json.loads(line) for line in done.out.splitlines()]
        assert [problem for item in objects for problem in problems(item)] == []
        said = [item["demo"]["texts"][0] for item in objects]
        assert [text["prompt"] for text in said] == ["First", "One", "Two"][-answers:]
        assert all({"teacher", "before", "after"} <= set(text) for text in said)
    assert (run / "demo.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--prompt", " "], "--prompt"),
        (["--prompt", "x", "--top-p", "0"], "--top-p"),
        (["--prompt", "x", "--temperature", "-1"], "--temperature"),
        (["--prompt", "x", "--temperature", "nan"], "--temperature"),
        (["--prompt", "x", "--top-k", "-1"], "--top-k"),
        (["--prompt", "x", "--repetition-penalty", "0"], "--repetition-penalty"),
        (["--prompt", "x", "--new-tokens", "0"], "--new-tokens"),
        (["--prompt", "x", "--seed", "-1"], "--seed"),
        (["--prompt", "x", "--force"], "--force"),
        (["--interactive", "--force"], "--interactive"),
    ],
)
def test_what_cannot_be_drawn_is_refused(command: Run, run: Path, arguments: list[str], named: str) -> None:
    before = (run / "manifest.json").read_bytes()
    done = command("demo", "--run", run, *arguments, code=2)
    assert f"error: {named}" in done.err or named in done.err.split("hint")[0]
    assert "hint: " in done.err
    assert (run / "manifest.json").read_bytes() == before


# --- how texts are drawn ----------------------------------------------------------------------------------------------


def naive(writer: Any, prompt: str, count: int, penalty: float = 1.0) -> list[int]:
    """The likeliest token again and again, everything read anew each time, in float64."""
    tokenizer = writer.encoder.tokenizer
    ids = writer.encoder.with_specials(writer.encoder.token_ids(prompt), ends=False)
    begin, model = len(ids), writer.model.double()
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].clone()
        for token in set(ids):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        ids = [*ids, int(logits.argmax())]
        if ids[-1] == tokenizer.eos_token_id:
            break
    model.float()
    return ids[begin:]


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_texts_are_those_of_a_plain_loop(writer: Any, penalty: float) -> None:
    from distillkit.chatting.sampling import Sampling

    prompt = "Once upon a time"
    found = writer.write(prompt, Sampling(1, **GREEDY, repetition_penalty=penalty))  # type: ignore[arg-type]
    ids = naive(writer, prompt, 12, penalty)
    ended = ids[-1] == writer.encoder.tokenizer.eos_token_id
    assert (found.tokens, found.finish) == (len(ids) - ended, "end" if ended else "length")
    assert found.text == writer.encoder.tokenizer.decode(ids[: found.tokens])


def test_seed_and_width_of_the_draws(writer: Any) -> None:
    from distillkit.chatting.sampling import Sampling

    def text(**given: Any) -> str:
        return writer.write(
            "Once upon a time", Sampling(**{"seed": 1, "new_tokens": 12, "temperature": 5.0, "top_p": 1.0} | given)
        ).text

    assert text() == text()
    assert text(seed=2) != text()
    assert text(top_k=1) == text(temperature=0.0) == text(top_p=1e-6)
    assert text() != text(temperature=0.0)


def test_settings_of_a_model_itself_do_not_count(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.chatting.sampling import Sampling

    ways = [Sampling(1, new_tokens=12, temperature=5.0, top_p=1.0), Sampling(1, new_tokens=12, temperature=0.0)]
    before = [writer.write("Once upon a time", way).text for way in ways]
    own = {
        "top_k": 1,
        "min_p": 0.9,
        "typical_p": 0.1,
        "repetition_penalty": 9.0,
        "no_repeat_ngram_size": 1,
        "num_beams": 2,
    }
    for name, value in own.items():
        monkeypatch.setattr(writer.model.generation_config, name, value)
    assert [writer.write("Once upon a time", way).text for way in ways] == before


def test_a_text_can_be_stopped(writer: Any) -> None:
    from distillkit.chatting.sampling import Sampling

    asked: list[int] = []
    found = writer.write("Once", Sampling(1, new_tokens=12), lambda: bool(asked.append(1)) or len(asked) == 3)
    assert (found.finish, found.tokens) == ("stopped", 3)


# --- what is said of them ---------------------------------------------------------------------------------------------


def test_loops_and_noise_are_named(models: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from distillkit.chatting.sampling import Sampling
    from distillkit.chatting.side_by_side_words import show_texts
    from distillkit.chatting.writing import Written

    written = {
        "before": [Written("the cat and the dog, " * 12, 60, 2.0, "length")],
        "after": [Written("\ufffd\ufffd\ufffd\x00 ab", 6, 1.0, "length")],
        "teacher": [Written("", 0, 0.1, "end")],
    }
    found = models.record(["Once"], written, Sampling(1))
    assert [found["figures"][0][name]["fault"] for name in written] == ["repetition", "not text", "empty"]
    assert Written("s" * 34, 20, 1.0, "length").record()["fault"] == "repetition"
    assert Written("A sentence that says one thing, and then another.", 12, 1.0, "end").record()["fault"] is None
    show_texts(found, Console())
    shown = capsys.readouterr().out
    share = found["figures"][0]["before"]["repeated_share"]
    pieces = [("the cat and the dog, " * 12)[:-1][place : place + 20] for place in range(12 * 21 - 20)]
    assert share == pytest.approx(1 - len(set(pieces)) / len(pieces), abs=2e-3)
    assert f"(repeats itself: {100 * share:.0f} % of it was there before)" in shown
    assert "(signs that are no text)" in shown
    assert "(writes nothing)" in shown
    assert "30.0" in shown
    assert "1 of 1" in shown
