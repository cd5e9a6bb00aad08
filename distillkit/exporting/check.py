"""Whether an export is the student: it is loaded by a reader that did not write it, and reads held-out texts of the run.

What is exported is thrown away where it fails. Never are two models in memory.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.console import Console
from distillkit.errors import DistillkitError, PreconditionError, first_line
from distillkit.evaluation.bits_per_byte import ScoredText, score
from distillkit.exporting.as_llama_cpp_reads import tokenizer_of
from distillkit.exporting.chosen_student import ChosenStudent
from distillkit.exporting.gguf_file import import_gguf
from distillkit.models.loading import load_model
from distillkit.models.located import LocatedModel
from distillkit.models.references import parse_reference
from distillkit.silence_libraries import silence_gguf_reader

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class CheckResult:
    """What an export was found to be.

    Attributes:
        student, exported: bits per byte on the same held-out texts.
        tolerance: the share by which the second may differ from the first.
        texts: how many were read.
        same_tokens: on how many of them the tokens were compared; None where the tokenizer's files were copied.
    """

    student: float
    exported: float
    tolerance: float
    texts: int
    same_tokens: int | None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "bits_per_byte": {"student": self.student, "exported": self.exported},
            "tolerance": self.tolerance,
            "texts": self.texts,
            "same_tokens": self.same_tokens,
        }


def student_score(student: ChosenStudent, texts: Sequence[ScoredText], console: Console) -> float:
    """Bits per byte of the student itself, in fp32.

    Raises:
        PreconditionError: it cannot be loaded.
        Interrupted: a signal arrived.
    """
    return _score(_folder_model(student.located, student, console), texts)


def check_folder(
    folder: Path,
    student: ChosenStudent,
    texts: Sequence[ScoredText],
    expected: float,
    tolerance: float,
    console: Console,
) -> CheckResult:
    """Check an exported folder.

    Raises:
        PreconditionError: it cannot be loaded, or is not the student.
        Interrupted: a signal arrived.
    """
    located = LocatedModel(parse_reference(str(folder)), folder)
    return _compared(expected, _score(_folder_model(located, student, console), texts), tolerance, texts, None)


def check_gguf(
    path: Path, student: ChosenStudent, texts: Sequence[ScoredText], spelled: Sequence[str], expected: float,
    tolerance: float,
) -> CheckResult:  # fmt: skip
    """Check a GGUF file: transformers reads the model, and the tokenizer is read as llama.cpp reads it.

    Args:
        spelled: the texts themselves.

    Raises:
        PreconditionError: it cannot be loaded, or is not the student.
        Interrupted: a signal arrived.
    """
    compared = _check_tokens(path, student, spelled)
    return _compared(expected, _score(read_gguf(path), texts), tolerance, texts, compared)


def _compared(
    expected: float, found: float, tolerance: float, texts: Sequence[ScoredText], same_tokens: int | None
) -> CheckResult:
    if not abs(found - expected) <= tolerance * expected:
        raise PreconditionError(
            f"the export is not the student: {found:.4f} bits per byte on held-out texts instead of {expected:.4f}, and "
            f"this format may differ by {tolerance:.1%}",
            hint="nothing was written; a format with more bits (--dtype q8_0, f16) may do, else this is a defect",
        )
    return CheckResult(expected, found, tolerance, len(texts), same_tokens)


def _folder_model(located: LocatedModel, student: ChosenStudent, console: Console) -> nn.Module:
    return load_model(located, dtype=torch.float32, trust_remote_code=student.trust_remote_code, console=console)


def _score(model: nn.Module, texts: Sequence[ScoredText]) -> float:
    """Bits per byte; the model's memory is free afterwards if the caller does not hold it."""
    found = score(model, texts, device=_CPU).bits_per_byte
    del model
    gc.collect()
    return found


