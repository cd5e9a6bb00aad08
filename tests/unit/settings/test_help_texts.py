"""The words for the parameters: complete in both languages, true to the declaration, and the same wherever shown."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from distillkit.cli import main as cli
from distillkit.cli import parameter_pages
from distillkit.cli.app import app
from distillkit.data.standard_sets import parse_entry
from distillkit.settings import declared
from distillkit.settings.facts import parameter
from distillkit.settings.help_texts import LANGUAGES, group_title, help_text, help_texts
from distillkit.settings.resolve import resolve

DOCS = Path(__file__).parents[3] / "docs"
NAMES = list(declared.fields())
ON_COMMAND_LINE = declared.names_with_flag()
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)


def squeezed(text: str) -> str:
    """`text` without white space, so that wrapped lines can be compared."""
    return re.sub(r"\s+", "", text)


def options_by_command() -> dict[str, dict[str, list[str]]]:
    """Command -> parameter -> its flags, as the command line really has them."""
    group = typer.main.get_command(app)
    commands: dict[str, typer.core.TyperCommand] = group.commands  # pyright: ignore[reportAttributeAccessIssue]
    return {
        name: {str(option.name): [*option.opts, *option.secondary_opts] for option in command.params}
        for name, command in commands.items()
    }


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, encoding="utf-8", env=environment, timeout=120, check=False
    )


@pytest.fixture
def other_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A declaration in which the temperature has another default and another range."""
    field = parameter(6.5, "distillation", low=4.25, high=8.75, examples=("7.125",))
    field.name, field.type = "temperature", "float"
    changed = {**declared.fields(), "temperature": field}
    monkeypatch.setattr(declared, "fields", lambda: changed)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_parameter_and_nothing_else_has_words(lang: str) -> None:
    assert list(help_texts(lang)) == NAMES


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_four_texts_that_are_whole(name: str, lang: str) -> None:
    text = help_text(name, lang)
    for part in dataclasses.astuple(text):
        assert part == part.strip()
        assert part
    assert "\n" not in text.what
    assert not text.what.endswith(".")
    assert len(text.what) <= 100
    for part in (text.effect, text.choose):
        assert part.endswith(".")
        assert part.count("`") % 2 == 0


@pytest.mark.parametrize("name", NAMES)
def test_russian_is_russian_and_english_is_not(name: str) -> None:
    english, russian = help_text(name, "en"), help_text(name, "ru")
    for part in ("what", "effect", "choose"):
        assert not CYRILLIC.search(getattr(english, part))
        letters = re.sub(r"`[^`]*`", "", getattr(russian, part))
        assert len(CYRILLIC.findall(letters)) > len(re.findall("[A-Za-z]", letters))


def test_an_unknown_language_is_no_language() -> None:
    with pytest.raises(KeyError):
        help_text("seed", "de")
    with pytest.raises(KeyError):
        group_title("models", "de")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_group_has_a_title(lang: str) -> None:
    headings = [*declared.GROUPS, *declared.TOPICS]
    titles = [group_title(heading, lang) for heading in headings]
    assert len(set(titles)) == len(headings)
    assert all(bool(CYRILLIC.search(title)) == (lang == "ru") for title in titles)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_an_example_is_a_command_that_would_be_accepted(name: str, lang: str) -> None:
    program, command, *words = shlex.split(help_text(name, lang).example)
    options = options_by_command()[command]
    assert program == "distillkit"
    assert words[0].startswith("--")
    given: dict[str, str] = {}
    while words:
        flag = words.pop(0)
        parameter = next(option for option, spelled in options.items() if flag in spelled)
        if parameter in declared.fields() and declared.kind(parameter) is bool:
            given[parameter] = "true" if flag == options[parameter][0] else "false"
        else:
            given[parameter] = words.pop(0)
    assert name in given
    given.pop("run", None)
    resolve(given)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ON_COMMAND_LINE])
def test_an_example_of_a_configuration_file_would_be_accepted(name: str, lang: str) -> None:
    values = yaml.safe_load(help_text(name, lang).example)
    resolved = resolve(values)
    assert resolved.sources[name] == "argument"
    assert getattr(resolved.parameters, name) == values[name] != declared.default(name)
    assert resolved.notes == (), "the example has an effect"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_example_of_a_data_set_is_an_entry(lang: str) -> None:
    config = resolve(yaml.safe_load(help_text("datasets", lang).example)).parameters
    assert parse_entry(config.dataset, config.datasets[config.dataset]).id == "owner/news-articles"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_flag_in_the_texts_exists(lang: str) -> None:
    known = {flag for options in options_by_command().values() for flags in options.values() for flag in flags}
    for text in help_texts(lang).values():
        for part in dataclasses.astuple(text):
            assert set(re.findall(r"--[a-z][a-z-]*", part)) <= known


@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_what_is_best_left_alone_has_no_flag(name: str) -> None:
    assert not help_text(name, "en").choose.startswith("Leave it")
    assert not help_text(name, "ru").choose.startswith(("Оставьте", "Не отключайте", "Не указывайте"))


def test_both_languages_name_the_same_flags_and_parameters() -> None:
    for name in NAMES:
        english, russian = (" ".join(dataclasses.astuple(help_text(name, lang))) for lang in LANGUAGES)
        assert set(re.findall(r"--[a-z-]+", english)) == set(re.findall(r"--[a-z-]+", russian)), name
        assert set(re.findall(r"`([a-z_]+)`", english)) == set(re.findall(r"`([a-z_]+)`", russian)), name


