"""One declaration, many faces: signature, flags, environment, YAML keys, texts and reference pages say the same."""

from __future__ import annotations

import inspect
import json
import re
import typing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from distillkit import distill_models, registry
from distillkit.cli import app as cli
from distillkit.cli import parameter_pages
from distillkit.errors import UsageError
from distillkit.settings import declared
from distillkit.settings.help_texts import LANGUAGES, help_texts
from distillkit.settings.resolve import resolve

NAMES = list(declared.fields())
WITH_FLAG = list(declared.names_with_flag())
WITH_VARIABLE = [name for name in NAMES if declared.environment_variable(name)]
NUMBERS = [name for name in NAMES if declared.kind(name) in (int, float)]
DOCS = Path(__file__).parents[3] / "docs"


def another_value(name: str) -> Any:
    """A valid value that is not the default."""
    if choices := declared.choices(name):
        return next(choice for choice in choices if choice != declared.default(name))
    kind, default, facts = declared.kind(name), declared.default(name), declared.facts(name)
    if kind is bool:
        return not default
    if facts.low is not None:
        return kind(facts.low) if facts.low != default else kind(facts.high)
    if name in (
        "encoding",
        "csv_delimiter",
        "teacher_url",
        "mix",
        "keep_answers",
        "report_to",
        "teacher_devices",
        "teacher_weights",
    ):  # Not every text is one.
        return declared.facts(name).examples[0]
    return "something" if kind is str else {"mine": {"id": "owner/texts"}}


def with_complement(name: str, value: Any) -> dict[str, Any]:
    """`value` for a parameter, together with what follows from it."""
    other = declared.facts(name).complement
    return {name: value} | ({other: 1 - value} if other else {})


def differences(given: dict[str, Any], **layers: Any) -> dict[str, Any]:
    """The values of the configuration that come out other than their defaults."""
    values = asdict(resolve(given, **layers).parameters)
    return {name: value for name, value in values.items() if value != declared.default(name)}


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture
def command() -> typer.core.TyperCommand:
    """`distill`, as the command line really has it."""
    group: Any = typer.main.get_command(cli.app)
    return group.commands["distill"]


# --- one face after the other -----------------------------------------------------------------------------------------


def test_the_signature_is_the_declaration() -> None:
    arguments = inspect.signature(distill_models).parameters
    assert list(arguments)[: len(NAMES)] == NAMES
    for name in NAMES:
        assert arguments[name].default == declared.default(name)
        assert arguments[name].annotation == declared.argument_type(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_a_value_of_the_parameter(name: str) -> None:
    assert differences({name: declared.default(name)}) == {}


@pytest.mark.parametrize("name", WITH_FLAG)
def test_a_flag_sets_its_parameter_and_nothing_else(name: str, command: typer.core.TyperCommand) -> None:
    value = another_value(name)
    flags = declared.flags(name)
    arguments = [flags[0 if value else 1]] if isinstance(value, bool) else [flags[0], text_of(value)]
    context = command.make_context("distill", arguments)
    given = {
        key: setting for key, setting in context.params.items() if key in declared.fields() and setting is not None
    }
    assert list(given) == [name]
    assert differences(given) == with_complement(name, value)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_FLAG])
def test_what_has_no_flag_is_no_option(name: str, command: typer.core.TyperCommand) -> None:
    assert declared.flags(name) == ()
    assert name not in [option.name for option in command.params]


@pytest.mark.parametrize("name", WITH_VARIABLE)
def test_a_variable_sets_its_parameter(name: str) -> None:
    value = another_value(name)
    variable = f"DISTILLKIT_{name.upper()}"
    assert declared.environment_variable(name) == variable
    assert differences({}, environment={variable: text_of(value)}) == with_complement(name, value)


def test_only_a_mapping_has_no_variable() -> None:
    assert [name for name in NAMES if name not in WITH_VARIABLE] == ["model_kwargs", "datasets"]


