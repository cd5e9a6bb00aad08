"""The command line as scripts and people use it: output, exit codes, what is skipped, what is refused.

Most commands run in this process through `cli.main`, which is what the console script calls.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from command_result import Done

Run = Callable[..., Done]
Subprocess = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def finished_run(
    pair: SimpleNamespace, small: dict[str, Any], offline: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of everything but the demo, made once. Tests take `finished`, a copy."""
    output = tmp_path_factory.mktemp("finished")
    from distillkit import distill_models

    settings = small | {"skip_validation": False, "save_plot": True}
    result = distill_models(
        teacher_model_path=pair.teacher, student_model_path=pair.student, dataset_path=pair.texts, output_dir=output,
        folder_name="run", quiet=True, **settings,
    )  # fmt: skip
    return result.run_directory


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run in another place, which is itself a promise: a run directory can be moved."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "latest").write_text("run\n", encoding="utf-8")
    return Path(shutil.copytree(finished_run, tmp_path / "output" / "run"))


@pytest.fixture
def prepared(command: Run, pair_file: Path, tmp_path: Path) -> Path:
    """A run whose data are prepared and that was not trained yet."""
    done = command(
        "prepare-data", "--config", pair_file, "--output-dir", tmp_path / "output", "--folder-name", "run", "--json"
    )
    assert done.states == {"prepare-data": "complete"}
    return tmp_path / "output" / "run"


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def student_bytes(run: Path) -> bytes:
    return (run / "student" / "final" / "model.safetensors").read_bytes()


def continue_arguments(done: Done) -> list[str]:
    """The arguments of the command in the last line of stderr."""
    label, _, words = done.err.splitlines()[-1].partition(": ")
    assert label == "continue with"
    program, *arguments = shlex.split(words)
    assert program == "distillkit"
    return arguments


# --- what a run does -------------------------------------------------------------------------------------------------


