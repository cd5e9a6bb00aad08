"""Command line options derived from the declared parameters, and the reverse: which of them were given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from distillkit.settings import parameters as declared
from distillkit.settings.help_texts import group_title, help_text

PANEL_RUN = "Run"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(name: str) -> str:
    choices = declared.choices(name)
    if choices:
        return "|".join(choices)
    return {int: "INTEGER", float: "NUMBER"}.get(declared.kind(name), "TEXT")


def parameter_option(name: str) -> inspect.Parameter:
    """One declared parameter as an option. It arrives as text, or as None where it was not given."""
    limits = declared.range_words(name)
    # Typer would put what is no literal default in brackets within brackets.
    facts = (
        f"{limits}; default: {_show(declared.default(name))}" if limits else f"default: {_show(declared.default(name))}"
    )
    words = f"{help_text(name).what} [{facts}]"
    common: dict[str, Any] = {
        "help": words,
        "rich_help_panel": group_title(declared.facts(name).group),
        "show_default": False,
    }
    if declared.types()[name] is bool:
        option = typer.Option("/".join(declared.flags(name)), **common)
        annotation: Any = Annotated[bool | None, option]
    else:
        option = typer.Option(declared.flag(name), metavar=_metavar(name), **common)
        annotation = Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def with_parameters(names: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these parameters; it receives the given ones as the mapping `given`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "given"]
        derived = [parameter_option(name) for name in names]

        def wrapper(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(given={name: value for name, value in given.items() if value is not None}, **values)

        wrapper.__name__ = command.__name__
        wrapper.__doc__ = command.__doc__
        signature = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own] + derived
        wrapper.__signature__ = inspect.Signature(signature)  # pyright: ignore[reportFunctionMemberAccess]
        wrapper.__annotations__ = {item.name: item.annotation for item in signature}
        return wrapper

    return decorate
