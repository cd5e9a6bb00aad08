"""demo: what teacher, student before and student after make of the same beginnings, side by side.

Writes demo.json.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from distillkit.alignment.spelling import is_decoded_by_bytes, spelled_after
from distillkit.console import Console, sanitize
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.examples import load_examples
from distillkit.data.text_encoder import TextEncoder
from distillkit.device.precision import Compute, autocasting, choose_compute
from distillkit.errors import DistillkitError, UsageError
from distillkit.interrupts import check_interrupted
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import open_pair
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import write_json

PROMPTS = 3
PROMPT_BYTES = 120
NEW_TOKENS = 48
# Cautious sampling: greedy decoding makes every small model loop, which shows nothing of what it knows.
SAMPLING_TEMPERATURE, TOP_P = 0.7, 0.9
_LONGEST_PROMPT = 20_000


def run(
    config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False, prompts: Sequence[str] = ()
) -> StageResult:
    """Let the three models continue the prompts (held-out texts unless some are given)."""
    if any(len(prompt) > _LONGEST_PROMPT or not prompt.strip() for prompt in prompts):
        raise UsageError("--prompt: a prompt is empty or longer than 20 000 characters", hint="give a sentence or two")
    compute = choose_compute(config)
    pair = open_pair(config, run, console)
    encoders = pair.text_encoders(config)
    templates = pair.templates(encoders)
    student, teacher = (None, None) if templates is None else templates.readers(encoders)
    beginnings = list(prompts) or _held_out_beginnings(run, questions=templates is not None)
    loaders = {
        "teacher": (lambda: pair.load_teacher(compute.generation, console), encoders.teacher, teacher),
        "before": (lambda: pair.load_student(console), encoders.student, student),
        "after": (lambda: pair.load_trained_student(run.best_student, console), encoders.student, student),
    }
    if pair.teacher.is_served:
        del loaders["teacher"]
        shows = "" if pair.teacher.is_imported else "; teacher/generated.jsonl shows how it writes"
        console.info(f"the teacher's weights are not here: it does not take part{shows}")
    written: dict[str, list[str]] = {}
    with console.progress("writing", total=len(loaders) * len(beginnings), unit="texts") as progress:
        for name, (load, encoder, reader) in loaders.items():
            model = load().to(compute.device).eval()
            written[name] = []
            for prompt in beginnings:
                check_interrupted()
                written[name].append(continue_text(model, encoder, prompt, compute, config.seed, reader))
                progress.advance()
            del model
            gc.collect()
    texts = [
        {"prompt": prompt, **{name: written[name][index] for name in loaders}}
        for index, prompt in enumerate(beginnings)
    ]
    write_json(
        run.path / "demo.json",
        {"temperature": SAMPLING_TEMPERATURE, "top_p": TOP_P, "seed": config.seed, "texts": texts},
    )
    rows = [row for text in texts for row in _rows(text)]
    console.table("Demo", ["who", "text"], rows, to_stdout=True)
    return StageResult(
        [run.path / "demo.json"],
        {"prompts": len(texts)},
        f"{len(texts)} prompts, written by all {'three' if len(loaders) == 3 else 'two'}",
    )


def _rows(text: dict[str, str]) -> list[tuple[str, str]]:
    names = {"prompt": "prompt", "teacher": "teacher", "before": "student before", "after": "student after"}
    return [(label, sanitize(text[name]).strip()) for name, label in names.items() if name in text] + [("", "")]


def _held_out_beginnings(run: RunDirectory, *, questions: bool) -> list[str]:
    """The beginnings of a few held-out texts, cut between words; of conversations what the user says first."""
    if questions:
        asked = [
            turn.text
            for example in load_examples(run.data / "test")
            for turn in Conversation.from_canonical(example["text"]).turns
            if turn.role == "user" and turn.text.strip()
        ]
        return list(dict.fromkeys(asked))[:PROMPTS] or ["Hello!"]
    beginnings: list[str] = []
    documents: set[int] = set()
    for example in load_examples(run.data / "test"):
        text: str = example["text"]
        if example["document"] in documents or len(text) < 2 * PROMPT_BYTES:
            continue
        documents.add(example["document"])
        beginnings.append(text[:PROMPT_BYTES].rsplit(maxsplit=1)[0])
        if len(beginnings) == PROMPTS:
            break
    return beginnings or [
        example["text"][:PROMPT_BYTES] for example in load_examples(run.data / "test").select(range(1))
    ]


@contextlib.contextmanager
def _explained(model: nn.Module) -> Iterator[None]:
    """Drawing from what is no probability ends in an error that names no cause."""
    try:
        yield
    except RuntimeError as error:
        if all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
            raise
        raise DistillkitError(
            "a model has weights that are not numbers (NaN or infinity): it cannot write", hint="get its files again"
        ) from error


def _ends(model: Any, reader: ConversationReader) -> list[int]:
    """The tokens that end an answer: what the model's settings name, and that of its template, which they may not name yet."""
    named = getattr(model.generation_config, "eos_token_id", None)
    return sorted({*(named if isinstance(named, list) else [] if named is None else [named]), reader.template.end_id})


def continue_text(
    model: nn.Module,
    encoder: TextEncoder,
    prompt: str,
    compute: Compute,
    seed: int,
    reader: ConversationReader | None = None,
) -> str:
    """What a model writes after `prompt`, as text, escape sequences stripped.

    Args:
        reader: how it reads conversations, where it shall answer instead.
    """
    tokenizer: Any = encoder.tokenizer
    new_tokens, longest = NEW_TOKENS, encoder.limit
    if encoder.context is not None:
        new_tokens = max(1, min(NEW_TOKENS, encoder.context // 2))
        longest = max(1, min(longest, encoder.context - new_tokens))
    asked = None if reader is None else reader.prompt_ids([Turn("user", prompt)])
    ids = (asked or encoder.with_specials(encoder.token_ids(prompt), ends=False))[-longest:]
    if not encoder.can_read(ids):
        raise UsageError(
            f"the prompt has {tokenizer.decode([max(ids)])!r}, which the model's embedding has no row for",
            hint="leave it out of the prompt",
        )
    inputs = torch.tensor([ids], device=compute.device)
    # Weights that are not fp32 are in the format that they compute in already; a CPU writes faster without autocast.
    in_fp32 = next(model.parameters()).dtype == torch.float32
    dtype = compute.autocast if in_fp32 and compute.device.type != "cpu" else None
    torch.manual_seed(seed)
    with torch.inference_mode(), autocasting(compute.device, dtype), _explained(model):
        output = model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new_tokens, do_sample=True,
            temperature=SAMPLING_TEMPERATURE, top_p=TOP_P, top_k=0, num_beams=1, return_dict_in_generate=False,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
            **({} if reader is None else {"eos_token_id": _ends(model, reader)}),
        )  # fmt: skip
    if encoder.table is not None and is_decoded_by_bytes(tokenizer, encoder.table):
        read, written = output[0][: len(ids)].tolist(), output[0][len(ids) :].tolist()
        return sanitize(spelled_after(encoder.table, read, written, names=False))
    # Decoded together with the prompt: SentencePiece drops the space before the first word that it decodes.
    whole = tokenizer.decode(output[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    beginning = tokenizer.decode(output[0][: len(ids)], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return sanitize(whole.removeprefix(beginning))
