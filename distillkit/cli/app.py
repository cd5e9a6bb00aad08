"""The command line: wiring only. Stages, torch and transformers are imported when a stage runs, not for --help."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from distillkit import __version__
from distillkit.cli.options import PANEL_RUN, with_parameters
from distillkit.console import Console, sanitize
from distillkit.errors import DistillkitError, Interrupted, UsageError
from distillkit.settings.parameters import names_with_flag

app = typer.Typer(
    name="distillkit",
    help="Distil a large causal language model into a small one.",
    epilog="Start with:  distillkit distill --preset quickstart",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ALL_PARAMETERS = names_with_flag()

# Typer reads these annotations at run time, also on Python 3.10.
Preset = Annotated[
    str | None,
    typer.Option("--preset", "-p", help="start from a preset; see: distillkit presets", rich_help_panel=PANEL_RUN),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="YAML file of parameters, for example a run's config.yaml", rich_help_panel=PANEL_RUN
    ),
]
Run = Annotated[
    str | None,
    typer.Option(
        "--run", "-r", help="run directory to work on", show_default="the newest run", rich_help_panel=PANEL_RUN
    ),
]
ContinuedRun = Annotated[
    str | None,
    typer.Option("--run", "-r", help="run directory to continue", show_default="a new run", rich_help_panel=PANEL_RUN),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="redo what is complete already", rich_help_panel=PANEL_RUN)]
Only = Annotated[
    bool, typer.Option("--only", help="run this stage alone, nothing before or after it", rich_help_panel=PANEL_RUN)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="show the plan: parameters, stages, memory, disk, time; change nothing",
        rich_help_panel=PANEL_RUN,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="one JSON object on stdout and nothing else there", rich_help_panel=PANEL_RUN)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="only warnings and errors", rich_help_panel=PANEL_RUN)]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="show the traceback of an error", envvar="DISTILLKIT_DEBUG", rich_help_panel=PANEL_RUN
    ),
]
OutputDir = Annotated[
    str,
    typer.Option("--output-dir", help="where the runs are", envvar="DISTILLKIT_OUTPUT_DIR", rich_help_panel=PANEL_RUN),
]


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


@app.command("distill")
@with_parameters(ALL_PARAMETERS)
def distill(
    *,
    given: Mapping[str, Any],
    preset: Preset = None,
    config: ConfigFile = None,
    run: ContinuedRun = None,
    only: Only = False,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring a run to its end: prepare the data, train the student, then validate, demo and plot."""
    from distillkit.cli import commands

    console = Console(quiet=quiet, json_output=json, debug=debug)
    request = commands.Request(given, preset, config, run, force, dry_run)
    commands.run_distill(request, console, only=only)


