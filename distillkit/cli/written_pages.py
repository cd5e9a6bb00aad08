"""Pages in docs/ that are made from the code: writing them, and telling whether they are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from distillkit.errors import DistillkitError
from distillkit.storage import explained_write_errors, write_bytes


def stale(folder: Path, pages: Mapping[str, str]) -> list[Path]:
    """The pages in `folder` that are missing or differ from their rendering.

    Args:
        pages: file name to text.
    """
    return [
        folder / name
        for name, text in pages.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def write_or_check(arguments: Sequence[str] | None, pages: Mapping[str, str], module: str) -> int:
    """The command of a module that renders pages: --write or --check.

    Args:
        arguments: those of the process if None.
        pages: file name to text.
        module: the name of the module in this folder.

    Returns:
        The exit code: 1 where a page is stale or cannot be written.
    """
    program = f"python -m distillkit.cli.{module}"
    parser = argparse.ArgumentParser(prog=program, description=f"render {', '.join(pages)}")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", metavar="FOLDER", type=Path, help="write the pages there")
    action.add_argument("--check", metavar="FOLDER", type=Path, help="fail if the pages there are stale")
    given = parser.parse_args(arguments)
    try:
        if given.check is not None:
            if found := stale(given.check, pages):
                names = ", ".join(map(str, found))
                raise DistillkitError(f"stale: {names}", hint=f"{program} --write {given.check}")
            return 0
        with explained_write_errors(given.write):
            given.write.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            write_bytes(given.write / name, text.encode("utf-8"))
            sys.stdout.write(f"wrote {given.write / name}\n")
    except DistillkitError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0