def test_a_whole_run_then_everything_is_skipped(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    done = command("distill", *cli_pair, "--output-dir", tmp_path, "--folder-name", "run", "--json")
    assert done.json["status"] == "complete"
    assert done.json["command"] == "distill"
    assert done.states == dict.fromkeys(("check-env", "prepare-data", "distill"), "complete")
    assert Path(done.json["result"]["student_path"], "model.safetensors").is_file()
    assert (tmp_path / "latest").read_text(encoding="utf-8").strip() == "run"

    before = student_bytes(tmp_path / "run")
    again = command("distill", "--run", tmp_path / "run", "--json")
    assert again.states == dict.fromkeys(("check-env", "prepare-data", "distill"), "skipped")
    assert again.err.count("already complete and nothing it depends on changed, skipped (--force redoes it)") == 3
    same_name = command("distill", *cli_pair, "--output-dir", tmp_path, "--folder-name", "run", "--json")
    assert set(same_name.states.values()) == {"skipped"}
    assert student_bytes(tmp_path / "run") == before


def test_more_stages_are_added_to_a_finished_run(command: Run, finished: Path) -> None:
    done = command("distill", "--run", finished, "--no-skip-demo", "--json")
    assert done.states == {
        "check-env": "skipped", "prepare-data": "skipped", "distill": "skipped", "validate": "skipped",
        "demo": "complete", "plot": "skipped",
    }  # fmt: skip
    assert (finished / "demo.json").is_file()


def test_force_redoes_the_named_stage_only(command: Run, finished: Path) -> None:
    stages = ("validate", "plot", "distill", "prepare-data")
    before = {name: json.loads((finished / "manifest.json").read_text())["stages"][name] for name in stages}
    weights = (finished / "student/final/model.safetensors").stat().st_mtime_ns
    assert command("validate", "--run", finished, "--json").states == {"validate": "skipped"}
    assert command("validate", "--run", finished, "--force", "--json").states == {"validate": "complete"}
    after = json.loads((finished / "manifest.json").read_text())["stages"]
    assert [name for name in stages if after[name] != before[name]] == ["validate"]
    assert (finished / "student/final/model.safetensors").stat().st_mtime_ns == weights


def test_only(command: Run, prepared: Path) -> None:
    done = command("distill", "--only", "--run", prepared, "--json")
    assert done.states == {"distill": "complete"}
    assert not (prepared / "validation.json").exists()


@pytest.mark.parametrize("how", ["file", "environment"])
def test_only_on_the_newest_run_of_the_given_output_directory(
    command: Run, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Wherever the output directory was given."""
    from settings_file import settings_file

    monkeypatch.chdir(tmp_path)
    given: list[object] = []
    if how == "file":
        given = ["--config", settings_file(tmp_path, output_dir=prepared.parent)]
    else:
        monkeypatch.setenv("DISTILLKIT_OUTPUT_DIR", str(prepared.parent))
    checked = command("check-env", "--run", "latest", *given, "--json").json
    assert checked["run"] == str(prepared)
    assert command("prepare-data", "--run", "run", *given, "--json").states == {"prepare-data": "skipped"}
    done = command("distill", "--only", *given, "--json")
    assert (done.json["run"], done.states) == (str(prepared), {"distill": "complete"})


def test_only_in_the_folder_that_a_file_names(command: Run, prepared: Path, pair_file: Path, tmp_path: Path) -> None:
    from settings_file import settings_file

    file = settings_file(
        tmp_path, **yaml.safe_load(pair_file.read_text()), output_dir=prepared.parent, folder_name="new"
    )
    done = command("distill", "--only", "--config", file, code=3)
    assert f"--only needs prepared data, and there is no run {prepared.parent / 'new'}" in done.err
    named = settings_file(
        tmp_path, output_dir=prepared.parent, folder_name="run", **yaml.safe_load(pair_file.read_text())
    )
    assert command("distill", "--only", "--config", named, "--json").json["run"] == str(prepared)


def test_a_preset_may_say_where_runs_lie(command: Run, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.settings import presets

    folder = prepared.parent.parent / "presets"
    folder.mkdir()
    (folder / "mine.yaml").write_text(f"# mine\noutput_dir: {prepared.parent}\n", encoding="utf-8")
    monkeypatch.setattr(presets, "presets_folder", lambda: folder)
    done = command("distill", "--only", "--preset", "mine", "--dry-run", "--json")
    assert done.json["run"] == str(prepared)


def test_only_without_the_stage_before(command: Run, finished: Path, cli_pair: list[str], tmp_path: Path) -> None:
    done = command("distill", "--only", *cli_pair, "--output-dir", tmp_path, "--folder-name", "new", code=3)
    assert f"--only needs prepared data, and there is no run {tmp_path / 'new'}" in done.err
    assert "distillkit prepare-data" in done.err
    assert not (tmp_path / "new").exists()


def test_a_later_stage_before_training(command: Run, prepared: Path) -> None:
    for stage in ("validate", "demo", "plot"):
        done = command(stage, "--run", prepared, code=3)
        assert f"{stage} needs distill, which has not run yet" in done.err
        assert continue_arguments(done) == ["distill", "--run", str(prepared)]


def test_latest_is_the_default_run(command: Run, finished: Path) -> None:
    for named in ([], ["--run", "latest"], ["--run", "run"]):
        done = command("plot", *named, "--output-dir", finished.parent, "--json")
        assert done.json["run"] == str(finished)


def test_a_moved_run_validates(command: Run, finished: Path) -> None:
    moved = finished.rename(finished.parent.parent / "moved away")
    done = command("validate", "--run", moved, "--force", "--json")
    assert done.states == {"validate": "complete"}
    assert done.json["result"]["student_path"] == str(moved / "student" / "best")


def test_config_yaml_reproduces_the_run(command: Run, finished: Path, tmp_path: Path) -> None:
    command("distill", "--config", finished / "config.yaml", "--output-dir", tmp_path / "new", "--folder-name", "x")
    assert student_bytes(tmp_path / "new" / "x") == student_bytes(finished)


def test_dry_run_touches_nothing(command: Run, finished: Path, cli_pair: list[str], tmp_path: Path) -> None:
    before = listing(tmp_path)
    done = command("distill", *cli_pair, "--output-dir", tmp_path / "output", "--folder-name", "new", "--dry-run", "--json")  # fmt: skip
    assert done.json["stages"] == dict.fromkeys(("check-env", "prepare-data", "distill"), "run")
    assert done.json["parameters"]["batch_size"] == {"value": 4, "from": "flag"}
    assert done.json["estimate"]["student_parameters"] > 1000
    assert done.json["estimate"]["teacher_cache_bytes"] == 0
    cached = command(
        "distill", *cli_pair, "--output-dir", tmp_path / "output", "--folder-name", "new", "--dry-run", "--json",
        "--teacher-cache", "exact",
    ).json["estimate"]  # fmt: skip
    assert cached["teacher_cache_bytes"] == 16 * 64 * 32 * 4
    assert cached["disk_bytes"] == done.json["estimate"]["disk_bytes"] + cached["teacher_cache_bytes"]
    assert done.json["run"] == str(tmp_path / "output" / "new")
    planned = command("distill", "--run", finished, "--dry-run").out
    assert re.search(r"^distill +skip, complete", planned, re.MULTILINE)
    assert command("distill", "--run", finished, "--force", "--dry-run").out.count("run again (--force)") == 5
    assert listing(tmp_path) == before


def test_a_plan_refuses_what_the_run_would_refuse_at_once(
    command: Run, cli_pair: list[str], pair: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "A text."}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("Not a run.")
    before = listing(tmp_path)
    place = ["--output-dir", tmp_path / "output", "--folder-name", "new"]
    refused: list[tuple[list[object], int]] = [
        (["--dataset-path", tmp_path / "mien.jsonl", *place], 2),
        (["--dataset-path", tmp_path / "empty.jsonl", *place], 2),
        (["--dataset-path", tmp_path / "mine.jsonl", "--text-column", "txt", *place], 2),
        (["--output-dir", tmp_path / "file"], 2),
        (["--output-dir", tmp_path, "--folder-name", "other"], 3),
        (["--only", *place], 3),
    ]
    if Path("/proc/self").is_dir():  # Nobody may write there, not even root.
        refused.append((["--output-dir", "/proc/self/runs"], 1))
    for options, code in refused:
        planned = command("distill", *cli_pair, *options, "--dry-run", code=code)
        assert listing(tmp_path) == before
        assert planned.err.startswith("error: ")
        assert planned.out == ""
        really = command("distill", *cli_pair, *options, code=code)
        assert really.err.endswith(planned.err)
        shutil.rmtree(tmp_path / "output", ignore_errors=True)


def test_a_plan_does_not_skip_what_is_damaged_or_stale(command: Run, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(finished, run)

    def planned(*options: object) -> dict[str, str]:
        return command("distill", "--run", run, "--dry-run", "--json", *options).json["stages"]

    whole = planned()
    assert set(whole.values()) == {"skip, complete"}
    (run / "validation.json").write_text("{}", encoding="utf-8")
    size = f"{(finished / 'validation.json').stat().st_size:,}"
    assert planned() == whole | {
        "validate": f"run again, validation.json has 2 bytes instead of {size}",
        "plot": "run again, changed: validation.json",
    }
    weights = run / "student" / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    found = planned()
    assert found["distill"].startswith("refused: the result of distill is damaged")
    assert "--force" in found["distill"]
    assert found["validate"] == "run again after distill"
    assert planned("--batch-size", "3")["distill"].startswith("refused: distill was made from something else")


def test_quiet_leaves_the_result(command: Run, finished: Path) -> None:
    done = command("validate", "--run", finished, "--force", "--quiet")
    assert done.err == ""
    assert "bits per byte" in done.out
    assert f"student: {finished / 'student' / 'best'}" in done.out


# --- the quality gate ------------------------------------------------------------------------------------------------


def test_quality_gate(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    spoiled = [*cli_pair, "--learning-rate", "3.0", "--no-save-best-model", "--no-skip-validation"]
    done = command("distill", *spoiled, "--output-dir", tmp_path, "--folder-name", "run", "--json", code=4)
    assert done.json["status"] == "quality gate failed"
    assert done.json["result"]["verdict"] == "worse"
    assert "error: quality gate 'not-worse': the student is worse than before" in done.err
    run = tmp_path / "run"
    assert command("distill", "--run", run, "--json", code=4).states["validate"] == "skipped"
    off = command("validate", "--run", run, "--quality-gate", "off", "--json")
    assert off.json["result"]["verdict"] == "worse"
    command("validate", "--run", run, "--json")
    command("validate", "--run", run, "--quality-gate", "improved", code=4)


# --- failures and how to go on ---------------------------------------------------------------------------------------


def test_the_last_line_continues(command: Run, prepared: Path, pair: SimpleNamespace, tmp_path: Path) -> None:
    weights, hidden = pair.student / "model.safetensors", tmp_path / "hidden.safetensors"
    weights.rename(hidden)
    try:
        done = command("distill", "--run", prepared, code=3)
    finally:
        hidden.rename(weights)
    assert [line for line in done.err.splitlines() if line.startswith(("error: ", "hint: "))] == done.err.splitlines()[-3:-1]  # fmt: skip
    assert command(*continue_arguments(done), "--json").states["distill"] == "complete"


def test_data_changed_between_stages(command: Run, pair: SimpleNamespace, cli_pair: list[str], tmp_path: Path) -> None:
    texts = Path(shutil.copy(pair.texts, tmp_path / "mine.txt"))
    options = [*cli_pair, "--dataset-path", texts, "--output-dir", tmp_path, "--folder-name", "run"]
    command("distill", *options)
    before = student_bytes(tmp_path / "run")
    texts.write_bytes(pair.other_texts.read_bytes())
    done = command("distill", *options, code=3)
    assert "prepare-data was made from something else; changed since: data mine.txt" in done.err
    assert student_bytes(tmp_path / "run") == before
    command("distill", *options, "--force")
    assert student_bytes(tmp_path / "run") != before


def test_another_configuration_is_refused_with_the_list(command: Run, finished: Path, tmp_path: Path) -> None:
    done = command("distill", "--run", finished, "--batch-size", "8", "--seed", "7", code=3)
    assert "batch_size: 4 -> 8" in done.err
    assert "seed: 42 -> 7" in done.err
    assert "sample_size" not in done.err.split("error: ")[1]
    redone = command("distill", "--run", finished, "--batch-size", "8", "--force", "--json")
    assert redone.json["result"]["metrics"]["train"]["steps"] == 2


def test_more_epochs_go_on_and_fewer_are_refused(command: Run, finished: Path) -> None:
    more = command("distill", "--run", finished, "--epochs", "2", "--json")
    assert more.json["result"]["metrics"]["train"]["steps"] == 8
    assert "continuing from step 4 of 8" in more.err
    assert "epochs: 2 -> 1" in command("distill", "--run", finished, "--epochs", "1", code=3).err


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 99}', b"\xff\xfe", b"[]"])
def test_a_corrupt_manifest_is_refused_and_left_alone(command: Run, finished: Path, content: bytes) -> None:
    manifest = finished / "manifest.json"
    manifest.write_bytes(content)
    for arguments in (["distill", "--run", finished], ["plot", "--run", finished, "--force"]):
        done = command(*arguments, "--json", code=3)
        assert str(manifest) in done.json["error"]
        assert done.json["hint"]
    assert manifest.read_bytes() == content
    assert "unreadable" in command("runs", "--output-dir", finished.parent).out


def test_json_tells_of_a_failure(command: Run, prepared: Path) -> None:
    failed = command("validate", "--run", prepared, "--json", code=3).json
    assert failed["status"] == "failed"
    assert failed["exit_code"] == 3
    assert "needs distill" in failed["error"]
    assert failed["run"] == str(prepared)
    assert failed["continue"] == f"distillkit distill --run {prepared}"
    usage = command("distill", "--batch-size", "many", "--json", code=2).json
    assert (usage["exit_code"], usage["run"], usage["continue"]) == (2, None, None)


def test_two_processes(finished: Path, run_cli: Subprocess) -> None:
    from distillkit.run.directory import RunDirectory

    with RunDirectory.open(finished).locked():
        done = run_cli("plot", "--run", finished, "--force", "--quiet", check=3)
    assert f"is in use by process {os.getpid()} on " in done.stderr


# --- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (["distil"], "'distil'", "Did you mean 'distill'"),
        (["distill", "--bach-size", "4"], "--bach-size", "--batch-size"),
        (["distill", "--json", "--batch-size"], "--batch-size", "distillkit distill --help"),
        (["distill", "--batch-size", "many"], "batch_size: 'many' is not a whole number", "params batch_size"),
        (["distill", "--batch-size", "500"], "batch_size: 500 is outside its range 1–128 (flag)", "--allow-out-of-range"),
        (["distill", "--temperature", "-1", "--allow-out-of-range"], "temperature: -1 is impossible", "1–10"),
        (["distill", "--box-type", "grey"], "box_type: 'grey' is not one of white, black", "params box_type"),
        (["distill", "--preset", "weak-cp"], "there is no preset 'weak-cp'", "did you mean 'weak-pc'"),
        (["distill", "--config", "absent.yaml"], "absent.yaml", ""),
        (["distill", "--alpha", "0.5", "--beta", "0.4"], "alpha + beta must be 1", "only one of --alpha and --beta"),
        (["distill", "--teacher-model", "a", "--teacher-model-path", "b"], "both given", "--teacher-model-path"),
        (["distill", "--teacher-model-path", "absent"], "'absent' does not exist", "check the path"),
        (["distill", "--dataset-path", "absent.txt"], "absent.txt", ""),
        (["distill", "--dataset", "wikitxt"], "unknown data set 'wikitxt'", "did you mean 'wikitext'"),
        (["distill", "--run", "absent"], "'absent' does not exist", "distillkit runs"),
        (["distill", "--run", "a", "--folder-name", "b"], "--run and --folder-name are both given", "names a new one"),
        (["distill", "--run", "latest", "--folder-name", "b"], "--run and --folder-name are both given", "names a new one"),
        (["distill", "--teacher-model-path", "hf_abcdefghijklmnop"], "'[secret]' does not exist", "check the path"),
        (["distill", "--no-cuda", "--precision", "fp16"], "--no-cuda and --precision fp16", "--precision auto"),
        (["distill", "stray"], "stray", "distillkit distill --help"),
        (["validate", "--run", "absent"], "'absent' does not exist", "distillkit runs"),
        (["params", "temprature"], "unknown parameter 'temprature'", "did you mean 'temperature'"),
        (["params", "--lang", "de"], "'de' is not one of en, ru", "--lang ru"),
        (["presets", "shwo", "quality"], "'shwo' is not an action", "presets show NAME"),
        (["presets", "show", "qualty"], "there is no preset 'qualty'", "did you mean 'quality'"),
        (["demo", "--prompts", "x"], "--prompts", "--prompt"),
        (["distill", "--ab-alpha", "0.5"], "No such option: --ab-alpha", "`ab_alpha: 0.5`, and give that with --config"),
        (["distill", "--compile-loss=off"], "No such option: --compile-loss", "--config"),
        (["validate", "--batch-size", "4"], "No such option: --batch-size (distillkit validate)", "distillkit distill"),
        (["check-env", "--dataset", "x"], "No such option: --dataset", "distillkit prepare-data or distill"),
        (["plot", "--quality-gate", "off"], "No such option: --quality-gate", "distillkit distill or validate"),
    ],
)  # fmt: skip
def test_wrong_usage(
    command: Run, arguments: list[str], words: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*arguments, code=2)
    error, after = done.last_lines
    assert error.startswith("error: ")
    assert words in error
    assert after.startswith("hint: ")
    assert hint in error + after
    assert "--json" in arguments or done.out == ""
    assert list(tmp_path.iterdir()) == [], "nothing is made"
    told = command(arguments[0], "--json", *arguments[1:], code=2).json
    assert f"error: {told['error']}" == error
    assert told["exit_code"] == 2


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "a/b", "a\0b", "CON", "con.txt", "x" * 300, "-x", ".hidden", "latest", "a\nb", "nul", "a:b", " a"]
)  # fmt: skip
def test_bad_folder_names(command: Run, cli_pair: list[str], tmp_path: Path, name: str) -> None:
    output = tmp_path / "output"
    done = command("distill", *cli_pair, "--output-dir", output, f"--folder-name={name}", code=2)
    assert done.last_lines[0].startswith("error: folder_name: ")
    assert not output.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_link_leading_out(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "run").symlink_to(tmp_path / "elsewhere")
    done = command("distill", *cli_pair, "--output-dir", tmp_path / "output", "--folder-name", "run", code=2)
    assert "is a link that leads elsewhere" in done.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_is_no_run(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine", encoding="utf-8")
    done = command("distill", *cli_pair, "--output-dir", tmp_path, "--folder-name", "run", "--force", code=3)
    assert "already exists and is not a run of this program" in done.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


# --- what only informs -----------------------------------------------------------------------------------------------


def test_runs(command: Run, finished: Path) -> None:
    words = command("runs", "--output-dir", finished.parent).out
    assert re.search(r"^run +complete +\d\.\d{3} -> \d\.\d{3} \(\w+\)", words, re.MULTILINE)
    listed = command("runs", "--output-dir", finished.parent, "--json").json["runs"]
    assert [(Path(run["run"]), run["status"]) for run in listed] == [(finished, "complete")]
    empty = command("runs", "--output-dir", finished.parent / "none")
    assert "start one with: distillkit distill" in empty.err


def test_cache(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    assert "no teacher caches" in command("cache", "--output-dir", tmp_path).err
    for number in (1, 2):
        command(
            "distill", *cli_pair, "--output-dir", tmp_path, "--folder-name", f"run-{number}", "--teacher-cache",
            "exact", "--no-install-deps", "--sample-size", 10 * number,
        )  # fmt: skip
    listed = command("cache", "--output-dir", tmp_path, "--json").json["caches"]
    assert len(listed) == 2
    assert all(re.fullmatch(r"[0-9a-f]{24}", entry["cache"]) for entry in listed)
    assert all(entry["tokens"] * 32 * 4 < entry["bytes"] for entry in listed)
    shown = command("cache", "--output-dir", tmp_path).out
    assert all(entry["cache"] in shown for entry in listed)
    for given, words in (
        (["prune"], "say which"), (["prune", "abc"], "no cache 'abc'"), (["drop"], "not an action"),
        (["--all"], "without `prune`"), (["prune", "--all", "--unused-days", "1"], "say which"),
    ):  # fmt: skip
        refused = command("cache", *given, "--output-dir", tmp_path, code=2)
        assert words in refused.err
    assert command("cache", "prune", "--unused-days", "1", "--output-dir", tmp_path, "--json").json["deleted"] == []
    assert "deleted 1 teacher cache," in command("cache", "prune", listed[0]["cache"], "--output-dir", tmp_path).err
    left = command("cache", "--output-dir", tmp_path, "--json").json["caches"]
    assert [entry["cache"] for entry in left] == [listed[1]["cache"]]
    assert command("cache", "prune", "--all", "--output-dir", tmp_path, "--json").json["deleted"] == left
    assert list((tmp_path / ".teacher-cache").iterdir()) == []


def test_presets(command: Run) -> None:
    listed = command("presets").out
    names = ["chat-quickstart", "power-gpu", "quality", "quick-test", "quickstart", "tuned", "weak-pc"]
    assert [line.split()[0] for line in listed.splitlines() if line.startswith(("c", "p", "q", "t", "w"))][1:] == names
    assert sorted(command("presets", "--json").json["presets"]) == names
    assert "no_cuda: true" in command("presets", "show", "weak-pc").out
    shown = command("presets", "show", "weak-pc", "--json").json
    assert shown == {"preset": "weak-pc", "values": {"batch_size": 2, "no_cuda": True, "sample_size": 500, "max_length": 128}}  # fmt: skip


def test_params(command: Run) -> None:
    assert "--temperature" in command("params").out
    assert "1–10" in command("params", "temperature").out
    assert re.search("[а-я]{4}", command("params", "temperature", "--lang", "ru").out)
    assert set(command("params", "temperature", "--json").json["parameters"]) == {"temperature"}


def test_version_and_help(command: Run) -> None:
    from distillkit import __version__

    assert command("--version").out == f"distillkit {__version__}\n"
    overview = command("--help").out
    for name in (
        "check-env",
        "prepare-data",
        "distill",
        "validate",
        "demo",
        "plot",
        "params",
        "presets",
        "runs",
        "cache",
    ):
        assert re.search(rf"^\W*{name} ", overview, re.MULTILINE)
    assert "distillkit distill --preset quickstart" in overview


def test_check_env_alone(
    command: Run, pair: SimpleNamespace, pair_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = ["--teacher-model-path", pair.teacher, "--student-model-path", pair.student]
    for given in (["--config", pair_file], [*models, "--no-cuda", "--precision", "fp32"]):
        findings = command("check-env", *given, "--json").json
        assert findings["device"]["type"] in ("cpu", "cuda", "mps")
        assert findings["versions"]["torch"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("alignment", "strict"), ("divergence_mix", 0.2), ("ab_alpha", 0.5), ("ab_beta", 0.5), ("sparse_method", "top-k"),
     ("sparse_size", 32), ("compile_loss", "off")],
)  # fmt: skip
def test_what_has_no_flag_is_set_in_a_file_or_the_environment(
    command: Run, cli_pair: list[str], tmp_path: Path, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from settings_file import settings_file

    assert f"--{name.replace('_', '-')}" not in command("distill", "--help-all").out
    planned = [*cli_pair, "--output-dir", tmp_path / "out", "--dry-run", "--json"]
    file = settings_file(tmp_path, **{name: value})
    parameters = command("distill", *planned, "--config", file).json["parameters"]
    assert parameters[name] == {"value": value, "from": f"file {file.name}"}
    monkeypatch.setenv(f"DISTILLKIT_{name.upper()}", str(value))
    assert command("distill", *planned).json["parameters"][name] == {"value": value, "from": "environment"}


def test_a_preset_of_prepare_data_reaches_the_training(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    """prepare-data has no flag for it, and hands it on all the same."""
    models_and_texts = cli_pair[: cli_pair.index("--sample-size")]
    command(
        "prepare-data", *models_and_texts, "--preset", "tuned", "--sample-size", "100", "--output-dir", tmp_path,
        "--folder-name", "run",
    )  # fmt: skip
    planned = command("distill", "--run", tmp_path / "run", "--epochs", "1", "--dry-run", "--json").json
    assert planned["parameters"]["temperature"] == {"value": 1.0, "from": "this run"}
    assert planned["parameters"]["epochs"] == {"value": 1, "from": "flag"}
    assert planned["stages"]["prepare-data"] == "skip, complete"


def test_prepare_data_keeps_the_settings_of_later_stages(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    """A script names all of them at once; the help lists those that prepare-data reads."""
    given = ("--epochs", "3", "--no-save-plot")
    done = command("prepare-data", *cli_pair, *given, "--output-dir", tmp_path, "--folder-name", "run", "--json")
    kept = next(line for line in done.err.splitlines() if line.startswith("kept for the later stages of the run: "))
    assert {"--epochs", "--save-plot"} <= set(kept.split(": ")[1].split(", "))
    config = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["config"]
    assert (config["epochs"], config["save_plot"]) == (3, False)
    assert "--epochs" not in command("prepare-data", "--help").out
    report = done.json["stages"]["prepare-data"]["input_report"]
    stats = json.loads((tmp_path / "run" / "data" / "stats.json").read_text(encoding="utf-8"))
    assert report["first text"].removeprefix("“")[:40] == stats["first_text"][:40]
    assert [line for line in report if line not in done.err] == []


# --- streams, in processes of their own ------------------------------------------------------------------------------


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "datasets", "matplotlib", "numpy", "pyarrow", "huggingface_hub")
    program = f"import sys, distillkit.cli.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1", "GITHUB_ACTIONS": "true", "CLICOLOR_FORCE": "1"}])
def test_a_pipe_gets_no_escape_codes(
    run_cli: Subprocess, cli_env: Callable[..., dict[str, str]], variables: dict[str, str]
) -> None:
    env = cli_env(NO_COLOR=None, **variables)
    for arguments, code in ((["presets"], 0), (["distill", "--help"], 0), (["distill", "--bach-size", "4"], 2)):
        done = run_cli(*arguments, env=env, check=code)
        assert done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_a_reader_that_goes_away(cli_env: Callable[..., dict[str, str]]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "distillkit", "params"],
            stdout=closed, stderr=subprocess.PIPE, text=True, env=cli_env(),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


def test_refused_data_leave_no_run_behind(command: Run, finished: Path, cli_pair: list[str], tmp_path: Path) -> None:
    output = finished.parent
    (tmp_path / "empty.txt").write_text("\n \n")
    models = cli_pair[: cli_pair.index("--dataset-path")]
    usual = ["--output-dir", output, "--folder-name", "refused"]
    command("prepare-data", *models, "--dataset-path", tmp_path / "empty.txt", *usual, code=2)
    assert not (output / "refused").exists()
    assert (output / "latest").read_text() == "run\n"
    teacher = models[: models.index("--student-model-path")]
    done = command(
        "distill",
        *teacher,
        "--student-model",
        "teacher:99",
        *cli_pair[cli_pair.index("--dataset-path") :],
        *usual,
        code=2,
    )
    assert "the teacher has only" in done.err
    assert not (output / "refused").exists()


def test_an_output_folder_that_is_a_file(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    done = command("distill", *cli_pair, "--output-dir", tmp_path / "file", code=2)
    assert "is a file" in done.err
    assert (tmp_path / "file").read_text() == "precious"