@pytest.mark.parametrize("name", NAMES)
def test_a_key_of_a_configuration_file_sets_its_parameter(name: str, tmp_path: Path) -> None:
    value = another_value(name)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({name: value}), encoding="utf-8")
    assert differences({}, config_file=path) == with_complement(name, value)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_texts_and_pages_have_every_parameter_in_its_order(lang: str) -> None:
    assert list(help_texts(lang)) == NAMES
    page = (DOCS / parameter_pages.FILES[lang]).read_text(encoding="utf-8")
    by_group = [name for names in declared.sections().values() for name in names]
    assert re.findall(r"^### `(\w+)`$", page, re.MULTILINE) == by_group
    assert re.findall(r"^\| \[`(\w+)`\]", page, re.MULTILINE) == NAMES


def test_the_page_counts_the_parameters() -> None:
    page = (DOCS / parameter_pages.FILES["en"]).read_text(encoding="utf-8")
    core = len(declared.core_names())
    assert f"take {core} parameters, and {len(NAMES) - core} more" in page


# --- facts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_has_a_range_and_bounds_of_what_is_possible(name: str) -> None:
    facts = declared.facts(name)
    assert facts.low is not None
    assert facts.high is not None
    assert facts.possible is not None
    assert facts.possible.holds(facts.low)
    assert facts.possible.holds(facts.high)


@pytest.mark.parametrize("name", [name for name in NUMBERS if not declared.facts(name).complement])
def test_the_impossible_is_refused_though_ranges_are_lifted(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: -1 is impossible, it must be ") as caught:
        resolve({name: -1, "allow_out_of_range": True})
    assert declared.range_words(name) in str(caught.value.hint)


@pytest.mark.parametrize("name", NAMES)
def test_facts_name_parameters_and_groups_that_exist(name: str) -> None:
    facts = declared.facts(name)
    assert facts.group in declared.GROUPS
    assert facts.topic in declared.TOPICS if declared.is_advanced(name) else facts.topic is None
    assert {facts.replaced_by, facts.complement} - {None} <= set(NAMES)
    if facts.complement:
        assert declared.facts(facts.complement).complement == name
    if facts.replaced_by:
        assert declared.is_optional(facts.replaced_by)
    if facts.may_grow:
        assert declared.kind(name) is int


@pytest.mark.parametrize("name", [name for name in NAMES if declared.facts(name).used_by])
def test_a_setting_without_effect_is_noted(name: str) -> None:
    use = declared.facts(name).used_by
    unused = {"box_type": "black", "alpha": 0.0} if use else {}
    note = f"{name} has no effect here: it is used by {use.words if use else ''}"
    assert note in resolve({name: another_value(name), **unused}).notes
    assert not [note for note in resolve(unused).notes if note.startswith(name)]


def test_words_in_facts_name_real_flags_and_values() -> None:
    flags = {flag for name in NAMES for flag in declared.flags(name)}
    for name in NAMES:
        use = declared.facts(name).used_by
        assert set(re.findall(r"--[a-z-]+", use.words if use else "")) <= flags


# --- choices from a table of the registry --------------------------------------------------------------------------------


def test_choices_are_those_of_the_table() -> None:
    assert declared.choices("divergence") == tuple(registry.DIVERGENCES)
    assert declared.choices("box_type") == ("white", "black")
    assert declared.choices("dataset") == ()


def test_a_new_line_in_the_table_is_a_new_choice_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        resolve({"divergence": "hellinger"})
    assert caught.value.message == (
        "divergence: 'hellinger' is not one of forward-kl, reverse-kl, jsd, skew-kl, skew-reverse-kl, alpha-beta, "
        "total-variation, taid (argument)"
    )
    monkeypatch.setitem(registry.DIVERGENCES, "hellinger", "distillkit.losses.divergences:forward_kl")
    assert resolve({"divergence": " hellinger "}).parameters.divergence == "hellinger"
    assert parameter_pages.as_json("divergence")["choices"][-1] == "hellinger"
    assert "hellinger" in parameter_pages.markdown("ru")
    assert "hellinger" in typing.get_args(declared.argument_type("divergence"))
    with pytest.raises(UsageError, match="did you mean 'hellinger'"):
        resolve({"divergence": "helinger"})


def test_a_choice_of_a_table_is_a_choice_in_json() -> None:
    facts = parameter_pages.as_json("divergence")
    assert facts["type"] == "one of"
    assert facts["choices"] == list(registry.DIVERGENCES)
    json.dumps(facts)
