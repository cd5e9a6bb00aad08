"""The signature of `distill_models()` for editors and type checkers: api.pyi, rendered from the declaration.

python -m distillkit.api_stub --write      writes it beside api.py
python -m distillkit.api_stub --check      fails if it is stale
"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
import types as python_types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from distillkit import api
from distillkit.errors import DistillkitError
from distillkit.storage import write_bytes

STUB = Path(api.__file__).with_suffix(".pyi")

_HEAD = """\
# The signature of api.py, rendered from the declaration by `python -m distillkit.api_stub --write`.
# fmt: off

from pathlib import Path
from typing import Any, Literal

from distillkit.run.results import DistillResult

def distill_models(
    *,
"""


def type_text(annotation: Any) -> str:
    """An annotation as source: `str | Path | None`, `Literal["white", "black"]`, `dict[str, Any]`."""
    if annotation is type(None):
        return "None"
    if isinstance(annotation, str):
        return annotation
    if typing.get_origin(annotation) is Literal:
        return f"Literal[{', '.join(_literal_text(choice) for choice in typing.get_args(annotation))}]"
    if isinstance(annotation, python_types.UnionType):
        members = sorted(typing.get_args(annotation), key=lambda member: member is type(None))
        return " | ".join(type_text(member) for member in members)
    if typing.get_origin(annotation) is not None:
        arguments = ", ".join(type_text(argument) for argument in typing.get_args(annotation))
        return f"{typing.get_origin(annotation).__name__}[{arguments}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")


def _literal_text(value: Any) -> str:
    # In the quotes that the formatter writes.
    return f'"{value}"' if isinstance(value, str) else repr(value)


def stub() -> str:
    """The content of api.pyi."""
    signature = inspect.signature(api.distill_models)
    lines = [
        f"    {item.name}: {type_text(item.annotation)} = {_literal_text(item.default)},\n"
        for item in signature.parameters.values()
    ]
    documentation = textwrap.indent(inspect.getdoc(api.distill_models) or "", "    ")
    return f'{_HEAD}{"".join(lines)}) -> DistillResult:\n    """\n{documentation}\n    """\n    ...\n'


def is_stale() -> bool:
    """Whether api.pyi is missing or differs from its rendering."""
    return not STUB.is_file() or STUB.read_text(encoding="utf-8") != stub()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the stub. Returns the exit code: 1 where it is stale or cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m distillkit.api_stub", description="render the signature of distill_models for editors"
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write it beside api.py")
    action.add_argument("--check", action="store_true", help="fail if it is stale")
    try:
        if parser.parse_args(arguments).write:
            write_bytes(STUB, stub().encode("utf-8"))
            sys.stdout.write(f"wrote {STUB}\n")
        elif is_stale():
            raise DistillkitError(f"stale: {STUB}", hint="python -m distillkit.api_stub --write")
    except DistillkitError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
