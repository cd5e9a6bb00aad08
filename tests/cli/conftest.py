"""A pair of models and texts so small that a whole run takes about a second; nothing here asks the network."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_pictures import small_pictures

Distil = Callable[..., Any]

# Out of their documented ranges on purpose: a run of four steps.
SMALL = {
    "sample_size": 16,
    "max_length": 64,
    "held_out_size": 8,
    "batch_size": 4,
    "epochs": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "allow_out_of_range": True,
    "skip_validation": True,
    "save_plot": False,
    "control": False,
}


@pytest.fixture(scope="session", autouse=True)
def json_objects_fit_their_schemas() -> Iterator[None]:
    """Every object that a command prints under --json is checked; these tests see what no test of schemas thinks of."""
    from json_objects import problems

    from distillkit.console import Console

    printed = Console.json

    def checked(console: Console, value: Any) -> None:
        # A test's own objects, later in this session, are not a command's.
        if console.json_output and sys._getframe(1).f_globals["__name__"].startswith("distillkit."):
            found = problems(json.loads(json.dumps(value, default=str)))
            assert not found, f"no object as distillkit/schemas/ has it: {found}"
        printed(console, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Console, "json", checked)
        yield


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """The settings of a run of four steps that only trains."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`teacher`, `other_teacher`, `student` (one tokenizer), `foreign_student` (another one), `texts` and `other_texts` as paths."""
    from tiny_models import (
        save_model_folder,
        tiny_model,
        tiny_sentencepiece_tokenizer,
        tiny_tokenizer,
        write_texts,
    )

    root = tmp_path_factory.mktemp("pair")
    tokenizer = tiny_tokenizer()
    foreign = tiny_sentencepiece_tokenizer(root / "foreign")

    def model(name: str, seed: int, *, opinions: int, **settings: int) -> Path:
        made = tiny_model("gpt2", len(tokenizer), seed=seed, eos_token_id=0, **settings)
        # Random weights give every token about the same probability; larger ones prefer some.
        made.transformer.wte.weight.data *= opinions
        return save_model_folder(root / name, made, tokenizer)

    return SimpleNamespace(
        root=root,
        teacher=model("teacher", 1, opinions=6, layers=2, hidden=32),
        other_teacher=model("other_teacher", 3, opinions=6, layers=2, hidden=32),
        student=model("student", 2, opinions=1, layers=1, hidden=16),
        foreign_student=save_model_folder(
            root / "foreign_student", tiny_model("llama", len(foreign), seed=4, layers=1, hidden=16), foreign
        ),
        texts=write_texts(root / "texts.txt", 120),
        other_texts=write_texts(root / "other.txt", 120, seed=5),
    )


@pytest.fixture(scope="session")
def offline() -> Iterator[None]:
    """This process asks no model hub, so that no test depends on whether there is one."""
    with pytest.MonkeyPatch.context() as patch:
        from huggingface_hub import constants

        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="session")
def distil(
    pair: SimpleNamespace, small: dict[str, Any], offline: None, tmp_path_factory: pytest.TempPathFactory
) -> Distil:
    """`distil(epochs=2, …)` -> the DistillResult of a small run, each in a folder of its own; None takes a setting away."""
    from distillkit import distill_models

    numbers = itertools.count()
    output = tmp_path_factory.mktemp("runs")

    def run(**settings: Any) -> Any:
        usual: dict[str, Any] = {
            "teacher_model_path": pair.teacher,
            "student_model_path": pair.student,
            "dataset_path": pair.texts,
            "output_dir": output,
            "folder_name": f"run-{next(numbers)}",
            "quiet": True,
            **small,
        }
        for name, path in (("teacher_model", "teacher_model_path"), ("student_model", "student_model_path"),
                           ("dataset", "dataset_path")):  # fmt: skip
            if name in settings:
                del usual[path]
        with small_pictures():
            return distill_models(**{name: value for name, value in (usual | settings).items() if value is not None})

    return run


@pytest.fixture(scope="session")
def pair_file(pair: SimpleNamespace, small: dict[str, Any]) -> Path:
    """The settings of a small run as a file for `--config`, which every subcommand takes."""
    from settings_file import settings_file

    return settings_file(
        pair.root, teacher_model_path=pair.teacher, student_model_path=pair.student, dataset_path=pair.texts, **small
    )


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], offline: None) -> Callable[..., Any]:
    """`command("distill", "--run", …, code=0)` -> what it wrote; `code` is the exit code that is expected."""

    from command_result import Done

    from distillkit.cli import main as cli

    def run(*arguments: object, code: int | None = 0) -> Any:
        capsys.readouterr()
        with small_pictures():
            returned = cli.main([str(argument) for argument in arguments])
        done = Done(returned, *capsys.readouterr())
        assert code is None or returned == code, f"exit code {returned}\n{done.out}\n{done.err}"
        return done

    return run


@pytest.fixture
def cli_pair(pair: SimpleNamespace, small: dict[str, Any]) -> list[str]:
    """The options of a small run, for `distill`."""
    options: list[str] = []
    given = {"teacher_model_path": pair.teacher, "student_model_path": pair.student, "dataset_path": pair.texts}
    for name, value in (given | small).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            options.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            options += [flag, str(value)]
    return options


@pytest.fixture
def tune(offline: None) -> Callable[..., Any]:
    """`tune(run, trials=3)` -> what the stage itself gives, on the run directory of a finished run."""
    from distillkit.console import Console
    from distillkit.run.directory import RunDirectory
    from distillkit.settings.parameters import Parameters
    from distillkit.stages import tune as stage

    def search(path: Path, *, changes: dict[str, Any] | None = None, **options: Any) -> Any:
        run = RunDirectory.open(path)
        config = dataclasses.replace(Parameters(**run.manifest.config), **(changes or {}))
        return stage.run(config, run, Console(quiet=True), **options)

    return search
