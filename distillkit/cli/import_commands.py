"""What `import-logprobs` does: from what was given to a folder that teaches."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from distillkit.cli.request import check_surroundings
from distillkit.console import Console
from distillkit.durability import weaknesses_reported
from distillkit.errors import UsageError
from distillkit.interrupts import graceful_signals
from distillkit.settings.paths import user_path

_CONFIGURATION = "compression_config.yaml"


@dataclass(frozen=True)
class Given:
    """What was given to `import-logprobs`."""

    rows: str
    form: str
    tokenizer: str
    out: str
    compression: str | None
    logprobs: str
    messages: str
    overwrite: bool
    trust_remote_code: bool


def run_import(given: Given, console: Console) -> None:
    """`distillkit import-logprobs`.

    Raises:
        DistillkitError: as `distillkit.importing.import_rows.import_rows`.
    """
    from distillkit.importing.import_rows import ImportRequest, first_words, import_rows

    check_surroundings(console)
    form = given.form.lower()
    if form not in ("arcee", "axolotl"):
        raise UsageError(f"--format {given.form!r} is not known", hint="use --format arcee or --format axolotl")
    rows, out = user_path(given.rows, "ROWS"), user_path(given.out, "--out")
    beside = (rows if rows.is_dir() else rows.parent) / _CONFIGURATION
    compression = None if given.compression is None else user_path(given.compression, "--compression")
    if compression is None and form == "arcee" and beside.is_file():
        compression = beside
    request = ImportRequest(
        rows, form, given.tokenizer, out, compression, given.logprobs, given.messages, given.overwrite,
        given.trust_remote_code,
    )  # fmt: skip
    with graceful_signals(), weaknesses_reported(console.warn):
        record = import_rows(request, console)
    console.info(first_words(record))
    quoted = shlex.quote(str(out))
    command = (
        f"distillkit distill --temperature 1 --teacher-model {shlex.quote(f'logprobs:{out}')} "
        f"--dataset-path {shlex.quote(str(out / 'texts.jsonl'))} --student-model …"
    )
    console.data(f"imported: {quoted}")
    console.info(f"next, with a student of the same tokenizer: {command}")
    console.json({"command": "import-logprobs", "status": "complete", "out": str(out), "next": command, **record})
