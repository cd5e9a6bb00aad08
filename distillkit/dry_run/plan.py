"""--dry-run: what a run would do, need and take. Changes nothing on disk and downloads no weights.

Sizes follow from the models' configurations; times from what a layer or two of them take on this machine now.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from distillkit.console import Console, format_bytes, format_duration
from distillkit.data.splitting import held_out_examples
from distillkit.device.malloc import freed_memory_kept
from distillkit.device.memory import free_memory_bytes
from distillkit.device.precision import Compute, choose_compute
from distillkit.dry_run.microbenchmarks import Shape
from distillkit.dry_run.time_model import Amounts, Part, compiles, phase_seconds
from distillkit.evaluation.batched_forward import LOGITS_AT_ONCE, WIDE_AT_ONCE
from distillkit.losses.chunked import rows_per_chunk
from distillkit.models.gguf import cached_conversion
from distillkit.models.pruning import LAYER_COUNT_NAMES
from distillkit.models.references import ModelReference, parse_student_reference, parse_teacher_reference
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import ResolvedConfig
from distillkit.silence_libraries import silence_hub, silence_transformers
from distillkit.teachers.blocks import USABLE
from distillkit.teachers.sparse_cache import BYTES_PER_TOKEN
from distillkit.training import checkpoints
from distillkit.training.arguments import total_steps

# What Python, torch and transformers take before anything is loaded.
_LIBRARIES_BYTES = 800_000_000
# Of a token, layer and number of its width: what is kept for the backward pass. Measured on a Llama with bf16 autocast.
_ACTIVATION_BYTES = 50
# What the compiler of the loss takes besides.
_COMPILER_BYTES = 100_000_000


@dataclass(frozen=True)
class Sizes:
    """What a configuration says of a model.

    Attributes:
        parameters: all of them, tied ones once.
        flops: of a forward pass, per token: two per parameter that is multiplied, the head included.
        vocabulary: columns of the head.
        width: numbers in a hidden state.
        config: the content of config.json.
        layers: decoder blocks.
        inner_width: numbers per token between blocks.
    """

    parameters: int
    flops: float
    vocabulary: int
    width: int
    config: dict[str, Any]
    layers: int
    inner_width: int

    def part(self) -> Part:
        return Part(Shape(self.config, self.layers), self.parameters, self.vocabulary, self.width)


def show_plan(resolved: ResolvedConfig, folder: Path, planned: Sequence[tuple[str, str]], console: Console) -> None:
    """Print the plan, and as --json give it as one object.

    Args:
        planned: what would happen to each stage (`pipeline.planned_stages`).
    """
    config = resolved.parameters
    console.table("Parameters", ["parameter", "value", "from"], resolved.rows(), to_stdout=True)
    console.table("Stages", ["stage", "what would happen"], planned, to_stdout=True)
    estimate = estimate_run(config, folder, [stage for stage, words in planned if not words.startswith("skip")])
    shown = {name: value for name, value in estimate.items() if name != "phases"}
    rows = [(name.replace("_", " "), _words(name, value)) for name, value in shown.items()]
    rows += [(f"time of {name}", _words("_seconds", value)) for name, value in (estimate["phases"] or {}).items()]
    console.table("Estimate", ["what", "how much"], rows, to_stdout=True)
    console.info(f"nothing was changed; without --dry-run this goes to {folder}")
    console.json(
        {
            "command": "dry-run", "status": "planned", "run": str(folder),
            "parameters": {name: {"value": value, "from": source} for name, value, source in resolved.rows()},
            "stages": dict(planned), "estimate": estimate,
        }
    )  # fmt: skip


def _words(name: str, value: Any) -> str:
    if value is None:
        return "unknown before the model is here"
    if name.endswith("_bytes"):
        return format_bytes(value)
    if name.endswith("_seconds"):
        return f"about {format_duration(value)}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def estimate_run(config: Parameters, folder: Path, stages: list[str]) -> dict[str, Any]:
    """Sizes, memory, disk and times; None for what cannot be known without downloading.

    The number of tokens is an upper bound until the data are prepared: every example is taken to be full.

    Args:
        stages: that are timed.
    """
    compute = choose_compute(config)
    teacher = _sizes(parse_teacher_reference(config), None)
    student = _sizes(parse_student_reference(config), parse_teacher_reference(config))
    tokens = config.sample_size * config.max_length
    steps = total_steps(config, config.sample_size * (2 if config.box_type == "black" and 0 < config.alpha < 1 else 1))
    estimate: dict[str, Any] = {
        "device": compute.description,
        "teacher_parameters": teacher.parameters if teacher else None,
        "student_parameters": student.parameters if student else None,
        "training_tokens_at_most": tokens * config.epochs,
        "optimizer_steps_at_most": steps,
        "disk_bytes": _disk(config, compute, teacher, student),
        "teacher_cache_bytes": _cache_bytes(config, compute, teacher),
        "disk_free_bytes": _free(folder),
        "memory_bytes": _memory(config, compute, teacher, student),
        "memory_free_bytes": psutil.virtual_memory().available,
    }
    estimate |= _times(config, compute, folder, teacher, student, steps, stages)
    return estimate


def _times(
    config: Parameters,
    compute: Compute,
    folder: Path,
    teacher: Sizes | None,
    student: Sizes | None,
    steps: int,
    stages: list[str],
) -> dict[str, Any]:
    """Seconds of each phase and of all together; None where the models are not here yet."""
    if teacher is None or student is None:
        return {"phases": None, "total_seconds": None}
    if not stages:
        return {"phases": {}, "total_seconds": 0.0}
    tokens = _tokens(config, folder)
    streams = _streams(config, compute, teacher)
    amounts = Amounts(*tokens, steps, config.max_length)
    with freed_memory_kept():  # As the run will do it.
        found = phase_seconds(
            config, compute, teacher.part(), student.part(), amounts, stages,
            cached=_caches(config) or streams, streams=streams,
        )  # fmt: skip
    return {
        "phases": {name: round(seconds, 2) for name, seconds in found.items()},
        "total_seconds": round(sum(found.values()), 1),
    }


def _tokens(config: Parameters, folder: Path) -> tuple[int, int, int]:
    """(student's, teacher's) tokens of the training part, and those of a held-out part: counted if the data are
    prepared, else as if every example were full."""
    try:
        splits = json.loads((folder / "data" / "stats.json").read_text(encoding="utf-8"))["splits"]
        train, test = splits["train"], splits["test"]
        return int(train["student_tokens"]), int(train["teacher_tokens"]), int(test["student_tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        full = config.sample_size * config.max_length
        return full, full, held_out_examples(config) * config.max_length


def _streams(config: Parameters, compute: Compute, teacher: Sizes | None) -> bool:
    if config.box_type != "white" or config.alpha == 0 or config.teacher_cache == "off" or teacher is None:
        return False
    if config.teacher_streaming != "auto":
        return config.teacher_streaming == "on"
    return teacher.parameters * compute.teacher.itemsize > USABLE * free_memory_bytes(compute.device)


def _caches(config: Parameters) -> bool:
    """Whether the teacher runs once and is remembered, if the disk has room and its head is a plain layer."""
    if config.box_type != "white" or config.alpha == 0:
        return False
    if config.teacher_streaming == "on":
        return True
    return config.teacher_cache in ("exact", "sparse") or (config.teacher_cache == "auto" and config.epochs > 1)


def _cache_bytes(config: Parameters, compute: Compute, teacher: Sizes | None) -> int | None:
    if not _caches(config):
        return 0
    if teacher is None:
        return None
    if config.teacher_cache == "sparse":
        return config.sample_size * config.max_length * BYTES_PER_TOKEN
    bytes_each = torch.finfo(compute.teacher).bits // 8
    return config.sample_size * config.max_length * teacher.width * bytes_each


def _disk(config: Parameters, compute: Compute, teacher: Sizes | None, student: Sizes | None) -> int | None:
    cache = _cache_bytes(config, compute, teacher)
    if student is None or cache is None:
        return None
    if _streams(config, compute, teacher) and teacher is not None:
        # What comes out of a block, and out of the one before, until the cache is written.
        states = config.sample_size * config.max_length * teacher.inner_width * compute.teacher.itemsize
        cache = max(cache, 2 * states) + (cache if config.teacher_cache == "sparse" else 0)
    copies = 3 * (checkpoints.KEEP + 1) + 1 + (1 if config.save_best_model else 0)
    return copies * 4 * student.parameters + cache


def _free(folder: Path) -> int:
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _memory(config: Parameters, compute: Compute, teacher: Sizes | None, student: Sizes | None) -> int | None:
    """Student, gradient and two moments, its weights once more in the format of the products, beside the teacher or, with
    the cache, only beside its head; what the backward pass needs, the held-out score, and of the vocabulary-sized tensors
    of the loss one chunk of rows."""
    if teacher is None or student is None:
        return None
    each = torch.finfo(compute.teacher).bits // 8
    needs_teacher = config.alpha > 0
    rows = min(config.batch_size * config.max_length, rows_per_chunk(student.vocabulary, compute.device))
    # In their own format; across tokenizers the teacher's probabilities are in fp32, and so is what they are mapped to.
    chunk = rows * (
        each * student.vocabulary + ((each + 4) * teacher.vocabulary + 4 * student.vocabulary) * needs_teacher
    )
    copies = 0 if compute.autocast is None else each * student.parameters
    tokens = config.batch_size * config.max_length
    activations = _ACTIVATION_BYTES * tokens * student.layers * student.inner_width
    # The held-out score holds the logits of a batch, and a few rows of them in fp32.
    scored = min(LOGITS_AT_ONCE, held_out_examples(config) * config.max_length * student.vocabulary)
    scoring = 4 * scored + 3 * 4 * min(scored, WIDE_AT_ONCE)
    # Freed memory is kept, so the one does not make room for the other.
    training = 16 * student.parameters + copies + chunk + activations + scoring
    if compiles(config, compute, config.sample_size * config.max_length * config.epochs, student.vocabulary):
        training += _COMPILER_BYTES
    if not needs_teacher:
        return _LIBRARIES_BYTES + training
    if _streams(config, compute, teacher):
        frame = teacher.parameters - teacher.vocabulary * teacher.width
        block = each * (frame // max(1, teacher.layers) + 2 * teacher.vocabulary * teacher.width)
        head = 0 if config.teacher_cache == "sparse" else each * teacher.vocabulary * teacher.width
        return _LIBRARIES_BYTES + max(block, training + head)
    if _caches(config):
        head = 0 if config.teacher_cache == "sparse" else each * teacher.vocabulary * teacher.width
        return _LIBRARIES_BYTES + max(each * teacher.parameters, training + head)
    return _LIBRARIES_BYTES + training + each * teacher.parameters


# --- sizes without weights -------------------------------------------------------------------------------------------


def _sizes(reference: ModelReference, teacher: ModelReference | None) -> Sizes | None:
    if reference.kind == "pruned-teacher" and teacher is not None:
        whole = _sizes(teacher, None)
        return _pruned(teacher, reference, whole) if whole else None
    config = _config_of(reference)
    return _count(config) if config is not None else None


def _config_of(reference: ModelReference) -> dict[str, Any] | None:
    """The model's config.json, from where it costs next to nothing; None where it would need a download."""
    folder: Path | None = None
    if reference.kind == "folder":
        folder = reference.path
    elif reference.kind in ("gguf", "wheel"):
        folder = cached_conversion(reference)
    elif reference.repo_id is not None:
        folder = _hub_config(reference.repo_id, reference.revision)
    if folder is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else None
    return None


