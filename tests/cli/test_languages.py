"""Results, plans and samples in Russian: by --lang, by DISTILLKIT_LANG and by the locale; what scripts read stays English."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
LANGUAGE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG", "DISTILLKIT_LANG")


@pytest.fixture(scope="module")
def run(distil: Callable[..., Any]) -> Path:
    result = distil(skip_validation=False, skip_demo=False, control=True, save_plot=True, held_out_size=16)
    return Path(result.run_directory)


@pytest.fixture(autouse=True)
def no_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LANGUAGE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def english_words(text: str) -> set[str]:
    """Words of three letters or more that are no flag, path, file, number, unit, or name of a command, model or parameter."""
    names = r"`[^`]*`|--[\w-]+|(\S*[/_=.][\w/.-]+)|\w+[-_]\w+|distillkit \w+( --\w+ \S+)*|(?i:[\d.,]+ ?[kmg]?b)"
    return set(re.findall(r"\b[A-Za-z]{3,}\b", re.sub(names, " ", text)))


def test_the_result_in_russian(command: Run, run: Path) -> None:
    done = command("validate", "--run", run, "--lang", "ru")
    for said in ("Результат", "бит на байт", "ученик до", "контроль (без учителя)", "95 %-й интервал", "ученик: "):
        assert said in done.out
    assert english_words(done.out) == set()
    assert "уже выполнено" in done.err
    english = command("validate", "--run", run)
    assert "bits per byte" in english.out
    # The same figures in either language.
    assert re.findall(r"\d\.\d{4}", english.out) == re.findall(r"\d\.\d{4}", done.out)


def shown_in_a_terminal(command: list[str], environment: dict[str, str], columns: int) -> str:
    """What a command shows in a real terminal of so many columns, without its colours."""
    import warm_python

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = warm_python.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as stream:
        while True:
            try:
                block = stream.read(4096)
            except OSError:  # Linux, when nobody has the other end any more.
                break
            if not block:
                break
            written += block
    assert process.wait(timeout=60) == 0, written
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize(("columns", "lang"), [(60, "en"), (45, "ru")])
def test_a_narrow_terminal_shows_every_figure(
    cli_env: Callable[..., dict[str, str]], run: Path, columns: int, lang: str
) -> None:
    environment = {name: value for name, value in cli_env(TERM="xterm").items() if name not in ("COLUMNS", "LINES")}
    arguments = ["validate", "--run", str(run), "--lang", lang]
    shown = shown_in_a_terminal([sys.executable, "-m", "distillkit", *arguments], environment, columns)
    validation = json.loads((run / "validation.json").read_text(encoding="utf-8"))
    for figures in (validation[model] for model in ("before", "control", "after", "teacher")):
        for figure in (f"{figures['bits_per_byte']:.4f}", f"{figures['parameters']:,}", f"{figures['perplexity']:.4g}"):
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d,])", shown), (figure, shown)
    table = shown.split({"en": "Result", "ru": "Результат"}[lang])[1].split("\n\n")[0]
    assert max(map(len, table.split("\n"))) <= columns


def test_the_start_of_a_run_in_russian(command: Run, cli_pair: list[str], tmp_path: Path) -> None:
    """The parameters, the environment, what was read and the layers that are kept; what is recorded is English."""
    place = cli_pair.index("--student-model-path")
    pair = [*cli_pair[:place], "--student-model", "teacher:1", *cli_pair[place + 2 :]]
    done = command("prepare-data", *pair, "--output-dir", tmp_path, "--folder-name", "run", "--lang", "ru")
    environment = command("check-env", "--run", tmp_path / "run", "--lang", "ru").err
    for said in ("Окружение", "свободно ", "хаб моделей", "без сети", "памяти свободно "):
        assert said in environment, environment
    for said in ("флаг", "Что прочитано", "токенизаторы", "один и тот же",
                 "оставлены слои ", " из 2: жадный выбор", "16 примеров для обучения"):  # fmt: skip
        assert said in done.err, done.err
    stages = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["stages"]
    assert stages["prepare-data"]["metrics"]["input_report"]["tokenizers"] == "the same"
    assert not re.search("[а-я]", json.dumps(stages, ensure_ascii=False))


def test_the_plan_in_russian(command: Run, run: Path) -> None:
    done = command("distill", "--run", run, "--dry-run", "--lang", "ru", "--epochs", "2")
    assert "Что потребуется" in done.out
    assert "параметров: " in done.out
    table = done.out.split("Этапы")[1]
    # Stages are named as their commands are.
    assert english_words(table) <= {"distill", "control", "validate", "demo", "plot", "epochs", "cpu"}, table


def test_samples_in_russian(command: Run, run: Path) -> None:
    done = command("demo", "--run", run, "--prompt", "Once", "--new-tokens", "4", "--lang", "ru")
    for said in ("начало", "учитель", "токенов/с", "Как они писали"):
        assert said in done.out
    assert "температура 0.7" in done.err


def test_runs_in_russian(command: Run, run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(run, tmp_path / "out" / "mine", ignore=shutil.ignore_patterns("checkpoints"))
    listed = command("runs", "--output-dir", alone.parent, "--lang", "ru").out
    for said in ("Запуски в ", "завершено", "доля учителя", "учитель"):
        assert said in listed
    # The teacher of this run is called so.
    assert english_words(listed.replace("mine", "")) == {"teacher"}, listed
    shown = command("runs", "show", run.name, "--output-dir", run.parent, "--lang", "ru")
    for said in ("Запуск ", "Настройки не по умолчанию", "Этапы", "Место на диске", "Результат"):
        assert said in shown.out
    stages = shown.out.split("Этапы")[1].split("Место на диске")[0]
    assert english_words(stages) <= {
        "prepare",
        "data",
        "check",
        "env",
        "distill",
        "control",
        "validate",
        "demo",
        "plot",
    }
    assert "запусков в " in command("runs", "--output-dir", tmp_path / "none", "--lang", "ru").err
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints", "student"))
    removed = command("runs", "rm", "copy", "--yes", "--output-dir", tmp_path, "--lang", "ru").err
    assert "удалён copy" in removed
    for arguments in (["runs"], ["runs", "show", run.name]):
        given = [*arguments, "--output-dir", run.parent, "--json", "--lang"]
        assert command(*given, "ru").json == command(*given, "en").json


def test_what_scripts_read_is_english(command: Run, run: Path) -> None:
    for arguments in (["validate", "--run", run], ["distill", "--run", run, "--dry-run", "--epochs", "2"]):
        given = [*arguments, "--json"]
        english, russian = (command(*given, "--lang", lang).out for lang in ("en", "ru"))
        # A plan has measured times and free memory.
        letters = [re.sub(r"[\d.,:]+ ?[kMG]?B?|-?\d", "", text) for text in (english, russian)]
        assert letters[0] == letters[1]
        assert not re.search("[а-я]", russian)


def test_the_report_follows_the_language(command: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lang() -> str:
        found = re.search('<html lang="(..)"', (run / "report.html").read_text(encoding="utf-8"))
        assert found is not None
        return found[1]

    command("plot", "--run", run, "--lang", "en")
    assert lang() == "en"
    monkeypatch.setenv("LANG", "ru_RU.UTF-8")
    command("plot", "--run", run)
    assert lang() == "en"  # A locale does not change a page that is there.
    command("plot", "--run", run, "--lang", "ru")
    assert lang() == "ru"
    monkeypatch.setenv("LANG", "C")
    command("plot", "--run", run)
    assert lang() == "ru"
    monkeypatch.setenv("LANG", "ru_RU.UTF-8")
    assert command("report", "--run", run, "--json").json["lang"] == "ru"
    assert "Результат" in command("validate", "--run", run).out
    monkeypatch.setenv("DISTILLKIT_LANG", "en")
    assert "Result" in command("validate", "--run", run).out
    assert "Результат" in command("validate", "--run", run, "--lang", "ru").out


@pytest.mark.parametrize("arguments", [["validate", "--lang", "fr"], ["cache", "--lang", "ru"]])
def test_a_language_that_is_not_spoken(command: Run, arguments: list[str]) -> None:
    done = command(*arguments, code=2)
    assert "--lang" in done.err
    assert "Traceback" not in done.err


def test_words_are_not_loaded_for_the_help() -> None:
    program = (
        "import sys\nfrom distillkit.cli.main import main\nmain(['demo', '--help', '--lang', 'ru'])\n"
        "print([name for name in sys.modules if name.startswith('distillkit.words.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.replace("'", '"')) == []
