"""The parameter reference, rendered from the declaration and the help texts: `distillkit params`, and with the fields
of the JSON objects the pages in docs/.

python -m distillkit.cli.parameter_pages --write docs      regenerates the pages
python -m distillkit.cli.parameter_pages --check docs      fails if they are stale
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit.cli import json_schemas, written_pages
from distillkit.registry import Table
from distillkit.settings import declared
from distillkit.settings.help_texts import LANGUAGES, group_title, help_text

FILES = {"en": "parameters.md", "ru": "parameters.ru.md"}

_WIDTH, _NARROWEST = 78, 38

_LABELS: dict[str, dict[str, str]] = {
    "en": {
        "text": "text", "int": "whole number", "float": "number", "bool": "yes or no", "mapping": "mapping",
        "choice": "one of", "or none": "or none", "none": "none", "empty": "empty", "yes": "yes", "no": "no",
        "flag": "flag", "key": "in YAML and Python", "environment": "environment", "type": "type", "default": "default",
        "range": "range", "values": "values", "examples": "examples", "no flag": "none, it is set in a `--config` file",
        "effect": "How it changes the result", "choose": "How to choose it", "example": "Example",
        "parameter": "parameter", "what": "what it is", "range or values": "range or values",
    },
    "ru": {
        "text": "текст", "int": "целое число", "float": "число", "bool": "да или нет", "mapping": "словарь",
        "choice": "одно из значений", "or none": "или не задано", "none": "не задано", "empty": "пусто", "yes": "да", "no": "нет",
        "flag": "флаг", "key": "в YAML и Python", "environment": "переменная среды", "type": "тип", "default": "по умолчанию",
        "range": "диапазон", "values": "значения", "examples": "примеры значений", "no flag": "нет, задаётся в файле для `--config`",
        "effect": "Как влияет на результат", "choose": "Как выбрать", "example": "Пример",
        "parameter": "параметр", "what": "что это", "range or values": "диапазон или значения",
    },
}  # fmt: skip

_INTRODUCTION = {
    "en": """\
# Parameters

[По-русски](parameters.ru.md)

`distill_models()` and `distillkit distill` take {core} parameters, and {advanced} more for advanced use. This page is \
generated from their declaration in `distillkit/settings/parameters.py` and the texts in `distillkit/settings/help_texts/` by \
`python -m distillkit.cli.parameter_pages --write docs`; a test keeps it in step. In a terminal, `distillkit params NAME` shows the same.

- **Where values come from.** The later wins: default, preset (`--preset`), configuration file (`--config`), environment \
variable, flag or Python argument. The table at the start of a run shows where each value came from.
- **Ranges.** A value outside its range is refused before anything is loaded (exit code 2); `--allow-out-of-range` lifts \
the limits. What makes no sense at all is refused always.
- **Yes or no.** `--save-plot` means yes, `--no-save-plot` means no; in YAML files `true` and `false`.
""",
    "ru": """\
# Параметры

[In English](parameters.md)

У `distill_models()` и `distillkit distill` {core} параметров и ещё {advanced} для опытных пользователей. Эта страница \
построена по их объявлению в `distillkit/settings/parameters.py` и текстам в `distillkit/settings/help_texts/` командой \
`python -m distillkit.cli.parameter_pages --write docs`; за тем, чтобы она не устаревала, следит тест. В терминале то же самое \
показывает `distillkit params ИМЯ --lang ru`.

