"""Values of `keep_answers`: a pattern, or a command that judges."""

from __future__ import annotations

import re
import shlex

from distillkit.errors import UsageError

PATTERN, COMMAND = "re:", "run:"
_EXAMPLES = "for example --keep-answers 're:\\d' or --keep-answers 'run:python keep.py'"


def check_keep_answers(value: str, where: str) -> None:
    """Refuse what is neither a pattern nor a command.

    Args:
        value: of `keep_answers`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is none of them, or one that cannot be read.
    """
    shown = f"keep_answers: {value[:200]!r}"
    try:
        if value.startswith(PATTERN) and len(value) > len(PATTERN):
            re.compile(value.removeprefix(PATTERN))
        elif not (value.startswith(COMMAND) and command_words(value)):
            raise UsageError(f"{shown} is neither {PATTERN}PATTERN nor {COMMAND}COMMAND ({where})", hint=_EXAMPLES)
    except re.error as error:
        raise UsageError(f"{shown} is no regular expression: {error} ({where})", hint=_EXAMPLES) from error
    except ValueError as error:
        raise UsageError(f"{shown} is no command: {error} ({where})", hint=_EXAMPLES) from error


def command_words(value: str) -> list[str]:
    """`run:python keep.py --strict` -> its words, quoted as in a POSIX shell; no shell runs them.

    Raises:
        ValueError: a quotation has no end.
    """
    return shlex.split(value.removeprefix(COMMAND))
