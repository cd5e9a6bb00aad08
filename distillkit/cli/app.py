"""The commands: wiring only. Stages, torch and transformers are imported when a stage runs, not for --help."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from distillkit import __version__
from distillkit.cli.help_pages import Group
from distillkit.cli.options import (
    OUTPUT,
    command,
    later_parameters,
    stage_option,
)
from distillkit.console import Console
from distillkit.errors import UsageError
from distillkit.stages import STAGES, StageSpec, stage_parameters

app = typer.Typer(
    name="distillkit",
    cls=Group,
    help="Distil a large causal language model into a small one.",
    epilog="Start with:  distillkit distill --preset quickstart",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"distillkit {__version__}\n")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Distil a large causal language model into a small one."""


_STAGES, _STUDENT, _ABOUT = "Stages of a run", "The trained student", "What there is"


# --- stages that can begin a run --------------------------------------------------------------------------------------


@command(
    app,
    "distill",
    help=STAGES["distill"].help,
    panel=_STAGES,
    options=("preset", "config", "run to continue", "only", "force", "dry-run", "show-all"),
    parameters=stage_parameters("distill"),
)
def distill(console: Console, *, only: bool, **request: Any) -> None:
    from distillkit.cli import commands
    from distillkit.cli.request import Request

    commands.run_distill(Request(**request), console, only=only)


@command(
    app,
    "check-env",
    help=STAGES["check-env"].help,
    panel=_STAGES,
    options=("preset", "config", "run to record in", "force"),
    parameters=stage_parameters("check-env"),
)
def check_env(console: Console, **request: Any) -> None:
    from distillkit.cli import commands
    from distillkit.cli.request import Request

    commands.run_check_env(Request(**request), console)


@command(
    app,
    "prepare-data",
    help=STAGES["prepare-data"].help,
    panel=_STAGES,
    options=("preset", "config", "run", "force", "dry-run", "show-all"),
    parameters=stage_parameters("prepare-data"),
    # A script names all settings of a run at its first stage; those of the training are kept for it.
    later=later_parameters("prepare-data"),
)
def prepare_data(console: Console, **request: Any) -> None:
    from distillkit.cli import commands
    from distillkit.cli.request import Request

    commands.run_prepare_data(Request(**request), console)


@command(
    app,
    "tune",
    help=STAGES["tune"].help,
    panel=_STAGES,
    options=("preset", "config", "run", "force", "dry-run", "show-all"),
    parameters=stage_parameters("tune"),
    own=map(stage_option, STAGES["tune"].options),
)
def tune(console: Console, **request: Any) -> None:
    from distillkit.cli import commands
    from distillkit.cli.request import Request

    keywords = [option.keyword for option in STAGES["tune"].options]
    own = {keyword: value for keyword in keywords if (value := request.pop(keyword)) is not None}
    commands.run_tune(Request(**request), console, own)


# --- stages of a trained run, from the registry -----------------------------------------------------------------------


def _add_later_stage(stage: str, spec: StageSpec) -> None:
    keywords = [option.keyword for option in spec.options]

    def run_stage(console: Console, **request: Any) -> None:
        from distillkit.cli import commands

        own = {keyword: value for keyword in keywords if (value := request.pop(keyword)) not in (None, [])}
        if any(option.shows_only and option.keyword in own for option in spec.options):
            commands.run_shown_stage(stage, console, options=own, **request)
        else:
            commands.run_later_stage(stage, console, options=own, **request)

    run_stage.__name__ = spec.module
    command(
        app,
        stage,
        help=spec.help,
        panel=_STAGES,
        options=("run", "output-dir", "force"),
        parameters=stage_parameters(stage),
        own=map(stage_option, spec.options),
    )(run_stage)


_written_out = {registered.name for registered in app.registered_commands}
for _stage, _spec in STAGES.items():
    if _stage not in _written_out:
        _add_later_stage(_stage, _spec)


# --- commands on a trained run ----------------------------------------------------------------------------------------


