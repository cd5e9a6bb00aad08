"""llama.cpp reads the exported files: the same tokens, and the same greedy text as transformers.

Needs xllamacpp, a wheel with llama.cpp inside (llama-cpp-python has to be compiled): pip install xllamacpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_exports import KINDS, QUIET, TEXTS, models, student_of
from tiny_models import tiny_tokenizer

from distillkit.exporting.gguf_file import plan_gguf, write_gguf
from distillkit.exporting.number_formats import GGUF_FORMATS

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp", reason="llama.cpp itself is not here: pip install xllamacpp")


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_writes_the_same(kind: str, tmp_path: Path) -> None:
    from llama_server import llama_server

    vocab = len(tiny_tokenizer())
    student, model = student_of(tmp_path / "student", models(kind, vocab))
    path = tmp_path / "model.gguf"
    write_gguf(path, plan_gguf(student, GGUF_FORMATS["f32"]), QUIET)
    with llama_server(path, 128) as server:
        for text in TEXTS:
            ids = student.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert server.tokens(text) == ids
            assert server.tokens(text, add_special=True) == student.tokenizer(text)["input_ids"]
            prompt = ids * 5 if kind == "llama, llama3 rope" else ids
            assert server.greedy(prompt, 12) == greedy(model, prompt, 12)


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]
