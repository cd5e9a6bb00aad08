"""`--lm-eval`: tasks of lm-evaluation-harness, here from local files, on the models of a run."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conversation_runs import QUIET, chat_models, distilled, prepared

from distillkit import interrupts
from distillkit.cli.commands import show_result
from distillkit.console import Console
from distillkit.data.examples import load_examples
from distillkit.device.precision import choose_compute
from distillkit.errors import Interrupted, UsageError
from distillkit.harness import of_run
from distillkit.harness import tasks as harness_tasks
from distillkit.harness.tasks import tasks_fingerprint, tasks_words
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import open_pair
from distillkit.settings.parameters import Parameters
from distillkit.stages import validate

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

CHOICE = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: choices.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: " "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLLING = """\
task: tiny_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: texts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: bits_per_byte}
  - {metric: byte_perplexity}
"""
WRITING = """\
task: tiny_writing
dataset_path: json
dataset_kwargs: {data_files: {test: choices.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


SAME_RUN = {"folder_name": "lm-eval", "control": True, "skip_validation": False}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files whose data lie beside them; `texts.jsonl` has to be written by the test."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = ["The lamp is", "The bell over the harbour", "The river runs", "He looked at"]
    write_lines(
        folder / "choices.jsonl",
        [{"question": text, "choices": ["bright", "gone", "the"], "answer": n % 3} for n, text in enumerate(questions)],
    )
    for name, content in (("choice", CHOICE), ("rolling", ROLLING), ("writing", WRITING)):
        (folder / f"{name}.yaml").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def measured(distil: Any, pair: SimpleNamespace, tasks: Path) -> Any:
    """A run with a control whose validation ended with all three tasks; the rolling one on the run's own test texts."""
    first = distil(**SAME_RUN | {"skip_validation": True})
    texts = [row["text"] for row in load_examples(first.run_directory / "data" / "test")]
    write_lines(tasks / "texts.jsonl", [{"text": text} for text in texts])
    names = ",".join(str(tasks / f"{name}.yaml") for name in ("choice", "rolling", "writing"))
    return distil(**SAME_RUN, lm_eval=names)


def test_every_model_is_asked_every_task(measured: Any) -> None:
    validation = json.loads((measured.run_directory / "validation.json").read_text(encoding="utf-8"))
    found = validation["lm_eval"]
    assert found == measured.lm_eval
    assert found.keys() == {"tiny_choice", "tiny_rolling", "tiny_writing"}
    accuracy = found["tiny_choice"]["acc"]
    for name in ("before", "after", "control", "teacher"):
        right = accuracy[name] * 4
        assert right == pytest.approx(round(right))
        # The error of a mean of four, from the sample's variance.
        expected = math.sqrt(accuracy[name] * (1 - accuracy[name]) / 3)
        assert accuracy["stderr"][name] == pytest.approx(expected)
        assert found["tiny_rolling"]["bits_per_byte"]["stderr"][name] is None
    assert accuracy["higher_is_better"] is True
    assert found["tiny_rolling"]["bits_per_byte"]["higher_is_better"] is False
    assert validation["lm_eval_run"]["chat_template"] is False
    assert validation["lm_eval_run"]["left_out"] == {}
    assert "failed" not in validation["lm_eval_run"]


def test_bits_per_byte_are_those_of_the_harness(measured: Any) -> None:
    """The same documents, read by both: not our formula against itself."""
    theirs = measured.lm_eval["tiny_rolling"]["bits_per_byte"]
    for name in ("before", "after", "control", "teacher"):
        ours = getattr(measured, name)["bits_per_byte"]
        assert theirs[name] == pytest.approx(ours, abs=1e-3)
    assert theirs["before"] != pytest.approx(theirs["after"], abs=1e-3)


def test_the_card_has_the_results(measured: Any) -> None:
    card = (measured.student_path / "README.md").read_text(encoding="utf-8")
    value = measured.lm_eval["tiny_rolling"]["bits_per_byte"]["after"]
    row = next(line for line in card.splitlines() if line.startswith("| tiny_rolling | bits_per_byte | lower"))
    assert f"{value:.4f}" in row


def test_the_table_and_the_plan_tell_it(measured: Any, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_result(RunDirectory.open(measured.run_directory), Console())
    shown = capsys.readouterr().out
    assert "lm-evaluation-harness" in shown
    figures = measured.lm_eval["tiny_choice"]["acc"]
    row = next(line.split() for line in shown.splitlines() if line.split()[:2] == ["tiny_choice", "acc"])
    cells = [f"{figures[name]:.4f}±{figures['stderr'][name]:.4f}" for name in ("before", "control", "after", "teacher")]
    assert row == ["tiny_choice", "acc", "higher", *cells]
    words = tasks_words(Parameters(lm_eval=str(tasks / "choice.yaml")))
    assert words.startswith(f"{tasks / 'choice.yaml'}; on before, after")
    assert "would be refused: lm_eval: there is no file" in tasks_words(Parameters(lm_eval="absent.yaml"))


def test_a_failure_leaves_the_rest(distil: Any, measured: Any, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tasks / "broken.yaml").write_text(CHOICE.replace("choices.jsonl", "absent.jsonl"), encoding="utf-8")
    settings = {**SAME_RUN, "lm_eval": str(tasks / "broken.yaml"), "quiet": False}
    found = distil(**settings)
    assert found.verdict == measured.verdict
    assert found.lm_eval == {}
    told = json.loads((found.run_directory / "validation.json").read_text(encoding="utf-8"))["lm_eval_run"]["failed"]
    assert told["model"] == "before"
    assert "absent.jsonl" in told["error"]
    said = " ".join(capsys.readouterr().err.split())
    assert "lm-evaluation-harness failed on the model before" in said
    assert "--force" in said


def test_an_interrupted_validation_goes_on_with_the_next_model(
    distil: Any, measured: Any, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = of_run.evaluate_model, []

    def disturbed(*given: Any, **named: Any) -> Any:
        asked.append(given)
        if len(asked) == 2:
            monkeypatch.setattr(interrupts, "_received", signal.SIGTERM)
        return real(*given, **named)

    monkeypatch.setattr(of_run, "evaluate_model", disturbed)
    settings = {**SAME_RUN, "lm_eval": str(tasks / "choice.yaml")}
    with pytest.raises(Interrupted):
        distil(**settings)
    assert len(asked) == 2
    found = distil(**settings)
    assert len(asked) == 5  # After, control and teacher; the student before is known.
    assert found.lm_eval == {"tiny_choice": measured.lm_eval["tiny_choice"]}


def test_other_tasks_and_another_gate_score_no_text_again(
    distil: Any, measured: Any, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was scored is kept, unless it is damaged or to be measured anew."""
    scored: list[Any] = []
    compare = validate.compare
    monkeypatch.setattr(validate, "compare", lambda *given, **named: scored.append(given) or compare(*given, **named))
    other = {**SAME_RUN, "lm_eval": str(tasks / "rolling.yaml"), "quality_gate": "off"}
    found = distil(**other)
    assert scored == []
    assert list(found.lm_eval) == ["tiny_rolling"]
    assert (found.after, found.gap_closed) == (measured.after, measured.gap_closed)
    assert "tiny_rolling" in (found.student_path / "README.md").read_text(encoding="utf-8")
    kept = found.run_directory / "validation_scores.json"
    kept.write_text(kept.read_text(encoding="utf-8").replace("bits_per_byte", "bits_per_bite"), encoding="utf-8")
    again = distil(**SAME_RUN, lm_eval=None, quality_gate="not-worse", quiet=False)
    assert "validation_scores.json is damaged and not used" in capsys.readouterr().err
    assert len(scored) == 1
    assert again.after["bits_per_byte"] == measured.after["bits_per_byte"]
    assert again.lm_eval is None


def test_changed_task_and_data_files_are_measured_again(tmp_path: Path) -> None:
    task, data = tmp_path / "choice.yaml", tmp_path / "choices.jsonl"
    task.write_text(CHOICE, encoding="utf-8")
    states = [tasks_fingerprint(str(task))]
    for path, content in ((data, "{}"), (data, "[]"), (task, CHOICE + "num_fewshot: 1\n")):
        path.write_text(content, encoding="utf-8")
        states.append(tasks_fingerprint(str(task)))
    assert len(set(states)) == 4
    assert tasks_fingerprint(str(task)) == states[-1]


@pytest.mark.parametrize(
    ("names", "why", "hint"),
    [
        ("arc_eazy", "'arc_eazy' is no task of lm-evaluation-harness", "arc_easy"),
        ("absent.yaml", r"there is no file .*absent\.yaml", "the name of a task"),
        ("empty.yaml", "describes no task", "task: mine"),
        ("wrong.yaml", "cannot be read", "task guide"),
    ],
)
def test_what_is_no_task_is_refused_before_anything_is_computed(
    distil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, why: str, hint: str
) -> None:
    (tmp_path / "empty.yaml").write_text("dataset_path: json\n", encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text("task: [", encoding="utf-8")
    # Its own index takes seconds to read.
    monkeypatch.setattr(
        harness_tasks, "task_manager", lambda built_in: SimpleNamespace(all_tasks=["arc_easy", "boolq"])
    )
    given = str(tmp_path / names) if names.endswith(".yaml") else names
    with pytest.raises(UsageError, match=why) as caught:
        distil(lm_eval=given, skip_validation=False, output_dir=tmp_path / "runs", folder_name="refused")
    assert hint in (caught.value.hint or "")
    assert not (tmp_path / "runs" / "refused").exists()


def test_chat_models_are_asked_in_their_own_templates(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each model reads, against the tokenizers' own rendering."""
    from transformers import AutoTokenizer

    models = chat_models(tmp_path / "models")
    read: dict[str, set[str]] = {}
    real = of_run.evaluate_model

    def listening(model: Any, tokenizer: Any, *given: Any, **named: Any) -> Any:
        texts = read.setdefault(f"{len(read)}", set())
        hook = model.register_forward_pre_hook(
            lambda _, ids: texts.update(tokenizer.decode(row) for row in ids[0]) if ids else None
        )
        found = real(model, tokenizer, *given, **named)
        hook.remove()
        return found

    monkeypatch.setattr(of_run, "evaluate_model", listening)
    file = str(tasks / "choice.yaml")
    made = prepared(tmp_path, models, "llama3", lm_eval=file, control=False, system_prompt="Be kind.")
    distilled(made)
    validate.run(made.config, made.run, QUIET)
    told = json.loads((made.run.path / "validation.json").read_text(encoding="utf-8"))["lm_eval_run"]
    assert told["chat_template"] is True
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "The lamp is"}]
    for texts, folder in zip(read.values(), (models.llama3, made.run.best_student, models.teacher), strict=True):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        begins = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert any(text.startswith(begins) for text in texts)
    # What is complete is not asked again, unless it is to be.
    pair, compute = open_pair(made.config, made.run, QUIET), choose_compute(made.config)
    for from_scratch, times in ((False, 3), (True, 6)):
        of_run.evaluate_run(made.config, made.run, pair, compute, QUIET, from_scratch=from_scratch)
        assert len(read) == times
