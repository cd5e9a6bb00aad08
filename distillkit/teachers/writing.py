"""The teacher pass of black box: generate, keep every text in the run, and hand over what is worth learning."""

from __future__ import annotations

from typing import Any

from distillkit.console import Console
from distillkit.data.reading import Readers
from distillkit.errors import DistillkitError
from distillkit.models.pair import ModelPair
from distillkit.parameters import Parameters
from distillkit.rundir import RunDirectory
from distillkit.storage import make_folder
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.generation import generate_continuations
from distillkit.teachers.written_cache import WrittenCache
from distillkit.teachers.written_examples import make_prompts, written_examples
from distillkit.training.precision import Compute

# Full-length sampling at temperature 1 keeps the teacher's own diversity; the nucleus cuts its unreliable tail.
TEMPERATURE, TOP_P = 1.0, 0.95


def teacher_writing(
    config: Parameters,
    run: RunDirectory,
    pair: ModelPair,
    readers: Readers,
    compute: Compute,
    examples: Any,
    console: Console,
) -> list[dict[str, Any]]:
    """Examples made of the teacher's continuations of the beginnings of `examples`.

    Raises:
        DistillkitError: the teacher wrote nothing that can be used.
        PreconditionError: teacher/generated.jsonl is from other settings.
        Interrupted: a signal arrived; what is written stays.
    """
    prompts = make_prompts(examples, readers.teacher, config.seed)
    make_folder(run.teacher)
    room = [min(readers.teacher.limit, config.max_length) - len(prompt.ids) for prompt in prompts]
    cache = None
    if config.teacher_cache != "off":
        numerics = {"precision": str(compute.writing).removeprefix("torch."), "device": compute.device.type}
        cache = WrittenCache(run.path.parent / FOLDER, pair.teacher.reference.text, numerics, console)
    continuations = generate_continuations(
        lambda: pair.load_teacher(compute.writing, console).to(compute.device), readers.teacher.tokenizer, prompts, output=run.teacher / "generated.jsonl",
        max_new_tokens=[max(1, tokens) for tokens in room], temperature=TEMPERATURE, top_p=TOP_P, seed=config.seed,
        batch_size=config.batch_size, device=compute.device, console=console, model_fingerprint=pair.teacher.fingerprint(),
        cache=cache,
    )  # fmt: skip
    written = written_examples(continuations, prompts, readers.student)
    kept = sum(continuation.kept for continuation in continuations)
    console.info(
        f"the teacher wrote {len(continuations):,} texts, {kept:,} are kept, {len(written.examples):,} are trained on"
    )
    if not written.examples:
        raise DistillkitError(
            "the teacher wrote nothing that can be learnt from",
            hint="see teacher/generated.jsonl for the reasons; try another teacher or more text",
        )
    return written.examples
