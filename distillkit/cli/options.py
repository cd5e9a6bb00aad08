"""The options of the subcommands: those derived from the declared parameters, those that several commands share, and
those of one stage; and the decorator that makes a function a subcommand with them.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from distillkit.cli.help_pages import PANEL_PROGRAM, PANEL_RUN, Command, show_all
from distillkit.console import Console
from distillkit.errors import UsageError
from distillkit.registry import Table
from distillkit.settings import declared
from distillkit.settings.help_texts import group_title, help_text
from distillkit.settings.parameters import Parameters
from distillkit.stages import STAGES, StageOption, stage_parameters, wanted_stages
from distillkit.words import LANGUAGE_VARIABLE, LANGUAGES, locale_language

# What is longer is named in the text instead.
_LONGEST_METAVAR = 24


# --- shared options ---------------------------------------------------------------------------------------------------


def _option(keyword: str, kind: Any, *flags: str, **settings: Any) -> inspect.Parameter:
    """An option, of the panel "Run" if no other is named, that the command receives as `keyword`."""
    default = False if kind is bool else settings.pop("default", None)
    annotation = Annotated[kind, typer.Option(*flags, **{"rich_help_panel": PANEL_RUN, **settings})]
    return inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_RUN_FLAGS = ("--run", "-r")
# The names under which commands ask for them; the keywords are fields of `commands.Request` where there is one.
SHARED: dict[str, inspect.Parameter] = {
    "preset": _option("preset", str | None, "--preset", "-p", metavar="NAME", help="start from a preset; see: distillkit presets"),
    "config": _option(
        "config_file", Path | None, "--config", "-c", metavar="FILE", help="YAML file of parameters, for example a run's config.yaml"
    ),
    "run": _option("run", str | None, *_RUN_FLAGS, metavar="DIR", help="run directory to work on", show_default="the newest run"),
    "run to continue": _option(
        "run", str | None, *_RUN_FLAGS, metavar="DIR", help="run directory to continue", show_default="a new run"
    ),
    "run to record in": _option("run", str | None, *_RUN_FLAGS, metavar="DIR", help="record the result in this run"),
    "output-dir": _option(
        "output_dir", str, "--output-dir", metavar="DIR", default=declared.default("output_dir"), help="where the runs are",
        envvar=declared.environment_variable("output_dir"),
    ),
    "only": _option("only", bool, "--only", help="run this stage alone, nothing before or after it"),
    "force": _option("force", bool, "--force", "-f", help="redo what is complete already"),
    "dry-run": _option(
        "dry_run", bool, "--dry-run", help="show the plan: parameters, stages, memory, disk, time; change nothing"
    ),
    "show-all": _option(
        "show_all", bool, "--show-all", help="show every parameter at the start, not only what differs from the defaults",
        rich_help_panel=PANEL_PROGRAM,
    ),
    "json": _option(
        "json", bool, "--json", help="one JSON object on stdout and nothing else there", rich_help_panel=PANEL_PROGRAM
    ),
    "quiet": _option("quiet", bool, "--quiet", "-q", help="only warnings and errors", rich_help_panel=PANEL_PROGRAM),
    "debug": _option(
        "debug", bool, "--debug", help="show the traceback of an error", envvar="DISTILLKIT_DEBUG",
        rich_help_panel=PANEL_PROGRAM,
    ),
    "lang": _option(
        "lang", str | None, "--lang", metavar="LANG", help="language of results, plans and reports: en or ru",
        envvar=LANGUAGE_VARIABLE, show_default="that of the locale, else en", rich_help_panel=PANEL_PROGRAM,
    ),
    "help-all": _option(
        "help_all", bool, "--help-all", help="show all options, those for advanced use too, and exit", is_eager=True,
        callback=show_all, rich_help_panel=PANEL_PROGRAM,
    ),
}  # fmt: skip
OUTPUT = ("json", "quiet", "debug")
# Of commands that say something of a run, in either language.
SPOKEN_OUTPUT = (*OUTPUT, "lang")


# --- options from the declaration -------------------------------------------------------------------------------------


def _default_words(name: str) -> str:
    value = declared.default(name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _own_choices(name: str) -> tuple[str, ...]:
    """Those of this package: help comes at once, and to look what others add takes a while. `params NAME` lists them all."""
    with Table.own_alone():
        return declared.choices(name)


def _metavar(name: str) -> str:
    choices = "|".join(_own_choices(name))
    if choices:
        return choices if len(choices) <= _LONGEST_METAVAR else "CHOICE"
    return {int: "INTEGER", float: "NUMBER"}.get(declared.kind(name), "TEXT")


@functools.cache
def parameter_option(name: str, *, hidden: bool = False) -> inspect.Parameter:
    """One declared parameter as an option. It arrives as text, or as None where it was not given.

    Args:
        hidden: the help does not list it.
    """
    # Typer would put what is no literal default in brackets within brackets.
    choices = f"one of {', '.join(_own_choices(name))}" if _metavar(name) == "CHOICE" else ""
    facts = "; ".join(filter(None, [choices, declared.range_words(name), f"default: {_default_words(name)}"]))
    common: dict[str, Any] = {
        "help": f"{help_text(name).what} [{facts}]",
        "rich_help_panel": group_title(declared.facts(name).topic or declared.facts(name).group),
        "show_default": False,
        "hidden": hidden,
    }
    if declared.kind(name) is bool:
        annotation: Any = Annotated[bool | None, typer.Option("/".join(declared.flags(name)), **common)]
    else:
        annotation = Annotated[str | None, typer.Option(declared.flag(name), metavar=_metavar(name), **common)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def stage_option(option: StageOption) -> inspect.Parameter:
    """An option of one stage; None where it was not given."""
    return _option(option.keyword, option.type | None, option.flag, help=option.help, show_default=option.default_words)


# --- commands ---------------------------------------------------------------------------------------------------------


def command(
    app: typer.Typer,
    name: str,
    *,
    help: str | None = None,
    options: Sequence[str] = (),
    parameters: Sequence[str] = (),
    later: Sequence[str] = (),
    own: Iterable[inspect.Parameter] = (),
    output: Sequence[str] = SPOKEN_OUTPUT,
    panel: str | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a subcommand.

    It receives its `Console`, every option under its keyword, and, where the command takes parameters, those that were
    given as the mapping `given`.

    Args:
        help: what the command does; the function's docstring if not given.
        options: names in `SHARED`.
        parameters: names of declared parameters.
        later: more of them, which the help does not list: only later stages of the run read them.
        own: options of this command alone, besides those in the signature of the function.
        output: those of `SPOKEN_OUTPUT` that it has.
        panel: the heading under which the program's help lists it.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        shared = [SHARED[option] for option in options]
        known = {"console", *(item.name for item in shared)}
        written = [
            item.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for item in inspect.signature(function, eval_str=True).parameters.values()
            if item.kind is not inspect.Parameter.VAR_KEYWORD and item.name not in known
        ]
        if any(map(declared.is_advanced, parameters)):
            shared.append(SHARED["help-all"])
        signature = [*written, *own, *shared, *(SHARED[item] for item in output)]
        signature += [*map(parameter_option, parameters), *(parameter_option(item, hidden=True) for item in later)]

        def call(**values: Any) -> None:
            values.pop("help_all", None)  # Its callback has answered.
            answered = {item: values.pop(item) for item in output}
            asked = checked_language(answered.get("lang"))
            console = Console(
                quiet=answered.get("quiet", False),
                json_output=answered.get("json", False),
                debug=answered.get("debug", False),
                lang=asked or locale_language(os.environ),
                lang_asked=asked is not None,
            )
            if parameters:
                given = {parameter: values.pop(parameter) for parameter in (*parameters, *later)}
                values["given"] = {parameter: value for parameter, value in given.items() if value is not None}
            function(console, **values)

        call.__name__ = function.__name__
        call.__doc__ = help or function.__doc__
        call.__signature__ = inspect.Signature(signature)  # pyright: ignore[reportFunctionMemberAccess]
        call.__annotations__ = {item.name: item.annotation for item in signature}
        return app.command(name, cls=Command, rich_help_panel=panel)(call)

    return decorate


def checked_language(lang: str | None) -> str | None:
    """`lang`, if it is none or one of `LANGUAGES`.

    Raises:
        UsageError: it is another one.
    """
    if lang is not None and lang not in LANGUAGES:
        raise UsageError(f"--lang: {lang!r} is not one of {', '.join(LANGUAGES)}", hint="use --lang en or --lang ru")
    return lang


# --- options that a command does not have -----------------------------------------------------------------------------


def later_parameters(stage: str) -> tuple[str, ...]:
    """The parameters that no stage up to `stage` reads, but a later one of the same run."""
    own = stage_parameters(stage)
    return tuple(name for name in declared.names_with_flag() if name not in own)


def command_parameters(name: str) -> tuple[str, ...]:
    """The parameters that the help of a subcommand lists as options."""
    return stage_parameters(name) if name in STAGES else ()


def parameter_of(flag: str) -> str | None:
    """The parameter that a flag sets, or would set if it were an option; None for any other flag."""
    return next((name for name in declared.fields() if flag in (declared.flag(name), *declared.flags(name))), None)


def no_such_option(flag: str, parameter: str, name: str) -> UsageError:
    """The error for `flag`, which would set `parameter` and is no option of the subcommand `name`."""
    if declared.kind(parameter) is bool:
        value = str(not declared.default(parameter)).lower()
    else:
        value = [*declared.facts(parameter).examples, *declared.choices(parameter), "VALUE"][0]
    in_file = f"put it into a YAML file, `{parameter}: {value}`, and give that with --config"
    # Stages of a usual run: `tune` takes them all too, and would be named with every one.
    usual = wanted_stages(Parameters())
    takers = [stage for stage in usual if parameter in stage_parameters(stage)]
    hint = f"give it to distillkit {' or '.join(takers)}, or {in_file}" if takers else in_file
    return UsageError(f"No such option: {flag} (distillkit {name})", hint=hint)
