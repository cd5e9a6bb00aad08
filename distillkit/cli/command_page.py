"""The reference of the subcommands, docs/commands.md, rendered from the command line itself.

python -m distillkit.cli.command_page --write docs      regenerates the page
python -m distillkit.cli.command_page --check docs      fails if it is stale
"""

from __future__ import annotations

import sys
from typing import Any

import typer.main

from distillkit.cli import written_pages
from distillkit.cli.app import app
from distillkit.cli.options import SHARED, command_parameters, parameter_of
from distillkit.stages import STAGES

PAGE = "commands.md"
_INTRODUCTION = """\
# Commands

Made from the command line by `python -m distillkit.cli.command_page --write docs`; a test keeps the two in step.
`distillkit COMMAND --help` says the same. Stages take [parameters](parameters.md) as options besides those that are named here;
`--help-all` lists them all. [Exit codes](exit-codes.md) and [the objects of `--json`](json.md) have pages of their own.
"""


def commands_page() -> str:
    """A section for each command: its line of use, what it does, its own options."""
    group: Any = typer.main.get_command(app)
    sections = [_INTRODUCTION, _shared_table()]
    panels: dict[str, list[str]] = {}
    for registered in app.registered_commands:
        panel = registered.rich_help_panel
        heading = panel if isinstance(panel, str) else "Other commands"
        panels.setdefault(heading, []).append(str(registered.name))
    for heading, names in panels.items():
        sections.append(f"## {heading}\n")
        sections += [_section(name, group.commands[name]) for name in names]
    return "\n".join(sections)


def _shared_table() -> str:
    rows = []
    for option in SHARED.values():
        if option.name != "run":  # Its words differ from one command to another.
            made = option.annotation.__metadata__[0]  # Typer takes the first flag for a default.
            rows.append(f"| {_flags([made.default, *made.param_decls])} | {made.help} |")
    return "\n".join(["Options that several commands share:\n", "| option | what |", "|---|---|", *rows]) + "\n"


def _section(name: str, command: Any) -> str:
    shared = {option.name for option in SHARED.values()} - {"run"}
    arguments = [made for made in command.params if made.param_type_name == "argument"]
    own = [
        made
        for made in command.params
        if made.param_type_name == "option" and made.name not in shared and parameter_of(made.opts[0]) is None
    ]
    words = " ".join(_metavar(made) for made in arguments)
    lines = [f"### {name}\n", f"`distillkit {name} [OPTIONS]{f' {words}' if words else ''}`\n", f"{command.help}\n"]
    rows = [f"| {_flags([*made.opts, *made.secondary_opts])} | {_words(made)} |" for made in own if made.name != "help"]
    rows = [f"| `{_metavar(made)}` | {_words(made)} |" for made in arguments] + rows
    if rows:
        lines.append("\n".join(["| option | what |", "|---|---|", *rows]) + "\n")
    has = [made.opts[0] for made in command.params if made.name in shared]
    if has:
        lines.append(f"Also: {', '.join(f'`{flag}`' for flag in has)}.\n")
    if name in STAGES and (count := len(command_parameters(name))):
        lines.append(f"Takes {count} [parameters](parameters.md) as options.\n")
    return "\n".join(lines)


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _flags(flags: list[str]) -> str:
    return ", ".join(f"`{flag}`" for flag in flags)


def _words(made: Any) -> str:
    return str(made.help or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(written_pages.write_or_check(None, {PAGE: commands_page()}, "command_page"))
