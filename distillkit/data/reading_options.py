"""What the user said of the data files: which column, which encoding, which kind of CSV, what to do with bad rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from distillkit.settings.parameters import BadRowPolicy, CsvHeader, CsvQuoting, Parameters


@dataclass(frozen=True)
class ReadingOptions:
    """How data files are read; the fields are the parameters of the same names."""

    text_column: str | None = None
    bad_rows: BadRowPolicy = "skip"
    encoding: str | None = None
    csv_delimiter: str | None = None
    csv_quoting: CsvQuoting = "auto"
    csv_header: CsvHeader = "auto"

    @classmethod
    def of(cls, config: Parameters) -> ReadingOptions:
        """Those of a configuration."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})
