"""What prepare-data stores and says, recomputed from the stored texts with plain transformers."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizer_makers as make
from plain_alignment import Reading, plain_coverage, plain_ids, plain_reading
from settings_file import settings_file
from tiny_models import (
    make_paragraph,
    save_model_folder,
    tiny_model,
    tiny_sentencepiece_tokenizer,
    tiny_tokenizer,
)
from transformers import AutoTokenizer

from distillkit.cli import main as cli
from distillkit.data.examples import load_examples

CODE = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)\n\n\n"
OTHERS = (
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. ",
    "Съешь же ещё этих мягких французских булок. ",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน ",
    "👩\u200d👩\u200d👧 und 🇩🇪🇫🇷, 👍🏽! ",
    "Numbers: 3.14159, 1,000,000   and\ttabs. ",
)


@dataclass(frozen=True)
class Pair:
    """Teacher and student by their tokenizers, and how the student learns."""

    teacher: str
    student: str
    box: str = "white"


PAIRS = {
    "one tokenizer": Pair("bytes", "bytes"),
    "one tokenizer, sentencepiece": Pair("sentencepiece", "sentencepiece"),
    "bytes to sentencepiece": Pair("bytes", "sentencepiece"),
    "sentencepiece to bytes": Pair("sentencepiece", "bytes"),
    "with BOS to without": Pair("modern", "bytes"),
    "black box": Pair("bytes", "sentencepiece", "black"),
    "black box, bytes unknown": Pair("bytes", "lower case", "black"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each tokenizer, and texts of many kinds."""
    base = tmp_path_factory.mktemp("recomputed")
    tokenizers = {
        "bytes": tiny_tokenizer(384), "modern": make.split_byte_level(), "lower case": make.word_piece(lowercase=True),
        "sentencepiece": tiny_sentencepiece_tokenizer(base / "trained"),
    }  # fmt: skip
    for name, tokenizer in tokenizers.items():
        family = "llama" if name == "sentencepiece" else "gpt2"
        model = tiny_model(family, len(tokenizer), layers=1, hidden=16, context=96)
        save_model_folder(base / name, model, tokenizer)
    texts = []
    for seed in range(60):
        generator = random.Random(seed)
        parts = [make_paragraph(generator, 2), CODE.replace("mean", f"mean{seed}"), *generator.sample(OTHERS, 3)]
        texts.append("\n".join(generator.sample(parts, len(parts))) + make_paragraph(generator, 1 + seed % 3))
    (base / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return base


def expected_ids(tokenizer: Any, text: str, ends: bool) -> list[int]:
    """Start, text, end: a model without BOS starts with its end token."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [start, *plain_ids(tokenizer, text), *([tokenizer.eos_token_id] if ends else [])]


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_stored_is_what_plain_transformers_reads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pair = PAIRS[name]
    settings = settings_file(
        tmp_path, teacher_model_path=folder / pair.teacher, student_model_path=folder / pair.student, box_type=pair.box,
        dataset_path=folder / "texts.jsonl", output_dir=tmp_path / "output", folder_name="run", sample_size=60, held_out_size=8,
        max_length=64, no_cuda=True, install_deps=False, allow_out_of_range=True,
    )  # fmt: skip
    assert cli.main(["prepare-data", "--config", str(settings), "--quiet"]) == 0
    data = tmp_path / "output" / "run" / "data"
    stats = json.loads((data / "stats.json").read_text(encoding="utf-8"))
    assert stats["same_tokenizer"] is (pair.teacher == pair.student)

    student, teacher = (AutoTokenizer.from_pretrained(folder / side) for side in (pair.student, pair.teacher))
    sources = [json.loads(line)["text"].strip() for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]
    sums = dict.fromkeys(("positions", "aligned", "on_boundaries", "bytes", "bytes_aligned"), 0)
    for part in ("train", "validation", "test"):
        examples = load_examples(data / part).to_list()
        for example in examples:
            text, ends = example["text"], example["ends_text"]
            assert any(text in source for source in sources)
            # A short piece from the middle of one text may end another.
            closing = any(source.endswith(text) for source in sources)
            assert closing if ends else not closing or len(text) < 60
            assert example["bytes"] == len(text.encode())
            assert example["student_ids"] == expected_ids(student, text, ends)
            assert example["teacher_ids"] == expected_ids(teacher, text, ends)
            assert len(example["student_ids"]) <= 64
            assert example["student_tokens"] == len(plain_ids(student, text))
            assert example["teacher_tokens"] == len(plain_ids(teacher, text))
            if part == "train" and "alignment" in stats:
                read = [plain_reading(tokenizer, text) for tokenizer in (student, teacher)]
                assert isinstance(read[0], Reading)
                assert isinstance(read[1], Reading)
                counted = plain_coverage(
                    read[0], read[1], text.encode(), starts=(True, True), train_end=(ends, ends)
                )  # fmt: skip
                for key in sums:
                    sums[key] += getattr(counted, key)
        counts = stats["splits"][part]
        assert counts["examples"] == len(examples) > 5
        assert counts["bytes"] == sum(len(example["text"].encode()) for example in examples)
        assert counts["student_tokens"] == sum(len(plain_ids(student, example["text"])) for example in examples)
        assert counts["teacher_tokens"] == sum(len(plain_ids(teacher, example["text"])) for example in examples)
    assert ("alignment" in stats) is (pair.box == "white" and pair.teacher != pair.student)
    if "alignment" in stats:
        figures = stats["alignment"]
        assert figures["positions_aligned"] == pytest.approx(sums["aligned"] / sums["positions"], abs=5e-6)
        assert figures["positions_on_boundaries"] == pytest.approx(sums["on_boundaries"] / sums["positions"], abs=5e-6)
        assert figures["bytes_aligned"] == pytest.approx(sums["bytes_aligned"] / sums["bytes"], abs=5e-6)
        assert 0.5 < figures["positions_aligned"] <= 1
