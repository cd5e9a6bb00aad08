"""Writing a student as a GGUF file, one tensor in memory at a time.

The format is described at https://github.com/ggml-org/ggml, under GGUF.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillkit import __version__
from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.exporting.architectures import ARCHITECTURES, Architecture, rope_factors
from distillkit.exporting.chosen_student import ChosenStudent
from distillkit.exporting.number_formats import NumberFormat, tensor_format
from distillkit.exporting.vocabulary import Vocabulary, vocabulary_of
from distillkit.interrupts import check_interrupted
from distillkit.models.licence import licence_of
from distillkit.models.model_files import weight_files
from distillkit.models.plain_folder import plain_folder
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.silence_libraries import silence_transformers

# By this key a file is known as one that may be replaced.
OWN_KEY = "distillkit.version"
# The fingerprint of the student that it was made of.
STUDENT_KEY = "distillkit.student"


@dataclass(frozen=True)
class _PlannedTensor:
    name: str
    shape: tuple[int, ...]
    format: str
    bytes: int
    read: Callable[[], np.ndarray]  # fp32, in the layout of llama.cpp


@dataclass(frozen=True)
class GgufPlan:
    """What a GGUF file will hold, known before anything is written.

    Attributes:
        student: whose file it is.
        config: its configuration, as transformers reads it.
        form: the number format.
        tensors: in the order of the file.
        vocabulary: its tokenizer.
        unblocked: how many matrices stay in fp16 because their rows are no whole number of blocks.
    """

    student: ChosenStudent
    config: Any
    form: NumberFormat
    architecture: Architecture
    tensors: list[_PlannedTensor]
    vocabulary: Vocabulary
    unblocked: int

    @property
    def bytes(self) -> int:
        """Of all tensors; the vocabulary comes to a few megabytes at most."""
        return sum(tensor.bytes for tensor in self.tensors)


def import_gguf() -> Any:
    """The gguf library.

    Raises:
        PreconditionError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise PreconditionError(
            "GGUF files need the library gguf, which is not installed", hint="pip install 'distillkit[gguf]'"
        ) from error
    # It reports every key that it adds.
    logging.getLogger("gguf").setLevel(logging.ERROR)
    return gguf


