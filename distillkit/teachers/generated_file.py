"""The file of what a teacher has written: a line of JSON for each prompt, which grows by whole batches and is never mixed.

Its settings lie beside it; a line with a changed byte, a torn batch and a file from other settings are never used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.durability import sync_file
from distillkit.errors import PreconditionError
from distillkit.storage import explained_write_errors, fingerprint_of, read_json, write_json

# Of a black-box run, below teacher/.
WRITTEN = "generated.jsonl"


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text.

    Attributes:
        index: names it among the prompts.
        text: what it says.
        ids: the same as the teacher reads it, start token included; not empty.
        bytes: UTF-8 bytes of `text`.
        answer: which of several answers to it is asked for, from 0; None where there is one.
    """

    index: int
    text: str
    ids: Sequence[int]
    bytes: int
    answer: int | None = None


def asked_often(prompts: Iterable[Prompt], answers: int) -> list[Prompt]:
    """Every prompt `answers` times, one after the other; as they are for 1."""
    if answers == 1:
        return list(prompts)
    return [dataclasses.replace(prompt, answer=number) for prompt in prompts for number in range(answers)]


def answers_setting(prompts: Sequence[Prompt]) -> dict[str, int]:
    """How many answers each prompt is to get, for the settings of a file; {} for one."""
    return (
        {}
        if all(prompt.answer is None for prompt in prompts)
        else {"answers": 1 + max(prompt.answer or 0 for prompt in prompts)}
    )


@dataclass(frozen=True)
class Continuation:
    """What the teacher wrote after a prompt.

    Attributes:
        index: of the prompt.
        text: the continuation without the prompt.
        tokens: how many tokens it was written in, the ending one not counted.
        finish: "eos" where the teacher ended the text, "length" where it was cut off.
        kept: whether it is worth learning.
        reason: why not (`continuation_filter.Reason`, `answer_rules.Reason`).
        prompt_tokens: of the prompt, where a server has counted them.
        answer: of the prompt.
    """

    index: int
    text: str
    tokens: int
    finish: str
    kept: bool
    reason: str | None
    prompt_tokens: int | None = None
    answer: int | None = None


class GeneratedFile:
    """The JSONL file, which grows by whole batches.

    Attributes:
        reused: what whole batches of an earlier attempt have written.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], prompts: Sequence[Prompt], batch_size: int, console: Console
    ) -> None:
        self.path = path
        self.reused: list[Continuation] = []
        settings_path = settings_path_of(path)
        if path.is_file():
            _check_settings(path, settings_path, settings)
            size = path.stat().st_size
            self.reused, end = whole_batches(path, prompts, batch_size)
            if end < size:
                console.info(f"{path.name}: {size - end:,} bytes of an unfinished batch are dropped and written again")
                with explained_write_errors(path):
                    os.truncate(path, end)
            if self.reused:
                console.info(f"{path.name}: {len(self.reused):,} of {len(prompts):,} texts are already written")
        else:
            # First the settings: lines without them could not be trusted.
            write_json(settings_path, settings)
            with explained_write_errors(path):
                path.touch()

    def append(self, prompts: Sequence[Prompt], continuations: Sequence[Continuation]) -> None:
        """Add the lines of a batch: afterwards all of them are on the disk, or none."""
        lines = "".join(line_of(prompt, done) for prompt, done in zip(prompts, continuations, strict=True)).encode(
            "utf-8"
        )
        with explained_write_errors(self.path, len(lines)):
            before = self.path.stat().st_size
            try:
                with self.path.open("ab") as stream:
                    stream.write(lines)
                    stream.flush()
                    sync_file(stream.fileno(), self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, before)
                raise


def settings_path_of(path: Path) -> Path:
    """Where the settings of a file lie, beside it."""
    return path.with_suffix(".settings.json")


def line_of(prompt: Prompt, done: Continuation) -> str:
    """What the file holds of a continuation, with its end of line."""
    fields = dataclasses.asdict(done)
    for name in ("prompt_tokens", "answer"):
        if fields[name] is None:
            del fields[name]
    line = {"index": fields.pop("index"), "prompt": prompt.text, "continuation": fields.pop("text"), **fields}
    return json.dumps({**line, "check": check_of(line)}, ensure_ascii=False) + "\n"


def check_of(line: dict[str, Any]) -> str:
    """Of a line's content: one with a byte that has changed is not learnt from."""
    return fingerprint_of(line)[:16]


def _check_settings(path: Path, settings_path: Path, settings: dict[str, Any]) -> None:
    hint = "--force lets the teacher write anew"
    try:
        noted = read_json(settings_path)
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"{path} cannot be continued: its settings in {settings_path.name} cannot be read", hint=hint
        ) from error
    if noted == settings:
        return
    noted = noted if isinstance(noted, dict) else {}
    # Fingerprints say nothing to a reader; that they differ does.
    different = [
        name if name in ("model", "prompts", "format") else f"{name} {noted.get(name)} instead of {value}"
        for name, value in settings.items()
        if noted.get(name) != value
    ]
    raise PreconditionError(f"{path} was written with other settings: {', '.join(different)}", hint=hint)


def whole_batches(path: Path, prompts: Sequence[Prompt], batch_size: int) -> tuple[list[Continuation], int]:
    """The continuations of the batches that are completely written, and the byte at which they end."""
    reused: list[Continuation] = []
    whole = end = position = 0
    with path.open("rb") as stream:
        for prompt, line in zip(prompts, stream, strict=False):
            done = _parse(line, prompt)
            if done is None:
                break
            reused.append(done)
            position += len(line)
            if len(reused) % batch_size == 0 or len(reused) == len(prompts):
                whole, end = len(reused), position
    return reused[:whole], end


def read_lines(path: Path) -> list[Continuation]:
    """All whole lines of a file, whatever their prompts."""
    with path.open("rb") as stream:
        return [done for line in stream if (done := _parse(line, None)) is not None]


def prompts_fingerprint(prompts: Sequence[Prompt], room: Sequence[int]) -> str:
    """Of what is asked: the prompts, and how many new tokens each may have."""
    return fingerprint_of(
        [
            (
                prompt.index,
                prompt.text,
                list(map(int, prompt.ids)),
                tokens,
                *(() if prompt.answer is None else (prompt.answer,)),
            )
            for prompt, tokens in zip(prompts, room, strict=True)
        ]
    )


def _parse(line: bytes, prompt: Prompt | None) -> Continuation | None:
    """The continuation that a line holds; None if it is torn or not this prompt's (None: of any)."""
    try:
        fields = json.loads(line.decode("utf-8")) if line.endswith(b"\n") else None
        if not isinstance(fields, dict) or fields.pop("check", None) != check_of(fields):
            return None
        text = fields.pop("prompt", None)
        done = Continuation(text=fields.pop("continuation", None), **fields)
        asked = None if prompt is None else (prompt.text, prompt.index, prompt.answer)
        if asked is not None and (text, done.index, done.answer) != asked:
            return None
    except (ValueError, TypeError):
        return None
    valid = isinstance(done.text, str) and isinstance(done.tokens, int) and isinstance(done.kept, bool)
    return done if valid and done.finish in ("eos", "length") else None