def test_the_help_texts_load_without_anything_heavy() -> None:
    code = (
        "import sys, distillkit.settings.help_texts as h; h.help_text('seed'); h.help_text('seed', 'ru');"
        "print([m for m in ('torch', 'transformers', 'datasets', 'rich', 'typer', 'pydantic', 'numpy') if m in sys.modules])"
    )
    done = child("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_flags_shown_are_those_of_the_command_line() -> None:
    options = options_by_command()["distill"]
    assert {name: list(declared.flags(name)) for name in ON_COMMAND_LINE} == {
        name: options[name] for name in ON_COMMAND_LINE
    }
    assert declared.flags("datasets") == ()
    assert "datasets" not in options


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_page_holds_every_text(lang: str) -> None:
    page = parameter_pages.markdown(lang)
    for name in NAMES:
        section = re.split(r"\n#", page.split(f"### `{name}`\n")[1])[0]
        text = help_text(name, lang)
        for part in (text.what[1:], text.effect, text.choose, text.example, *declared.flags(name)):
            assert part in section
    other = next(language for language in LANGUAGES if language != lang)
    assert f"({parameter_pages.FILES[other]})" in page


def test_the_committed_pages_are_up_to_date() -> None:
    assert parameter_pages.stale_pages(DOCS) == [], "run: python -m distillkit.cli.parameter_pages --write docs"


def test_the_committed_page_of_the_commands_is_up_to_date() -> None:
    from distillkit.cli.command_page import PAGE, commands_page

    assert (DOCS / PAGE).read_text(encoding="utf-8") == commands_page(), (
        "run: python -m distillkit.cli.command_page --write docs"
    )


def test_write_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "docs"
    assert parameter_pages.main(["--check", str(folder)]) == 1
    assert parameter_pages.main(["--write", str(folder)]) == 0
    assert parameter_pages.main(["--check", str(folder)]) == 0
    page = folder / "parameters.ru.md"
    page.write_text(page.read_text(encoding="utf-8").replace("5e-5", "6e-5"), encoding="utf-8")
    capsys.readouterr()
    assert parameter_pages.main(["--check", str(folder)]) == 1
    said = capsys.readouterr().err
    assert str(page) in said
    assert str(folder / "parameters.md") not in said


@pytest.mark.usefixtures("other_temperature")
@pytest.mark.parametrize("lang", LANGUAGES)
def test_default_range_and_examples_come_from_the_declaration(lang: str) -> None:
    for text in (parameter_pages.describe("temperature", lang), parameter_pages.markdown(lang)):
        for shown in ("6.5", "4.25–8.75", "7.125"):
            assert shown in text
    row = next(row for row in parameter_pages.overview_rows(lang) if row[0] == "--temperature")
    assert row[1:3] == ("6.5", "4.25–8.75")
    values = parameter_pages.as_json("temperature", lang)
    assert (values["default"], values["low"], values["high"]) == (6.5, 4.25, 8.75)


@pytest.mark.usefixtures("other_temperature")
def test_a_changed_declaration_makes_the_pages_stale() -> None:
    assert [path.name for path in parameter_pages.stale_pages(DOCS)] == ["parameters.md", "parameters.ru.md"]


@pytest.mark.parametrize(
    ("name", "lang", "shown"),
    [
        ("teacher_model_path", "en", "none"),
        ("save_plot", "en", "yes"),
        ("no_cuda", "ru", "нет"),
        ("held_out_size", "ru", "не задано"),
        ("datasets", "en", "empty"),
        ("learning_rate", "en", "5e-5"),
        ("box_type", "ru", "white"),
    ],
)
def test_defaults_in_words(name: str, lang: str, shown: str) -> None:
    row = dict(zip(NAMES, parameter_pages.overview_rows(lang), strict=True))[name]
    assert row[1] == shown


def test_distill_help_lists_every_parameter_with_its_words() -> None:
    done = child("-m", "distillkit", "distill", "--help-all")
    assert done.returncode == 0, done.stderr
    shown = squeezed(done.stdout)
    for name in ON_COMMAND_LINE:
        assert declared.flag(name) in done.stdout.replace("--[no-]", "--")
        assert squeezed(help_text(name).what) in shown


@pytest.mark.parametrize("lang", LANGUAGES)
def test_params_lists_every_parameter(lang: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "--lang", lang]) == 0
    shown = capsys.readouterr().out
    for name in ON_COMMAND_LINE:
        assert declared.flag(name) in shown
    assert "datasets" in shown


@pytest.mark.parametrize("spelled", ["temperature", "--temperature"])
def test_params_explains_one(spelled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "--lang", "ru", "--", spelled]) == 0
    shown, text = squeezed(capsys.readouterr().out), help_text("temperature", "ru")
    for part in (text.what[1:], text.effect, text.choose, text.example, "1–10", "DISTILLKIT_TEMPERATURE"):
        assert squeezed(part) in shown


def test_params_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["parameters"]
    assert list(facts) == NAMES
    assert facts["box_type"]["choices"] == ["white", "black"]
    assert facts["sample_size"]["default"] == declared.default("sample_size")
    assert facts["datasets"]["environment"] is None


def test_a_misspelled_parameter_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "temprature"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "did you mean 'temperature'?" in shown.err


def test_an_unknown_language_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "--lang", "de"]) == 2
    assert "--lang ru" in capsys.readouterr().err
