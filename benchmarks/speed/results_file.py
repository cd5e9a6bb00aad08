"""Where the measurements of this folder go: a line of JSON each, shown and appended to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def emit(results: Path, line: dict[str, Any]) -> None:
    """Show a measurement and add it to the results."""
    print(line, flush=True)
    with results.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
