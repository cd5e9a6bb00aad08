"""Black box: a model behind a server continues prompts; every continuation goes to a JSONL file in the order of the prompts.

Many requests are under way at once. A line is written when all lines before it are, so the file does not depend on which
reply came first, and an interrupted generation goes on with the first line that is missing. The settings lie beside the
file, as for a local teacher; neither the address nor the key is among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.conversation import Conversation
from distillkit.servers.client import Message, ServerClient, ServerSampling
from distillkit.servers.in_order import answers_in_order
from distillkit.servers.opening import check_server
from distillkit.servers.replies import Reply
from distillkit.storage import write_json
from distillkit.teachers.continuation_filter import ContinuationFilter
from distillkit.teachers.generated_file import (
    Continuation,
    GeneratedFile,
    Prompt,
    answers_setting,
    prompts_fingerprint,
    read_lines,
    settings_path_of,
)
from distillkit.teachers.generation import Sampling
from distillkit.teachers.generation_cache import GenerationCache

# Of the lines and of how they are asked for; raised when either changes, the filter's judgement included.
_FORMAT = 1


def served_continuations(
    open_client: Callable[[], ServerClient],
    prompts: Sequence[Prompt],
    room: Sequence[int],
    sampling: Sampling,
    *,
    output: Path,
    at_once: int,
    console: Console,
    model_fingerprint: str,
    count_tokens: Callable[[str], int],
    cache: GenerationCache | None = None,
    chat: bool = False,
    judge: ContinuationFilter | None = None,
) -> list[Continuation]:
    """Let the server continue every prompt once (one that stands there several times, as often), or go on where an earlier attempt with the same settings was cut off.

    Args:
        open_client: called only if something is left to write.
        room: new tokens for each prompt, at most.
        sampling: temperature, top_p and seed; every prompt has a seed of its own, made of that, its index, and which of its
            answers is asked for.
        output: the JSONL file; its folder exists. One line per prompt, in their order, as of
            `generation.generate_continuations`, with `prompt_tokens` where the server counts them.
        at_once: requests under way.
        model_fingerprint: of the model's name.
        count_tokens: what a text has, where the server does not say.
        cache: finished generations of other runs, None to do without.
        chat: the prompts are conversations in their canonical form, which the server answers in its own template.
        judge: which texts are worth learning; default: of plain texts.

    Returns:
        The continuations in the order of `prompts`, dropped ones included.

    Raises:
        PreconditionError: the file is from other settings; the server is not there, refuses the key, has no such model.
        DistillkitError: the server gives no answer, disk full; what is written stays.
        Interrupted: a signal arrived; what is written stays.
    """
    if len(room) != len(prompts) or not all(tokens > 0 for tokens in room):
        raise ValueError("one positive number of new tokens per prompt is needed")
    settings: dict[str, Any] = {
        "format": _FORMAT,
        "api": "chat" if chat else "completions",
        "model": model_fingerprint,
        "prompts": prompts_fingerprint(prompts, room),
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "seed": sampling.seed,
        **answers_setting(prompts),
    }
    if cache is not None and not output.is_file():
        write_json(settings_path_of(output), settings)
        cache.fetch(output, settings)
    file = GeneratedFile(output, settings, prompts, 1, console)
    judge = judge or ContinuationFilter()
    for prompt, done in zip(prompts, file.reused, strict=False):
        if done.kept:
            judge.remember(prompt.text, done.text)
    written = list(file.reused)
    if len(written) < len(prompts):
        client = open_client()
        _say_what_is_sent(client, prompts[len(written) :], chat, console)

        def ask(number: int) -> Reply:
            draws = ServerSampling(
                room[number], sampling.temperature, sampling.top_p, _seed(sampling.seed, prompts[number])
            )
            if chat:
                turns = Conversation.from_canonical(prompts[number].text).turns
                return client.chat([Message(turn.role, turn.text) for turn in turns], draws)
            return client.complete(prompts[number].text, draws)

        with console.progress("the teacher writes", len(prompts), unit="texts", completed=len(written)) as progress:

            def idle() -> None:
                held = client.pace.held_seconds()
                progress.update(server=f"asks to wait {held:.0f} s" if held >= 1 else None)

            replies = answers_in_order(ask, range(len(written), len(prompts)), at_once, client.close, idle)
            for prompt, reply in zip(prompts[len(written) :], replies, strict=True):
                done = _judged(prompt, reply, judge, count_tokens)
                file.append([prompt], [done])
                written.append(done)
                progress.advance(kept=sum(continuation.kept for continuation in written))
    if cache is not None:
        cache.publish(output, settings, sum(continuation.tokens for continuation in written))
    return written


def _judged(
    prompt: Prompt, reply: Reply, judge: ContinuationFilter, count_tokens: Callable[[str], int]
) -> Continuation:
    # A character that the limit has cut in two.
    text = reply.text.rstrip("\ufffd")
    tokens = reply.completion_tokens if reply.completion_tokens is not None else count_tokens(text)
    reason = "refused" if reply.refused else judge.judge(prompt.text, text)
    return Continuation(
        prompt.index, text, tokens, reply.finish, reason is None, reason, reply.prompt_tokens, prompt.answer
    )


def _say_what_is_sent(client: ServerClient, prompts: Sequence[Prompt], chat: bool, console: Console) -> None:
    found = check_server(client, console)
    texts = len({prompt.index for prompt in prompts})
    questions = f"{texts:,} conversations, without their last answers,"
    what = questions if chat else f"the beginnings of {texts:,} training texts"
    if len(prompts) > texts:
        what += f" (for {len(prompts):,} answers)"
    console.info(f"the teacher {client.model} {found}: {what} are sent there")


def _seed(seed: int, prompt: Prompt) -> int:
    """A seed for one text, of 31 bits: some servers take no larger ones."""
    name = f"{seed}/{prompt.index}" + (f"/{prompt.answer}" if prompt.answer else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def served_cost(output: Path) -> dict[str, int]:
    """What the texts of a file cost: requests, tokens of the prompts and of what was written, and how many replies did not say.

    Requests that failed are not counted: no server says what they cost.
    """
    lines = read_lines(output)
    unknown = sum(line.prompt_tokens is None for line in lines)
    return {
        "requests": len(lines),
        "prompt_tokens": sum(line.prompt_tokens or 0 for line in lines),
        "completion_tokens": sum(line.tokens for line in lines),
        "replies_without_usage": unknown,
    }
