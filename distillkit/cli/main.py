"""Running the command line: what a command gives or raises becomes an exit code and one line, with --json an object."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import traceback
from collections.abc import Sequence

import typer

from distillkit.cli.app import app
from distillkit.cli.options import command_parameters, no_such_option, parameter_of
from distillkit.console import Console, sanitize
from distillkit.errors import DistillkitError, Interrupted, UsageError
from distillkit.process_environment import neutral_environment
from distillkit.processes.place import Place
from distillkit.streams import cannot_write, open_closed_streams


def main(arguments: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 a precondition fails, 4 the quality gate failed,
        130 / 143 interrupted, 141 the reader of stdout has gone.
    """
    open_closed_streams()
    # Imported by peft and transformers wherever it is installed, it advises to install something else.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
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
    # Before anything imports torch, which reads some variables when it is loaded.
    with neutral_environment() as found:
        place = Place.of(found.launching)
        if place is None:
            return _run(arguments)
        from distillkit.processes.taking_part import take_part

        debug = "--debug" in arguments or bool(os.environ.get("DISTILLKIT_DEBUG"))
        try:
            return take_part(place, lambda: _run(arguments), debug=debug)
        except DistillkitError as error:
            return _report(error, Console(debug=debug), json_wanted=False)


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments or bool(os.environ.get("DISTILLKIT_DEBUG"))
    console = Console(debug=debug)
    json_wanted = "--json" in arguments
    try:
        returned = app(args=list(arguments), prog_name="distillkit", standalone_mode=False)
        console.flush()
        return returned if isinstance(returned, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        return _report(Interrupted(signal.SIGINT), console, json_wanted)
    except typer.TyperException as error:
        return _report(_usage_error(error, arguments), console, json_wanted)
    except DistillkitError as error:
        return _report(error, console, json_wanted and not getattr(error, "reported", False))
    except MemoryError as error:
        return _report(
            DistillkitError(f"out of memory {error}".strip(), hint="lower --batch-size or --max-length"),
            console,
            json_wanted,
        )
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
            # What Typer writes itself, such as the help; everything else names its file.
            return _report(cannot_write("standard output", error), console, json_wanted)
        if debug:
            traceback.print_exc()
        message = f"unexpected {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        hint = f"this is a defect{_of_package(error)}; --debug shows the traceback for a report"
        return _report(
            DistillkitError(message, hint=hint), Console(), json_wanted, getattr(error, "next_command", None)
        )


def _usage_error(error: typer.TyperException, arguments: Sequence[str]) -> UsageError:
    """What Typer refuses, as an error of this program."""
    known = {registered.name for registered in app.registered_commands}
    name = next((word for word in arguments if word in known), None)
    # Typer names the option in the errors about one.
    flag = getattr(error, "option_name", None) or ""
    parameter = parameter_of(flag)
    if name is not None and parameter is not None and parameter not in command_parameters(name):
        return no_such_option(flag, parameter, name)
    message = getattr(error, "format_message", None)
    return UsageError(
        str(message() if message is not None else error),
        hint=f"see: {' '.join(filter(None, ['distillkit', name, '--help']))}",
    )


def _of_package(error: Exception) -> str:
    """Whose the defect is, where it is not this program's."""
    from distillkit.settings.extensions import raised_in

    package = raised_in(error)
    return "" if package is None else f" of {package}, which adds to distillkit"


def _reader_gone() -> int:
    # The interpreter would complain when it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _report(error: DistillkitError, console: Console, json_wanted: bool, next_command: str | None = None) -> int:
    next_command = next_command or getattr(error, "next_command", None)
    with contextlib.suppress(DistillkitError):  # standard error itself cannot be written: the exit code has to do
        console.error(error, next_command)
    if json_wanted:
        hint = sanitize(error.hint) if error.hint else None
        report = {"status": "failed", "error": sanitize(error.message), "hint": hint, "exit_code": error.exit_code}
        run = getattr(error, "run", None)
        with contextlib.suppress(DistillkitError):  # nor standard output, which may be the error that is reported
            Console(json_output=True).json({**report, "run": str(run) if run else None, "continue": next_command})
    return error.exit_code
