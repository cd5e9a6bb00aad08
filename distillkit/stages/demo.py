"""demo: what teacher, student before and student after make of the same beginnings, side by side.

Writes demo.json. With texts of one's own (`show`) nothing is written: the record stays that of the held-out texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.chatting.prompt_loop import PromptLoop
from distillkit.chatting.sampling import Sampling
from distillkit.chatting.side_by_side import SideBySide, check_prompts
from distillkit.chatting.side_by_side_words import repeating, say_how_they_write, show_texts
from distillkit.console import Console
from distillkit.data.conversation import Conversation
from distillkit.data.examples import load_examples
from distillkit.interrupts import graceful_signals
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import write_json

PROMPTS = 3
PROMPT_BYTES = 120


def run(
    config: Parameters,
    run: RunDirectory,
    console: Console,
    *,
    from_scratch: bool = False,
    teacher: bool | None = None,
    **sampling: Any,
) -> StageResult:
    """Let the models continue held-out texts, and record what they write.

    Args:
        teacher: whether it takes part; by default where it is here and fits into memory.
        sampling: fields of `Sampling`; the seed is that of the run where none is given.

    Raises:
        UsageError: a text cannot be drawn in this way, or be read by a model.
    """
    settings = _sampling(config, sampling)
    models = SideBySide.of_run(config, run, console, teacher=teacher)
    say_how_they_write(models, settings, console)
    found = models.write(_held_out_beginnings(run, questions=models.answers), settings)
    write_json(run.path / "demo.json", found)
    show_texts(found, console)
    prompts = len(found["texts"])
    summary = console.say("demo.summary", prompts=prompts, models=len(models.names))
    figures = {"prompts": prompts, "models": found["models"], "repeating": repeating(found)}
    return StageResult([run.path / "demo.json"], figures, summary)


def show(
    config: Parameters,
    run: RunDirectory,
    console: Console,
    *,
    prompts: Sequence[str] = (),
    interactive: bool | None = None,
    teacher: bool | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Let the models continue texts of one's own; the run is left as it is.

    Args:
        prompts: texts.
        interactive: then read more from standard input, a line each.
        teacher, sampling: as for `run`.

    Returns:
        `demo`, as demo.json would hold it; {} with `interactive`, which has given an object for each line.

    Raises:
        UsageError: as `run`; what comes from a terminal is refused and asked for again.
        Interrupted: a signal arrived.
    """
    check_prompts(prompts)
    settings = _sampling(config, sampling)
    models = SideBySide.of_run(config, run, console, teacher=teacher)
    say_how_they_write(models, settings, console)
    if not interactive:
        with graceful_signals():
            found = models.write(prompts, settings)
        show_texts(found, console)
        return {"demo": found}
    PromptLoop(models, settings, console).talk(prompts)
    return {}


def _sampling(config: Parameters, given: Mapping[str, Any]) -> Sampling:
    return Sampling(**{"seed": config.seed, **given})


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
