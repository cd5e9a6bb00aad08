"""Values of `teacher_devices`: a word, or the numbers of GPUs."""

from __future__ import annotations

from distillkit.errors import UsageError

WORDS = ("auto", "one", "all")


def device_numbers(value: str) -> tuple[int, ...] | None:
    """The GPUs that a value lists, in its order; None for a word."""
    return None if value in WORDS else tuple(dict.fromkeys(int(number) for number in value.split(",")))


def check_teacher_devices(value: str, where: str) -> None:
    """Refuse what is neither a word nor a list of numbers.

    Args:
        value: of `teacher_devices`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is neither.
    """
    if value not in WORDS and not all(number.strip().isdecimal() for number in value.split(",")):
        raise UsageError(
            f"teacher_devices: {value!r} is none of {', '.join(WORDS)}, and no list of GPUs ({where})",
            hint="for example --teacher-devices all, or --teacher-devices 0,1",
        )
