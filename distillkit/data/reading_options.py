"""What the user said of the data files: which format, which column, which encoding, which kind of CSV, what to do with bad rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.settings.core_parameters import BoxType
from distillkit.settings.parameters import (
    BadRowPolicy,
    CsvHeader,
    CsvQuoting,
    DataFormat,
    Parameters,
    ReasoningPolicy,
)


@dataclass(frozen=True)
class ReadingOptions:
    """How data files are read; the fields are the parameters of the same names.

    Attributes:
        end_marks: no parameter: what ends a document in running text (`data.document_marks`).
    """

    data_format: DataFormat = "auto"
    system_prompt: str | None = None
    box_type: BoxType = "white"
    reasoning: ReasoningPolicy = "keep"
    text_column: str | None = None
    bad_rows: BadRowPolicy = "skip"
    encoding: str | None = None
    csv_delimiter: str | None = None
    csv_quoting: CsvQuoting = "auto"
    csv_header: CsvHeader = "auto"
    end_marks: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Parameters, end_marks: Sequence[str] = ()) -> ReadingOptions:
        """Those of a configuration."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "end_marks"]
        return cls(**{name: getattr(config, name) for name in names}, end_marks=tuple(end_marks))