@command(app, "chat", panel=_STUDENT, options=("run", "output-dir"), output=("quiet", "debug"))
def chat(
    console: Console,
    who: Annotated[str, typer.Option("--with", help="who answers: teacher, before or after")] = "after",
    system: Annotated[str | None, typer.Option("--system", help="what the system says first")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the likeliest token", min=0)] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="the share of probability that is drawn from")] = 0.9,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="an answer is cut off after so many", min=1)] = 512,
    seed: Annotated[int, typer.Option("--seed", help="of the draws", min=0)] = 0,
    json_lines: Annotated[bool, typer.Option("--json", help="one JSON object on a line for each answer")] = False,
    *,
    run: str | None,
    output_dir: str,
) -> None:
    """Talk with a model of a run; through a pipe each line is a question."""
    from distillkit.cli import chat as chatting

    options = chatting.ChatOptions(who, system, temperature, top_p, new_tokens, seed, json_lines)
    chatting.run_chat(options, console, run=run, output_dir=output_dir)


@command(app, "report", options=("run", "output-dir"))
def report(
    console: Console,
    show: Annotated[bool, typer.Option("--open", help="show it in a browser")] = False,
    *,
    run: str | None,
    output_dir: str,
) -> None:
    """Write report.html, one page that tells what a run came to; of an unfinished run, what is known so far."""
    from distillkit.cli import report_command

    report_command.run_report(run, output_dir, console, show=show)


@command(app, "compare", options=("output-dir",))
def compare(
    console: Console,
    named: Annotated[list[str], typer.Argument(metavar="RUN", help="two runs or more, by name or folder")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", help="where compare.html and compare.png go", show_default="where the first run is"
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="show the page in a browser")] = False,
    students_only: Annotated[
        bool, typer.Option("--students-only", help="score no teacher where texts have to be scored again")
    ] = False,
    *,
    output_dir: str,
) -> None:
    """Compare runs on the same held-out texts: scores, paired intervals, settings, cost; writes compare.html."""
    from distillkit.cli import compare_command

    request = compare_command.CompareRequest(tuple(named), output_dir, out, show, students_only)
    compare_command.run_compare(request, console)


# --- what leaves the run ----------------------------------------------------------------------------------------------


@command(app, "export", panel=_STUDENT, options=("run", "output-dir"), output=OUTPUT)
def export(
    console: Console,
    form: Annotated[str, typer.Option("--format", help="safetensors or gguf")] = "gguf",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="number format of the weights: f32, f16, bf16; for gguf also q8_0, q5_1, q5_0, q4_1, q4_0",
            show_default="f16 for gguf, else as they are",
        ),
    ] = None,
    which: Annotated[
        str | None, typer.Option("--which", help="best or final", show_default="the student that the run offers")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="the file or folder to write", show_default="in export/ of the run")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what lies at --out")] = False,
    *,
    run: str | None,
    output_dir: str,
) -> None:
    """Write the student of a run as a GGUF file (llama.cpp, Ollama) or as a folder of its own, and check it."""
    from distillkit.cli import export_commands

    request = export_commands.ExportRequest(run, output_dir, form, dtype, which, out, overwrite)
    export_commands.run_export(request, console)


@command(app, "push", panel=_STUDENT, options=("run", "output-dir"), output=OUTPUT)
def push(
    console: Console,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the Hugging Face Hub")],
    which: Annotated[
        str | None, typer.Option("--which", help="best or final", show_default="the student that the run offers")
    ] = None,
    gguf: Annotated[
        list[str] | None,
        typer.Option("--gguf", help="push a GGUF file too: its path, or the format of one in export/; repeatable"),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="everybody may see a repository that is made")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="also into a repository that holds something else")
    ] = False,
    *,
    run: str | None,
    output_dir: str,
) -> None:
    """Put the student of a run on the Hugging Face Hub, with its card; private unless --public."""
    from distillkit.cli import export_commands

    request = export_commands.PushRequest(run, output_dir, repository, which, tuple(gguf or ()), public, overwrite)
    export_commands.run_push(request, console)


# --- what comes from other tools --------------------------------------------------------------------------------------