- **Откуда берутся значения.** Каждый следующий источник важнее предыдущего: значение по умолчанию, пресет (`--preset`), \
файл конфигурации (`--config`), переменная среды, флаг или аргумент в Python. Таблица в начале запуска показывает, откуда \
взято каждое значение.
- **Диапазоны.** Значение вне диапазона отвергается ещё до загрузки моделей и данных (код выхода 2); ограничения снимает \
`--allow-out-of-range`. То, что вообще не имеет смысла, отвергается всегда.
- **Да или нет.** `--save-plot` означает «да», `--no-save-plot` — «нет»; в файлах YAML пишут `true` и `false`.
""",
}


# --- facts as text --------------------------------------------------------------------------------------------------


def type_words(name: str, lang: str = "en") -> str:
    """The type of a parameter: `whole number`, `text or none`."""
    labels = _LABELS[lang]
    if declared.choices(name):
        return labels["choice"]
    key = {int: "int", float: "float", bool: "bool", str: "text"}.get(declared.kind(name), "mapping")
    return f"{labels[key]} {labels['or none']}" if declared.is_optional(name) else labels[key]


def default_words(name: str, lang: str = "en") -> str:
    """The default of a parameter."""
    value, labels = declared.default(name), _LABELS[lang]
    if value is None:
        return labels["none"]
    if isinstance(value, bool):
        return labels["yes"] if value else labels["no"]
    if isinstance(value, int | float):
        return declared.number_words(value)
    return str(value) if value else labels["empty"]


def limits_words(name: str) -> str:
    """`1–128`, or `white, black`; "" where every value of the type will do."""
    if limits := declared.range_words(name):
        return limits
    return ", ".join(declared.choices(name))


# --- for the terminal and scripts ------------------------------------------------------------------------------------


def overview_rows(lang: str = "en") -> list[tuple[str, str, str, str]]:
    """(flag, default, range or values, what it is) of every parameter, in the order of the declaration."""
    return [
        (
            declared.flag(name) if declared.flags(name) else name,
            default_words(name, lang),
            limits_words(name),
            help_text(name, lang).what,
        )
        for name in declared.fields()
    ]


def as_json(name: str, lang: str = "en") -> dict[str, Any]:
    """Everything that is known of a parameter, for `--json`."""
    facts, texts = declared.facts(name), help_text(name, lang)
    return {
        "name": name,
        "flags": list(declared.flags(name)),
        "environment": declared.environment_variable(name),
        "group": facts.group,
        "topic": facts.topic,
        "type": type_words(name),
        "default": declared.default(name),
        "low": facts.low,
        "high": facts.high,
        "choices": list(declared.choices(name)),
        "examples": list(facts.examples),
        "what": texts.what,
        "effect": texts.effect,
        "choose": texts.choose,
        "example": texts.example,
    }


def _facts_rows(name: str, lang: str) -> list[tuple[str, list[str], str]]:
    """(what, values as one types them, a remark on them) of the facts of a parameter that there are."""
    labels, facts = _LABELS[lang], declared.facts(name)
    variable, choices = declared.environment_variable(name), declared.choices(name)
    default, shown = declared.default(name), default_words(name, lang)
    literal = default is not None and not isinstance(default, bool) and default != {}
    rows = [
        (labels["flag"], list(declared.flags(name)), "" if declared.flags(name) else labels["no flag"]),
        (labels["key"], [name], ""),
    ]
    if variable is not None:
        rows.append((labels["environment"], [variable], ""))
    rows.append((labels["type"], list(choices), type_words(name, lang)))
    rows.append((labels["default"], [shown] if literal else [], "" if literal else shown))
    if facts.low is not None:
        rows.append((labels["range"], [], limits_words(name)))
    if facts.examples:
        rows.append((labels["examples"], list(facts.examples), ""))
    return rows


def describe(name: str, lang: str = "en") -> str:
    """All about one parameter, as text for a terminal.

    Raises:
        KeyError: unknown parameter or language.
    """
    labels, texts = _LABELS[lang], help_text(name, lang)
    rows = [
        (what, " ".join(filter(None, [about, ", ".join(values)]))) for what, values, about in _facts_rows(name, lang)
    ]
    width = max(len(what) for what, _ in rows)
    page = max(_NARROWEST, min(_WIDTH, shutil.get_terminal_size().columns - 2))
    lines = [name, *textwrap.wrap(_sentence(texts.what), page, initial_indent="  ", subsequent_indent="  "), ""]
    for what, value in rows:
        lines += textwrap.wrap(
            value,
            page,
            initial_indent=f"  {what:<{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
        )
    for title, text in ((labels["effect"], texts.effect), (labels["choose"], texts.choose)):
        lines += ["", title]
        lines += textwrap.wrap(
            text, page, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        )
    lines += ["", labels["example"], textwrap.indent(texts.example, "  ")]
    return "\n".join(lines)


# --- pages -----------------------------------------------------------------------------------------------------------


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _cell(values: Sequence[str], about: str) -> str:
    code = ", ".join(f"`{value}`" for value in values)
    return " ".join(filter(None, [about, code])).replace("|", "\\|")


def _section(name: str, lang: str) -> str:
    labels, texts = _LABELS[lang], help_text(name, lang)
    kind = "shell" if texts.example.startswith("distillkit") else "yaml"
    rows = "\n".join(f"| {what} | {_cell(values, about)} |" for what, values, about in _facts_rows(name, lang))
    return f"""\
### `{name}`

{_sentence(texts.what)}

| | |
|---|---|
{rows}

**{labels["effect"]}.** {texts.effect}

**{labels["choose"]}.** {texts.choose}

```{kind}
{texts.example}
```
"""


def markdown(lang: str = "en") -> str:
    """The whole reference as a Markdown page, with the choices that this package has itself.

    Raises:
        KeyError: unknown language.
    """
    with Table.own_alone():
        return _markdown(lang)


def _markdown(lang: str) -> str:
    labels = _LABELS[lang]
    core = len(declared.core_names())
    sections = [_INTRODUCTION[lang].format(core=core, advanced=len(declared.fields()) - core)]
    head = f"| {labels['parameter']} | {labels['default']} | {labels['range or values']} | {labels['what']} |\n|---|---|---|---|\n"
    rows = [
        f"| [`{name}`](#{name}) | {default_words(name, lang)} | {limits_words(name)} | {help_text(name, lang).what} |\n"
        for name in declared.fields()
    ]
    sections.append(head + "".join(rows))
    for heading, names in declared.sections().items():
        advanced = f"{group_title('advanced', lang)}: " if heading in declared.TOPICS else ""
        sections.append(f"## {advanced}{group_title(heading, lang)}\n")
        sections += [_section(name, lang) for name in names]
    return "\n".join(sections)


def stale_pages(folder: Path) -> list[Path]:
    """The pages in `folder` that are missing or differ from their rendering."""
    return written_pages.stale(folder, rendered_pages())


def rendered_pages() -> dict[str, str]:
    """File name to text: the parameters in each language, the fields of the JSON objects."""
    return {**{FILES[lang]: markdown(lang) for lang in LANGUAGES}, json_schemas.PAGE: json_schemas.fields_page()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages. Returns the exit code: 1 where a page is stale or cannot be written."""
    return written_pages.write_or_check(arguments, rendered_pages(), "parameter_pages")


if __name__ == "__main__":
    sys.exit(main())
