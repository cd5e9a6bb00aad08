"""The help of the program and of its subcommands: options under the headings of the declaration, advanced ones on request.

A terminal sees a panel for each heading; a pipe, NO_COLOR, TERM=dumb and a terminal whose characters lack the frames see
plain headings, with the same lines below them.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from distillkit.settings import declared
from distillkit.settings.help_texts import group_title
from distillkit.streams import OutputStream, is_terminal

PANEL_RUN = "Run"
PANEL_PROGRAM = "This program"
_ARGUMENTS, _OPTIONS, _COMMANDS = "Arguments", "Options", "Commands"
_WIDEST = 100
_NARROWEST = 40
# A name that is longer stands on a line of its own, above its text.
_NAME_COLUMN = 30
_FRAME = "╭╮╰╯│─"
_HELP = "show this and exit"


@dataclass
class Section:
    """A heading and what stands below it.

    Attributes:
        rows: (what is typed, what it is) of each entry.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)

    def lines(self, width: int) -> list[tuple[str, str]]:
        """(left column, right column) of each line, `width` columns wide at most where no single word is longer."""
        column = min(_NAME_COLUMN, width // 2, max(len(name) for name, _ in self.rows) + 2)
        shown: list[tuple[str, str]] = []
        for name, text in self.rows:
            # `default: 8` stays together.
            together = text.replace("default: ", "default:\u00a0")
            wrapped = textwrap.wrap(together, width - column, break_on_hyphens=False) or [""]
            broken = [line.replace("\u00a0", " ") for line in wrapped]
            if len(name) + 2 > column:
                names = textwrap.wrap(name, width, subsequent_indent="    ", break_long_words=False)
                shown += [(line, "") for line in names]
            else:
                shown.append((f"{name:<{column}}", broken.pop(0)))
            shown += [(" " * column, line) for line in broken]
        return shown


# --- what an option says ----------------------------------------------------------------------------------------------


def _typed(option: Any) -> str:
    """`-p, --preset NAME`, `--[no-]save-plot`, `--no-cuda/--cuda`."""
    if option.param_type_name == "argument":
        return option.display_name_raw.upper()
    names = ", ".join(sorted(option.opts, key=len))
    for opposite in option.secondary_opts:
        usual = opposite == names.replace("--", "--no-", 1)
        names = opposite.replace("--no-", "--[no-]") if usual else f"{names}/{opposite}"
    return names if option.is_flag else f"{names} {option.metavar or _kind_words(option)}"


def _kind_words(option: Any) -> str:
    kind = option.type_descriptor.annotation
    return {"int": "INTEGER", "float": "NUMBER", "Path": "FILE"}.get(getattr(kind, "__name__", ""), "TEXT")


def _said(option: Any) -> str:
    """Its help, with the default and the environment variable that it says itself."""
    extra: list[str] = []
    if option.envvar and option.show_envvar:
        extra.append(f"environment: {option.envvar}")
    if isinstance(option.show_default, str):
        extra.append(f"default: {option.show_default}")
    elif option.show_default and option.default not in (None, False) and not callable(option.default):
        extra.append(f"default: {option.default}")
    text = _HELP if option.name == "help" else option.help
    return " ".join(filter(None, [text, f"[{'; '.join(extra)}]" if extra else ""]))


def _title(option: Any) -> str:
    if option.rich_help_panel:
        return option.rich_help_panel
    if option.param_type_name == "argument":
        return _ARGUMENTS
    return PANEL_PROGRAM if option.name == "help" else _OPTIONS


def _is_folded(option: Any) -> bool:
    """Whether only `--help-all` lists it."""
    if option.name not in declared.fields() or not declared.is_advanced(option.name):
        return False
    facts = declared.facts(option.name)
    # `--seed` of a demo or a chat is an option of its own.
    return option.rich_help_panel == group_title(facts.topic or facts.group)


def option_sections(options: Sequence[Any], *, everything: bool) -> list[Section]:
    """The options of a command under their headings.

    Args:
        everything: the advanced ones too.
    """
    order = [_ARGUMENTS, PANEL_RUN, _OPTIONS, *map(group_title, declared.sections()), PANEL_PROGRAM]
    sections = {title: Section(title) for title in order}
    for option in options:
        if not option.hidden and (everything or not _is_folded(option)):
            sections[_title(option)].rows.append((_typed(option), _said(option)))
    return [section for section in sections.values() if section.rows]


# --- the page ---------------------------------------------------------------------------------------------------------


def _page(usage: str, about: str, sections: Sequence[Section], footer: Sequence[str]) -> str:
    """The whole help, as standard output can show it."""
    stream = OutputStream(sys.stdout, "standard output")
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
    with_panels = is_terminal(stream) and not os.environ.get("NO_COLOR") and stream.can_encode(_FRAME)
    head = [
        *textwrap.wrap(usage, width, subsequent_indent="       "),
        "",
        *textwrap.wrap(about, width - 2, initial_indent="  ", subsequent_indent="  "),
        "",
    ]
    tail = [part for line in footer for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    tail = ["", *tail] if tail else []
    if with_panels:
        from distillkit.terminal import panels

        # A frame and a blank on either side.
        body = panels([(section.title, section.lines(width - 4)) for section in sections], width)
        return stream.fitting("\n".join([*head, body, *tail]))
    lines = list(head)
    for section in sections:
        lines += [f"{section.title}:"]
        lines += [f"  {left}{right}".rstrip() for left, right in section.lines(width - 2)]
        lines.append("")
    return stream.fitting("\n".join([*lines[:-1], *tail]))


class _LightParameters:
    """Typer loads pydantic to read the value of an option, also of one that was not given and whose value is None."""

    def get_params(self, ctx: Any) -> list[Any]:
        options = super().get_params(ctx)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        for option in options:
            if not option.required and "process_value" not in vars(option):
                option.process_value = _read_if_given(option)
        return options


def _read_if_given(option: Any) -> Any:
    read = option.process_value

    def process_value(ctx: Any, value: Any) -> Any:
        if value is not None:
            return read(ctx, value)
        return option.callback(ctx, option, None) if option.callback is not None else None

    return process_value


class Command(_LightParameters, TyperCommand):
    """A subcommand that shows its help in this way."""

    def get_help(self, ctx: Any) -> str:
        return self.page(ctx, everything=False)

    def page(self, ctx: Any, *, everything: bool) -> str:
        """The help; with `everything` the advanced options too."""
        options = self.get_params(ctx)
        folded = sum(not option.hidden and _is_folded(option) for option in options)
        footer: list[str] = []
        if folded and not everything:
            footer.append(
                f"{folded} more option{'' if folded == 1 else 's'} for advanced use: {ctx.command_path} --help-all"
            )
        if folded:
            footer.append("All about one parameter: distillkit params NAME")
        usage = " ".join(["Usage:", ctx.command_path, *self.collect_usage_pieces(ctx)])
        return _page(usage, self.help or "", option_sections(options, everything=everything), footer)


class Group(_LightParameters, TyperGroup):
    """The program itself."""

    def get_help(self, ctx: Any) -> str:
        sections: dict[str, Section] = {}
        for name, command in self.commands.items():
            title: Any = getattr(command, "rich_help_panel", None)
            title = title if isinstance(title, str) else _COMMANDS
            sections.setdefault(title, Section(title)).rows.append((name, command.help or ""))
        options = Section(_OPTIONS, [(_typed(option), _said(option)) for option in self.get_params(ctx)])
        usage = " ".join(["Usage:", ctx.command_path, *self.collect_usage_pieces(ctx)])
        return _page(usage, self.help or "", [*sections.values(), options], [self.epilog] if self.epilog else [])


def show_all(ctx: typer.Context, wanted: bool) -> None:
    """The callback of `--help-all`."""
    command = ctx.command
    if wanted and isinstance(command, Command):
        typer.echo(command.page(ctx, everything=True))
        raise typer.Exit