def plan_gguf(student: ChosenStudent, form: NumberFormat) -> GgufPlan:
    """Decide what the file will hold.

    Raises:
        PreconditionError: llama.cpp does not compute such a model or has no such tokenizer, as far as it is covered here;
            a file of the student cannot be read.
    """
    gguf = import_gguf()
    from transformers import AutoConfig

    with silence_transformers(), plain_folder(student.folder) as folder:
        config: Any = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=student.trust_remote_code
        )
    architecture = _architecture(student, config, form)
    weights = StoredWeights(list(weight_files(student.folder)))
    names = gguf.get_tensor_name_map(_enumerated(gguf, architecture.name), config.num_hidden_layers)
    tensors: list[_PlannedTensor] = []
    unblocked = 0
    for stored in weights:
        tied = stored == "lm_head.weight" and config.tie_word_embeddings
        if tied or stored.endswith(architecture.left_out):
            continue
        name = names.get_name(stored, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise _refused(
                student, config, f"it has a tensor {stored} that llama.cpp's {architecture.name} does not", form
            )
        read = _reader(weights, stored, architecture, config)
        # On the meta device: shapes alone.
        laid_out = architecture.layout(stored, torch.empty(weights.shape(stored), device="meta"), config)
        tensor = _planned(gguf, name, tuple(laid_out.shape), form, read)
        unblocked += form.blocked and len(tensor.shape) > 1 and tensor.format == "f16"
        tensors.append(tensor)
    if hasattr(config, "rope_parameters") and (factors := rope_factors(config)) is not None:
        tensors.append(_planned(gguf, "rope_freqs.weight", tuple(factors.shape), form, factors.numpy))
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    vocabulary = vocabulary_of(student.tokenizer, student.folder, rows)
    return GgufPlan(student, config, form, architecture, tensors, vocabulary, unblocked)


def _architecture(student: ChosenStudent, config: Any, form: NumberFormat) -> Architecture:
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        covered = ", ".join(ARCHITECTURES)
        raise _refused(student, config, f"these are covered: {covered}", form)
    if (obstacle := architecture.obstacle(config)) is not None:
        raise _refused(student, config, obstacle, form)
    return architecture


def _refused(student: ChosenStudent, config: Any, why: str, form: NumberFormat) -> PreconditionError:
    outtype = form.name if form.name in ("f32", "f16", "bf16", "q8_0") else "f16"
    return PreconditionError(
        f"a student of the kind {config.model_type} is not exported to GGUF: {why}",
        hint="llama.cpp's own conversion may know it: python convert_hf_to_gguf.py "
        f"{shlex.quote(str(student.folder))} --outtype {outtype}",
    )


def _enumerated(gguf: Any, name: str) -> Any:
    return next(number for number, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def _planned(
    gguf: Any, name: str, shape: tuple[int, ...], form: NumberFormat, read: Callable[[], np.ndarray]
) -> _PlannedTensor:
    own = tensor_format(name, shape, form)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[own.upper()]]
    return _PlannedTensor(name, shape, own, int(np.prod(shape)) // block * size, read)


def _reader(weights: StoredWeights, name: str, architecture: Architecture, config: Any) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        return architecture.layout(name, weights.read(name, torch.float32), config).contiguous().numpy()

    return read


def write_gguf(path: Path, plan: GgufPlan, console: Console) -> None:
    """Write the file.

    Raises:
        OSError: it cannot be written.
        PreconditionError: a weight does not fit into the format.
        Interrupted: a signal arrived.
    """
    gguf = import_gguf()
    writer = gguf.GGUFWriter(path, plan.architecture.name)
    try:
        _describe(writer, gguf, plan)
        for tensor in plan.tensors:
            kind = gguf.GGMLQuantizationType[tensor.format.upper()]
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        stream = writer.fout[0]
        with console.progress("writing", total=plan.bytes / 1e6, unit="MB") as progress:
            for tensor in plan.tensors:
                check_interrupted()
                content = _encoded(gguf, tensor)
                writer.write_padding(stream, stream.tell())
                # Not numpy's `tofile`, whose error does not say that the disk is full.
                stream.write(content.data)
                writer.write_padding(stream, content.nbytes)
                progress.advance(tensor.bytes / 1e6)
        stream.flush()
    finally:
        if writer.fout is not None:
            for stream in writer.fout:
                stream.close()


def _encoded(gguf: Any, tensor: _PlannedTensor) -> np.ndarray:
    values = tensor.read()
    if tensor.format == "f16" and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise PreconditionError(
            f"{tensor.name} has weights beyond what fp16 holds (65504)", hint="use --dtype bf16, q8_0 or f32"
        )
    content = np.ascontiguousarray(gguf.quantize(values, gguf.GGMLQuantizationType[tensor.format.upper()]))
    if content.nbytes != tensor.bytes:
        raise AssertionError(f"{tensor.name}: {content.nbytes} bytes instead of {tensor.bytes}")
    return content


def _describe(writer: Any, gguf: Any, plan: GgufPlan) -> None:
    """All metadata: of the file, of the model, of the tokenizer."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(plan.student.run.path.resolve().name)
    licence = licence_of(plan.student.located)
    if licence is not None:
        writer.add_license(licence.identifier)
    writer.add_tags(["distillkit", "knowledge-distillation", "text-generation"])
    writer.add_file_type(gguf.LlamaFileType[plan.form.file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_string(OWN_KEY, __version__)
    writer.add_string(STUDENT_KEY, plan.student.located.fingerprint())
    plan.architecture.describe(writer, plan.config)
    plan.vocabulary.write(writer)