def _hub_config(repo_id: str, revision: str | None) -> Path | None:
    """config.json of a Hub model: a few hundred bytes, from the cache or the Hub."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        return Path(hf_hub_download(repo_id, "config.json", revision=revision, local_files_only=True)).parent
    except OSError:
        pass  # not in the cache
    with silence_hub():
        try:
            # One short request first: the library's own retries would take most of a minute without a network.
            HfApi().model_info(repo_id, revision=revision, timeout=5)
            return Path(hf_hub_download(repo_id, "config.json", revision=revision, etag_timeout=5)).parent
        except Exception:
            # Not on the Hub, gated, no network, in whatever words the HTTP client has for it: the plan says
            # "unknown", the run itself says why.
            return None


@contextlib.contextmanager
def _without_weights() -> Iterator[None]:
    with silence_transformers(), torch.device("meta"):
        yield


def _count(config: dict[str, Any]) -> Sizes | None:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = config.get("model_type")
    if not isinstance(kind, str) or "auto_map" in config:
        return None
    try:
        with _without_weights():
            values = {
                name: value for name, value in config.items() if name not in ("model_type", "quantization_config")
            }
            model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    except (ValueError, KeyError, TypeError, ImportError):
        # An architecture that this transformers does not know: the run says so; the plan has no sizes.
        return None
    parameters = sum(item.numel() for item in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    # Looking a token up costs nothing; the head, tied or not, is multiplied.
    multiplied = parameters if tied else parameters - embedding
    columns, width = head.weight.shape if head is not None else (0, 0)
    text = model.config.get_text_config()
    layers = next((getattr(text, name) for name in LAYER_COUNT_NAMES if isinstance(getattr(text, name, None), int)), 1)
    inner = int(getattr(text, "hidden_size", width))
    return Sizes(parameters, 2.0 * multiplied, int(columns), int(width), config, int(layers), inner)


def _pruned(teacher: ModelReference, student: ModelReference, whole: Sizes) -> Sizes | None:
    config = _config_of(teacher)
    if config is None:
        return None
    names = [name for name in ("num_hidden_layers", "n_layer", "num_layers") if isinstance(config.get(name), int)]
    if not names:
        return None
    total = config[names[0]]
    kept = student.layers if isinstance(student.layers, int) else len(student.layers or ())
    fewer = {**config, names[0]: 1}
    fewer.pop("layer_types", None)
    one = _count(fewer)
    if one is None or total < 2:
        return None
    layer_parameters, layer_flops = (
        (whole.parameters - one.parameters) / (total - 1),
        (whole.flops - one.flops) / (total - 1),
    )
    return Sizes(
        round(one.parameters + (kept - 1) * layer_parameters),
        one.flops + (kept - 1) * layer_flops,
        whole.vocabulary,
        whole.width,
        whole.config,
        kept,
        whole.inner_width,
    )