def read_gguf(path: Path) -> nn.Module:
    """The model in a GGUF file, dequantised to fp32, as transformers loads it.

    transformers leaves out some of what llama.cpp obeys (sizes of heads, biases, GPT-2's widths, scaled rotary positions):
    these are put in from the file.

    Raises:
        PreconditionError: it cannot be loaded, lacks weights, or has some that belong nowhere.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    file: Any = import_gguf().GGUFReader(path)
    try:
        with silence_gguf_reader():
            config: Any = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
            for name, value in _left_out(file, config.model_type).items():
                setattr(config, name, value)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, config=config, dtype=torch.float32, output_loading_info=True
            )
        model, report = loaded
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if keys := sorted(map(str, report.get(what, ()))):
                raise ValueError(f"{len(keys)} {what.replace('_', ' ')}, such as {keys[0]}")
        _scale_rotations(model, file)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        raise PreconditionError(
            f"the GGUF file cannot be read back: {first_line(error)}", hint="nothing was written; this is a defect"
        ) from error
    return model.eval()


def _value(file: Any, name: str) -> Any:
    field = file.get_field(f"{file.get_field('general.architecture').contents()}.{name}")
    return None if field is None else field.contents()


def _left_out(file: Any, kind: str) -> dict[str, Any]:
    """What transformers does not read of a file's metadata, as settings of its configuration."""
    if kind == "gpt2":
        return {"n_positions": _value(file, "context_length"), "n_inner": _value(file, "feed_forward_length")}
    settings = {"head_dim": _value(file, "attention.key_length")}
    if kind == "llama":
        names = {tensor.name for tensor in file.tensors}
        settings |= {"attention_bias": "blk.0.attn_q.bias" in names, "mlp_bias": "blk.0.ffn_up.bias" in names}
    return settings


def _scale_rotations(model: Any, file: Any) -> None:
    """Divide the frequencies of the rotary positions as llama.cpp does."""
    factor: Any = _value(file, "rope.scaling.factor")
    factors = next((tensor.data for tensor in file.tensors if tensor.name == "rope_freqs.weight"), None)
    if factors is not None:
        factor = torch.from_numpy(factors.copy())
    if factor is not None:
        model.model.rotary_emb.inv_freq /= factor


def _check_tokens(path: Path, student: ChosenStudent, texts: Sequence[str]) -> int:
    """On how many texts the file's tokenizer agrees; those that name a special token are left out: they may mean it.

    Raises:
        PreconditionError: it reads a text otherwise.
    """
    try:
        reader = tokenizer_of(path)
    except (OSError, KeyError, ValueError) as error:
        raise PreconditionError(
            f"the GGUF file's tokenizer cannot be read back: {first_line(error)}",
            hint="nothing was written; this is a defect",
        ) from error
    backend = student.tokenizer.backend_tokenizer
    names = [token.content for token in student.tokenizer.added_tokens_decoder.values()]
    # See the notes of `vocabulary_of`: llama.cpp is known to read these otherwise.
    own_space = " " if "Metaspace" in str(backend.pre_tokenizer) else None
    compared = 0
    for text in texts:
        if own_space is not None and text.startswith(own_space):
            continue
        text = text if backend.normalizer is None else _normalised(backend, text)
        if any(name in text for name in names):
            continue
        wanted, found = backend.encode(text, add_special_tokens=False).ids, reader.encode(text)
        if found != wanted:
            raise _different(student.tokenizer, wanted, found)
        compared += 1
    return compared


def _normalised(backend: Any, text: str) -> str:
    """What llama.cpp would have to be given: it has no NFC. SentencePiece's own spelling of spaces is not meant."""
    normalised = backend.normalizer.normalize_str(text)
    return text if "\u2581" in normalised else normalised


def _different(tokenizer: Any, wanted: Sequence[int], found: Sequence[int]) -> DistillkitError:
    place = next(
        (at for at, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found))
    )
    ours, theirs = (tokenizer.convert_ids_to_tokens(list(ids[place : place + 3])) for ids in (wanted, found))
    return PreconditionError(
        f"llama.cpp would read a held-out text otherwise than the student does, from token {place + 1} on: {theirs} instead "
        f"of {ours}",
        hint="nothing was written; --format safetensors keeps the tokenizer as it is",
    )