@command(app, "import-logprobs", output=OUTPUT)
def import_logprobs(
    console: Console,
    rows: Annotated[str, typer.Argument(metavar="ROWS", help="a .parquet or .jsonl file, or a folder of these")],
    form: Annotated[str, typer.Option("--format", help="whose rows they are: arcee or axolotl")],
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="a model whose tokenizer is the teacher's")],
    out: Annotated[str, typer.Option("--out", help="the folder to write")],
    compression: Annotated[
        str | None,
        typer.Option(
            "--compression", help="arcee: the compression_config.yaml of the rows", show_default="beside the rows"
        ),
    ] = None,
    logprobs: Annotated[str, typer.Option("--logprobs-column", help="axolotl: the log-probabilities")] = "logprobs",
    messages: Annotated[str, typer.Option("--messages-column", help="axolotl: the conversations")] = "messages",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier import at --out")] = False,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="a model's own code may run")] = False,
) -> None:
    """Make a teacher of log-probabilities that another tool has stored: no weights are needed."""
    from distillkit.cli import import_commands

    import_commands.run_import(
        import_commands.Given(
            rows, form, tokenizer, out, compression, logprobs, messages, overwrite, trust_remote_code
        ),
        console,
    )


# --- commands that only inform ----------------------------------------------------------------------------------------


@command(app, "params", panel=_ABOUT, output=("json", "lang"))
def params(
    console: Console,
    name: Annotated[str | None, typer.Argument(help="a parameter, for its whole description")] = None,
) -> None:
    """Explain the parameters."""
    from distillkit.cli import information

    information.show_params(name, console)


@command(app, "presets", panel=_ABOUT, output=("json",))
def presets(
    console: Console,
    action: Annotated[str | None, typer.Argument(help="'show' prints one preset")] = None,
    name: Annotated[str | None, typer.Argument(help="the preset")] = None,
) -> None:
    """List the presets, or print one: distillkit presets show NAME."""
    from distillkit.cli import information

    information.show_presets(action, name, console)


@command(app, "runs", panel=_ABOUT, options=("output-dir",), output=("json", "lang"))
def runs(
    console: Console,
    action: Annotated[str | None, typer.Argument(help="'show' tells all of one run, 'rm' removes runs")] = None,
    names: Annotated[list[str] | None, typer.Argument(metavar="RUN…", help="the runs")] = None,
    sure: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    *,
    output_dir: str,
) -> None:
    """List the runs of an output directory, show one, or remove some: distillkit runs rm RUN…"""
    from distillkit.cli import runs_command

    runs_command.run_runs(action, tuple(names or ()), output_dir, console, sure=sure)


@command(app, "cache", panel=_ABOUT, options=("output-dir",), output=("json",))
def cache(
    console: Console,
    action: Annotated[str | None, typer.Argument(help="'prune' deletes caches")] = None,
    names: Annotated[list[str] | None, typer.Argument(help="the caches to delete")] = None,
    everything: Annotated[bool, typer.Option("--all", help="delete all of them")] = False,
    unused_days: Annotated[
        float | None, typer.Option("--unused-days", help="delete those not used for so many days", min=0)
    ] = None,
    *,
    output_dir: str,
) -> None:
    """List the teacher caches of an output directory, or delete some: distillkit cache prune NAME…"""
    from distillkit.cli import information

    chosen = information.PruneChoice(tuple(names or ()), everything, unused_days)
    information.show_caches(action, chosen, output_dir, console)


@command(app, "schema", panel=_ABOUT, output=())
def schema(
    console: Console,
    name: Annotated[str | None, typer.Argument(help="a command that has --json, or a part of its object")] = None,
) -> None:
    """List the JSON schemas of what --json prints, or print one."""
    from distillkit.cli import json_schemas

    json_schemas.show_schema(name, console)


# --- several processes ------------------------------------------------------------------------------------------------


@app.command("launch", context_settings={"ignore_unknown_options": True})
def launch(
    arguments: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="a command of distillkit with its options")
    ],
    processes: Annotated[
        int | None, typer.Option("--processes", help="how many", min=1, show_default="the GPUs of this machine")
    ] = None,
) -> int:
    """Run a command in several processes of this machine: distillkit launch --processes 2 -- distill …"""
    from distillkit.processes.launching import run_processes

    known = {command.name for command in app.registered_commands} - {"launch"}
    if arguments[0] not in known:
        # Told here, in a moment, and not by every one of the processes.
        raise UsageError(
            f"launch: no such command {arguments[0]!r}", hint="distillkit launch --processes 2 -- distill …"
        )
    return run_processes(arguments, processes)
