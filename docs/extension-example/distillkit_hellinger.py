"""An example of a package that extends distillkit: a divergence and a data format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.data.formats import DataFile
    from distillkit.data.rows import Row


def squared_hellinger(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor) -> Tensor:
    """½·Σ(√p - √q)², [N], between 0 and 1.

    Args:
        teacher_log_probs_NV, student_log_probs_NV: [N, V] normalised log-probabilities.
    """
    teacher, student = (0.5 * teacher_log_probs_NV.detach()).exp(), (0.5 * student_log_probs_NV).exp()
    return 0.5 * (teacher - student).square().sum(-1)


def read_stanzas(file: DataFile) -> Iterator[Row]:
    """Poems, a row for each stanza: lines up to an empty one or one of stars.

    Raises:
        UsageError: the file cannot be read.
    """
    from distillkit.data.rows import Row
    from distillkit.data.text_decoding import decode_blocks, decode_lines

    with file.open() as stream:
        lines: list[str] = []
        blocks = decode_blocks(stream, file.name, file.notes, file.options.encoding)
        for number, line in enumerate(decode_lines(blocks, file.name), 1):
            if line.strip(" *\n"):
                lines.append(line.rstrip())
                continue
            if lines:
                yield Row("\n".join(lines), f"{file.name}:{number - len(lines)}")
            lines = []
        if lines:
            yield Row("\n".join(lines), f"{file.name}:{number - len(lines) + 1}")