@app.command("check-env")
@with_parameters(ALL_PARAMETERS)
def check_env(
    *,
    given: Mapping[str, Any],
    preset: Preset = None,
    config: ConfigFile = None,
    run: Annotated[
        str | None, typer.Option("--run", "-r", help="record the result in this run", rich_help_panel=PANEL_RUN)
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check libraries, device, memory, disk and model hub; install what is missing; self-test with --run-tests."""
    from distillkit.cli import commands

    console = Console(quiet=quiet, json_output=json, debug=debug)
    commands.run_check_env(commands.Request(given, preset, config, run, force), console)


@app.command("prepare-data")
@with_parameters(ALL_PARAMETERS)
def prepare_data(
    *,
    given: Mapping[str, Any],
    preset: Preset = None,
    config: ConfigFile = None,
    run: Run = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read, clean and split the texts and encode them for both models. Starts a new run where settings are given."""
    from distillkit.cli import commands

    console = Console(quiet=quiet, json_output=json, debug=debug)
    commands.run_prepare_data(commands.Request(given, preset, config, run, force, dry_run), console)


@app.command("validate")
@with_parameters(("quality_gate",))
def validate(
    *, given: Mapping[str, Any], run: Run = None, output_dir: OutputDir = "./output", force: Force = False,
    json: Json = False, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Measure teacher, student before and student after on held-out texts, and say whether the student improved."""
    from distillkit.cli import commands

    console = Console(quiet=quiet, json_output=json, debug=debug)
    commands.run_later_stage("validate", run, output_dir, given, force, console, {})


@app.command("demo")
def demo(
    *,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            help="a text to continue; may be repeated",
            rich_help_panel=PANEL_RUN,
            show_default="held-out texts",
        ),
    ] = None,
    run: Run = None,
    output_dir: OutputDir = "./output",
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show side by side what teacher, student before and student after write."""
    from distillkit.cli import commands

    console = Console(quiet=quiet, json_output=json, debug=debug)
    commands.run_later_stage("demo", run, output_dir, {}, force, console, {"prompts": list(prompt or [])})


@app.command("plot")
def plot(
    *, run: Run = None, output_dir: OutputDir = "./output", force: Force = False,
    json: Json = False, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Draw the loss, the held-out score, the learning rate and the comparison before/after."""
    from distillkit.cli import commands

    console = Console(quiet=quiet, json_output=json, debug=debug)
    commands.run_later_stage("plot", run, output_dir, {}, force, console, {})


@app.command("params")
def params(
    name: Annotated[str | None, typer.Argument(help="a parameter, for its whole description")] = None,
    lang: Annotated[str, typer.Option("--lang", help="en or ru", envvar="DISTILLKIT_LANG")] = "en",
    json: Json = False,
) -> None:
    """Explain the parameters."""
    from distillkit.cli import commands

    commands.show_params(name, lang, Console(json_output=json))


@app.command("presets")
def presets(
    action: Annotated[str | None, typer.Argument(help="'show' prints one preset")] = None,
    name: Annotated[str | None, typer.Argument(help="the preset")] = None,
    json: Json = False,
) -> None:
    """List the presets, or print one: distillkit presets show NAME."""
    from distillkit.cli import commands

    commands.show_presets(action, name, Console(json_output=json))


@app.command("runs")
def runs(output_dir: OutputDir = "./output", json: Json = False) -> None:
    """List the runs of an output directory."""
    from distillkit.cli import commands

    commands.show_runs(output_dir, Console(json_output=json))


@app.command("cache")
def cache(
    action: Annotated[str | None, typer.Argument(help="'prune' deletes caches")] = None,
    names: Annotated[list[str] | None, typer.Argument(help="the caches to delete")] = None,
    everything: Annotated[bool, typer.Option("--all", help="delete all of them")] = False,
    unused_days: Annotated[
        float | None, typer.Option("--unused-days", help="delete those not used for so many days", min=0)
    ] = None,
    output_dir: OutputDir = "./output",
    json: Json = False,
) -> None:
    """List the teacher caches of an output directory, or delete some: distillkit cache prune NAME…"""
    from distillkit.cli import commands

    chosen = commands.PruneChoice(tuple(names or ()), everything, unused_days)
    commands.show_caches(action, chosen, output_dir, Console(json_output=json))


def _usage_words(error: typer.TyperException) -> str:
    message = getattr(error, "format_message", None)
    return str(message() if message is not None else error)


def main(arguments: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 a precondition fails, 4 the quality gate failed,
        130 / 143 interrupted, 141 the reader of stdout has gone.
    """
    try:
        return _invoke(arguments)
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as error:
        # Typer and Rich answer a broken pipe with this.
        if isinstance(error.__context__, BrokenPipeError):
            return _reader_gone()
        raise


def _invoke(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments or bool(os.environ.get("DISTILLKIT_DEBUG"))
    console = Console(debug=debug)
    json_wanted = "--json" in arguments
    try:
        returned = app(args=list(arguments), prog_name="distillkit", standalone_mode=False)
        sys.stdout.flush()
        return returned if isinstance(returned, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        return _report(Interrupted(signal.SIGINT), console, json_wanted)
    except typer.TyperException as error:
        known = {command.name for command in app.registered_commands}
        command = next((f" {word}" for word in arguments if word in known), "")
        usage = UsageError(_usage_words(error), hint=f"see: distillkit{command} --help")
        return _report(usage, console, json_wanted)
    except DistillkitError as error:
        return _report(error, console, json_wanted and not getattr(error, "reported", False))
    except MemoryError as error:
        return _report(
            DistillkitError(f"out of memory {error}".strip(), hint="lower --batch-size or --max-length"),
            console,
            json_wanted,
        )
    except Exception as error:
        if debug:
            traceback.print_exc()
        words = f"unexpected {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        hint = "this is a defect; --debug shows the traceback for a report"
        return _report(DistillkitError(words, hint=hint), Console(), json_wanted, getattr(error, "next_command", None))


def _reader_gone() -> int:
    # The interpreter would complain when it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _report(error: DistillkitError, console: Console, json_wanted: bool, next_command: str | None = None) -> int:
    next_command = next_command or getattr(error, "next_command", None)
    console.error(error, next_command)
    if json_wanted:
        hint = sanitize(error.hint) if error.hint else None
        report = {"status": "failed", "error": sanitize(error.message), "hint": hint, "exit_code": error.exit_code}
        run = getattr(error, "run", None)
        Console(json_output=True).json({**report, "run": str(run) if run else None, "continue": next_command})
    return error.exit_code
