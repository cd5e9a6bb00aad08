"""The number formats of exported weights: their names, how far each may move a student's score, and which tensor has which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Numbers per block of a quantised row: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
BLOCK = 32
EMBEDDINGS = ("token_embd.weight", "output.weight")
# What llama.cpp keeps in fp32 whatever the format of the file; vectors (norms, biases) come to it by their shape.
_ALWAYS_F32 = ("position_embd.weight", "rope_freqs.weight")


@dataclass(frozen=True)
class NumberFormat:
    """A format of exported weights.

    Attributes:
        name: as `--dtype` takes it, and as `gguf.GGMLQuantizationType` spells it in capitals.
        file_type: the name in `gguf.LlamaFileType`.
        tolerance: by what share of its bits per byte the student may read worse or better in this format. Measured on
            SmolLM2-135M, and several times that: see docs/export.md.
        embeddings: the format of the token embedding and the output matrix, which a coarse one would hurt most.
    """

    name: str
    file_type: str
    tolerance: float
    embeddings: str

    @property
    def blocked(self) -> bool:
        """Whether it stores rows in blocks with a common scale."""
        return self.name.startswith("q")


GGUF_FORMATS = {
    form.name: form
    for form in (
        NumberFormat("f32", "ALL_F32", 1e-4, "f32"),
        NumberFormat("f16", "MOSTLY_F16", 2e-3, "f16"),
        NumberFormat("bf16", "MOSTLY_BF16", 1e-2, "bf16"),
        NumberFormat("q8_0", "MOSTLY_Q8_0", 2e-2, "q8_0"),
        NumberFormat("q5_1", "MOSTLY_Q5_1", 0.1, "q8_0"),
        NumberFormat("q5_0", "MOSTLY_Q5_0", 0.1, "q8_0"),
        NumberFormat("q4_1", "MOSTLY_Q4_1", 0.25, "q8_0"),
        NumberFormat("q4_0", "MOSTLY_Q4_0", 0.25, "q8_0"),
    )
}
# Those of safetensors, by the name that a file has for them.
SAFETENSORS_FORMATS = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


def tensor_format(name: str, shape: Sequence[int], form: NumberFormat) -> str:
    """The format of one tensor of a GGUF file.

    Args:
        name: as GGUF has it.
        shape: rows last, as numpy has it.

    Returns:
        A name in `GGUF_FORMATS`. A row that is no whole number of blocks, as narrowed students have them, stays in fp16.
    """
    if len(shape) == 1 or name in _ALWAYS_F32:
        return "f32"
    wanted = form.embeddings if name in EMBEDDINGS else form.name
    return "f16" if wanted.startswith("q") and shape[-1] % BLOCK else wanted
