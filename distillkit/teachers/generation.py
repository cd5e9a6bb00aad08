"""Black box: a local causal language model continues prompts, and every text is kept as a line of generated.jsonl.

The texts are a function of the model, the prompts, the sampling settings and the seed: each batch draws from a generator
of its own, so that an interrupted and resumed generation writes the very file that an undisturbed one writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.interrupts import check_interrupted
from distillkit.storage import explained_write_errors, fingerprint_of, write_bytes
from distillkit.teachers.continuation_filter import judge


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text.

    Attributes:
        index: of the training example that it is from.
        text: its characters.
        ids: as the teacher reads it, with a start token.
        bytes: UTF-8 bytes of `text`.
    """

    index: int
    text: str
    ids: Sequence[int]
    bytes: int


@dataclass(frozen=True)
class Continuation:
    """What the teacher wrote after a prompt.

    Attributes:
        index: of the prompt.
        prompt, text: the characters of both.
        tokens: how many tokens were written, an end token not counted.
        finish: "eos" where the teacher ended the text, "length" where it was cut.
        kept, reason: whether it is trained on, and why not.
    """

    index: int
    prompt: str
    text: str
    tokens: int
    finish: str
    kept: bool
    reason: str | None


def generate_continuations(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    output: Path,
    max_new_tokens: Sequence[int],
    temperature: float,
    top_p: float,
    seed: int,
    batch_size: int,
    device: torch.device,
    console: Console,
    model_fingerprint: str,
) -> list[Continuation]:
    """Continue every prompt once; what `output` already holds of the same job is not written again.

    Args:
        model: in evaluation mode, on `device`.
        output: generated.jsonl; its first line says which job it belongs to.
        max_new_tokens: for each prompt; a batch writes as much as its longest allowance and is cut per prompt.
        temperature, top_p: of sampling; 1 and 1 are the model's own distribution.

    Returns:
        One continuation per prompt, in the order in which they were written.

    Raises:
        PreconditionError: `output` belongs to another job.
        DistillkitError: it cannot be written.
        Interrupted: a signal arrived; all finished batches are kept.
    """
    job = {
        "model": model_fingerprint,
        "prompts": fingerprint_of([[prompt.index, list(prompt.ids)] for prompt in prompts]),
        "room": fingerprint_of(list(max_new_tokens)),
        "temperature": temperature, "top_p": top_p, "seed": seed, "batch_size": batch_size,
    }  # fmt: skip
    # Prompts of like length together: little padding, and long ones show first that memory does not suffice.
    order = sorted(range(len(prompts)), key=lambda position: (-len(prompts[position].ids), position))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    written = _reusable(output, job, [len(batch) for batch in batches], console)
    seen = {continuation.text.strip() for continuation in written if continuation.kept}
    done = len(written)
    with console.progress("the teacher writes", total=len(prompts), unit="texts", completed=done) as progress:
        first = 0
        for number, batch in enumerate(batches):
            first += len(batch)
            if first <= done:
                continue
            check_interrupted()
            chosen = [prompts[position] for position in batch]
            room = [max_new_tokens[position] for position in batch]
            rows = _sample(model, tokenizer, chosen, room, temperature, top_p, seed, number, device)
            continuations = [
                _continuation(tokenizer, prompt, ids, cut, seen)
                for prompt, (ids, cut) in zip(chosen, rows, strict=True)
            ]
            _append(output, [asdict(continuation) for continuation in continuations])
            written += continuations
            progress.advance(len(batch))
    return written


# --- sampling --------------------------------------------------------------------------------------------------------


def _sample(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], room: Sequence[int], temperature: float, top_p: float,
    seed: int, number: int, device: torch.device,
) -> list[tuple[list[int], bool]]:  # fmt: skip
    """(new token ids without the end token, whether they were cut) of each prompt of a batch."""
    longest = max(len(prompt.ids) for prompt in prompts)
    # Decoding goes on at the right end, so padding goes to the left; the mask hides it, whatever its id.
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt.ids) :] = torch.tensor(list(prompt.ids))
        mask[row, longest - len(prompt.ids) :] = 1
    end = tokenizer.eos_token_id
    generator_seed = int(fingerprint_of([seed, number])[:15], 16)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(generator_seed)
        output: Tensor = model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids.to(device), attention_mask=mask.to(device), do_sample=True, temperature=temperature,
            top_p=top_p, top_k=0, max_new_tokens=max(room), use_cache=True, num_return_sequences=1,
            pad_token_id=end if end is not None else 0, eos_token_id=end,
        )  # fmt: skip
    rows = []
    for new, allowed in zip(output[:, longest:].tolist(), room, strict=True):
        ended = new.index(end) if end is not None and end in new else None
        length = len(new) if ended is None else ended
        rows.append((new[: min(length, allowed)], ended is None or ended > allowed))
    return rows


def _continuation(tokenizer: Any, prompt: Prompt, ids: list[int], cut: bool, seen: set[str]) -> Continuation:
    text = _decoded_after(tokenizer, prompt, ids)
    reason = judge(text, seen)
    return Continuation(prompt.index, prompt.text, text, len(ids), "length" if cut else "eos", reason is None, reason)


def _decoded_after(tokenizer: Any, prompt: Prompt, ids: list[int]) -> str:
    """The new characters. Decoded together with the prompt, because SentencePiece drops the space before the first
    word that it decodes; a character that was cut in two at the end is left out."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    beginning = tokenizer.decode(list(prompt.ids), **options)
    whole = tokenizer.decode([*prompt.ids, *ids], **options)
    text = whole[len(beginning) :] if whole.startswith(beginning) else tokenizer.decode(ids, **options)
    return text.rstrip("\ufffd")


# --- the file --------------------------------------------------------------------------------------------------------


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _append(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    content = b"".join(_line(row) for row in rows)
    with explained_write_errors(output, len(content)), output.open("ab") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _reusable(output: Path, job: Mapping[str, Any], batch_sizes: Sequence[int], console: Console) -> list[Continuation]:
    """The continuations of complete batches that `output` holds; a torn tail is cut off the file."""
    if not output.exists():
        write_bytes(output, _line({"job": job}))
        return []
    lines = output.read_bytes().split(b"\n")
    complete, torn = lines[:-1], lines[-1]
    rows: list[Continuation] = []
    try:
        header = json.loads(complete[0]) if complete else {}
    except ValueError:
        header = {}
    if not isinstance(header, dict) or header.get("job") != dict(job):
        raise PreconditionError(
            f"{output} holds texts of another job (another teacher, other prompts or settings)",
            hint="write them anew with --force",
        )
    for line in complete[1:]:
        try:
            rows.append(Continuation(**json.loads(line)))
        except (ValueError, TypeError):
            torn = line
            break
    kept = 0
    for size in batch_sizes:
        if kept + size > len(rows):
            break
        kept += size
    if torn or kept < len(rows):
        console.info(f"{output.name}: an unfinished batch of an interrupted attempt was dropped")
        write_bytes(output, _line({"job": job}) + b"".join(_line(asdict(row)) for row in rows[:kept]))
    return rows[:kept]
