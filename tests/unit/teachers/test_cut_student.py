"""The start of a cut student: from whole and from streamed teachers, the same every time, and what is recorded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.device.precision import choose_compute
from distillkit.models.block_chain import BlockChain, boundary_states
from distillkit.models.layer_scores import influence
from distillkit.models.loading import load_model
from distillkit.models.pruning import decoder_blocks, keep_layers
from distillkit.run.pair import ModelPair, locate_pair
from distillkit.settings.parameters import Parameters
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.cut_student import (
    FIT_TOKENS,
    CutStudent,
    CutTexts,
    begin_cut_student,
    blockwise_states,
    equal_texts,
)

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
LAYERS = 6


def texts(count: int = 60, seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(1, 384) for _ in range(generator.randrange(10, 64))] for _ in range(count)]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each family; of Llama and GPT-2, tied and not."""
    root, tokenizer = tmp_path_factory.mktemp("teachers"), tiny_tokenizer()
    for family, settings in {"llama": {}, "gpt2": {}, "gpt_neox": {}, "qwen2": {}}.items():
        model = tiny_model(family, len(tokenizer), layers=LAYERS, hidden=16, seed=3, **settings)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for block in decoder_blocks(model)[2]:
                for parameter in block.parameters():
                    if parameter.dim() > 1:
                        parameter.mul_(2 + 6 * float(torch.rand((), generator=generator)))
        save_model_folder(root / family, model, tokenizer)
    return root


def begin(
    teachers: Path, family: str = "llama", student: str = "teacher:3", **settings: Any
) -> tuple[ModelPair, CutStudent]:
    config = Parameters(
        teacher_model_path=str(teachers / family), student_model=student, no_cuda=True,
        **{"precision": "fp32", **settings},
    )  # fmt: skip
    pair = locate_pair(config, QUIET)
    return pair, begin_cut_student(pair, config, choose_compute(config), texts(), 0.3, QUIET)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
@pytest.mark.parametrize("way", ["influence", "contiguous"])
def test_a_streamed_teacher_gives_the_same_start(teachers: Path, family: str, way: str) -> None:
    _, whole = begin(teachers, family, layer_choice=way)
    _, streamed = begin(teachers, family, layer_choice=way, teacher_streaming="on")
    assert whole.layers == streamed.layers
    assert streamed.record["influence"] == pytest.approx(whole.record["influence"], abs=1e-6)
    assert whole.model is not None
    assert streamed.model is not None
    wanted = whole.model.state_dict()
    for name, value in streamed.model.state_dict().items():
        assert torch.allclose(value, wanted[name], rtol=1e-3, atol=1e-4), name
    assert streamed.record["bits_per_byte"]["fitted"] == pytest.approx(
        whole.record["bits_per_byte"]["fitted"], rel=1e-3
    )
    # There is no whole teacher to be measured.
    assert streamed.record["bits_per_byte"]["teacher"] is None


def test_the_states_of_a_streamed_teacher(teachers: Path) -> None:
    pair, _ = begin(teachers, "gpt2", student_start="cut", layer_choice="even")
    batches = list(equal_texts(texts(), 200, 16).split(3))
    with BlockChain(load_model(pair.teacher, dtype=torch.float32, console=QUIET)) as chain:
        wanted = boundary_states(chain, batches, [0, 2, LAYERS])
    blockwise = BlockwiseTeacher(pair.teacher, torch.float32, CPU)
    for _ in range(2):  # It can be read again.
        found = blockwise_states(blockwise, batches, [0, 2, LAYERS], QUIET)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_a_student_cut_without_the_whole_teacher(teachers: Path, family: str) -> None:
    pair, _ = begin(teachers, family, student_start="cut", layer_choice="even")
    blockwise = BlockwiseTeacher(pair.teacher, torch.float32, CPU).cut([0, 2, 5])
    wanted = keep_layers(load_model(pair.teacher, dtype=torch.float32, console=QUIET), [0, 2, 5])
    own, other = blockwise.state_dict(), wanted.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    with torch.no_grad():
        assert torch.equal(
            blockwise(input_ids=torch.tensor([[3, 4, 5]])).logits, wanted(input_ids=torch.tensor([[3, 4, 5]])).logits
        )


def test_the_same_start_every_time(teachers: Path) -> None:
    (_, one), (_, other) = (begin(teachers) for _ in range(2))
    assert one.record == other.record
    assert one.model is not None
    assert other.model is not None
    weights = other.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())


def test_named_layers_are_fitted_too(teachers: Path) -> None:
    _, named = begin(teachers, student="teacher:0,2,5")
    assert (named.layers, named.record["asked"], named.record["way"]) == ([0, 2, 5], "named", "named")
    assert named.model is not None
    assert [fit["layer"] for fit in named.record["fit"]["layers"]] == [0, 2, 5]
    found = named.record["bits_per_byte"]
    assert found["teacher"] > 0
    assert found["cut"] != found["fitted"]
    assert named.summary().startswith("layers kept: 0, 2, 5 of 6: named, fitted, about ")


def test_cut_leaves_the_layers_as_they_are(teachers: Path) -> None:
    _, cut = begin(teachers, student_start="cut", layer_choice="influence")
    assert cut.model is None
    assert (cut.record["start"], cut.record["fit"]) == ("cut", {"tokens": 0, "layers": []})
    assert cut.record["bits_per_byte"]["fitted"] is None
    assert "fitted" not in cut.summary()


def test_all_layers_are_the_teacher(teachers: Path) -> None:
    _, cut = begin(teachers, student=f"teacher:{LAYERS}")
    assert (cut.layers, cut.model, cut.record["way"]) == (list(range(LAYERS)), None, "all")


def test_influence_is_of_the_drawn_texts(teachers: Path) -> None:
    pair, cut = begin(teachers, layer_choice="influence", student_start="cut")
    drawn = CutTexts.drawn(texts(), 42).influence
    with BlockChain(load_model(pair.teacher, dtype=torch.float32, console=QUIET)) as chain:
        wanted = influence(boundary_states(chain, [drawn], range(LAYERS + 1)))
    assert cut.record["influence"] == pytest.approx(wanted, abs=1e-5)
    assert cut.record["tokens"] == drawn.numel()


def test_the_texts_that_are_drawn() -> None:
    own = texts(200)
    drawn, again = CutTexts.drawn(own, 1), CutTexts.drawn(own, 1)
    assert all(torch.equal(getattr(drawn, name), getattr(again, name)) for name in ("trial", "influence", "fit"))
    assert not torch.equal(drawn.trial, CutTexts.drawn(own, 2).trial)
    beginnings = {tuple(text[:8]) for text in own}
    seen = {name: {tuple(row[:8].tolist()) for row in getattr(drawn, name)} for name in ("trial", "influence", "fit")}
    assert all(found <= beginnings for found in seen.values())
    assert not seen["trial"] & seen["fit"]
    assert seen["influence"] <= seen["fit"]
    assert drawn.fit.numel() <= FIT_TOKENS
    # One text is better than none.
    assert CutTexts.drawn([[1, 2, 3]], 1).fit.tolist() == [[1, 2]]


def test_texts_of_one_length() -> None:
    own = [[1] * 20, [2] * 128, [3] * 10, [4] * 64, [5] * 64]
    assert equal_texts(own, 128, 128).tolist() == [[2] * 128]
    assert equal_texts(own, 192, 128).tolist() == [[2] * 64, [4] * 64, [5] * 64]
    assert equal_texts(own, 64, 64).tolist() == [[2] * 64]
    assert equal_texts([[1, 2]], 768, 96).tolist() == [[1, 2]]
