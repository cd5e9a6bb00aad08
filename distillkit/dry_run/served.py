"""What a teacher behind a server will be asked, before anything is asked."""

from __future__ import annotations

from pathlib import Path

from distillkit.dry_run.inputs import Amounts
from distillkit.run.context import needs_teacher
from distillkit.settings.conditions import is_behind_server
from distillkit.settings.parameters import Parameters
from distillkit.teachers.black_box import LONGEST_PROMPT
from distillkit.teachers.generated_file import WRITTEN, read_lines
from distillkit.teachers.sparse_cache import bytes_per_token

_TIME = "unknown before its first answers have come; the times below are without it"


def planned_requests(config: Parameters, folder: Path, amounts: Amounts) -> dict[str, int | str]:
    """Requests that are still to be made, the tokens that they cost at most, in the student's tokens, and what is known of the
    time that they take; {} where no server is asked. Requests that fail and are sent again are not counted."""
    if not is_behind_server(vars(config)) or not needs_teacher(config):
        return {}
    if config.box_type == "white":
        return {
            "server_requests_at_most": amounts.examples,
            "server_prompt_tokens_at_most": amounts.student_inputs,
            "server_time": _TIME,
        }
    written = folder / "teacher" / WRITTEN
    left = max(0, amounts.examples * config.answers - (len(read_lines(written)) if written.is_file() else 0))
    # A prompt is never more than half of its text, and prompt and continuation together fill max_length.
    return {
        "server_requests_at_most": left,
        "server_prompt_tokens_at_most": left * min(LONGEST_PROMPT, config.max_length // 2),
        "server_completion_tokens_at_most": left * (config.max_length - 1),
        **({"server_time": _TIME} if left else {}),
    }


def planned_cache_bytes(config: Parameters, amounts: Amounts, vocabulary: int) -> int:
    """What the sparse targets from a server take at most; in black box nothing.

    Args:
        vocabulary: student tokens.
    """
    if config.box_type != "white" or not needs_teacher(config):
        return 0
    # The token that follows comes besides the likeliest ones.
    return amounts.student_inputs * bytes_per_token(config.sparse_size + 1, vocabulary)
