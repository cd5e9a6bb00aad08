"""The start of a student that is cut from its teacher: which layers it keeps, and how they are fitted to the teacher.

Everything is measured on a few of the run's own training texts, which are cut to one length: nothing is padded.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distillkit.console import Console
from distillkit.device.malloc import trim_heap
from distillkit.device.precision import Compute, autocasting
from distillkit.interrupts import check_interrupted
from distillkit.models.block_chain import BlockChain, NotAChainError, boundary_states, mean_loss
from distillkit.models.fitted_start import LayerFit, fit_to_teacher, target_places
from distillkit.models.layer_choice import LayerChoice, TeacherStates, choose_layers
from distillkit.models.loading import load_model, load_student
from distillkit.models.pruning import decoder_blocks, keep_layers, nearest_savable
from distillkit.models.width import Narrowed, narrow
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.choices import choose_streaming
from distillkit.teachers.spread import on_one_device, teacher_memory
from distillkit.words import say

_LONGEST, _LONGEST_TRIAL = 128, 96  # Tokens of a text that are read.
INFLUENCE_TOKENS, TRIAL_TOKENS, FIT_TOKENS = 2048, 768, 16384
_BATCH_TOKENS = 1024
_NOT_FITTED = "the layers cannot be fitted to the teacher ({}): the student starts with them as they are"


@dataclass(frozen=True)
class CutTexts:
    """Training texts, each part of one length: to score by, and to fit to.

    Attributes:
        trial: [B, T], of which nothing is in the other parts where there are enough texts.
        influence, fit: [N, T].
    """

    trial: Tensor
    influence: Tensor
    fit: Tensor

    @classmethod
    def drawn(cls, texts: Sequence[Sequence[int]], seed: int) -> CutTexts:
        """Draw them from the token ids of the training part; the same for the same texts and seed."""
        order = random.Random(f"{seed}/cut").sample(range(len(texts)), len(texts))
        apart = max(1, len(order) // 4) if len(order) > 1 else 0
        # As arrays, and no more than is looked at: of many long texts Python objects would take gigabytes.
        trial, others = (
            [np.asarray(texts[index][: max(_LONGEST_TRIAL, _LONGEST)], dtype=np.int32) for index in part]
            for part in (order[:apart] or order, order[apart:])
        )
        return cls(
            equal_texts(trial, TRIAL_TOKENS, _LONGEST_TRIAL),
            equal_texts(others, INFLUENCE_TOKENS, _LONGEST),
            equal_texts(others, FIT_TOKENS, _LONGEST),
        )


def equal_texts(texts: Sequence[Sequence[int] | np.ndarray], tokens: int, longest: int) -> Tensor:
    """The beginnings of the first texts that are long enough: of `longest` tokens, or of fewer if that gives more tokens.

    Args:
        texts: token ids, at least two in each.
        tokens: so many suffice.

    Returns:
        [N, T].
    """
    best: list[list[int]] = []
    for length in (longest, *(longest * part // 8 for part in (6, 4, 3, 2, 1)), 8, 4, 2):
        enough = (list(map(int, ids[:length])) for ids in texts if len(ids) >= length)
        found = list(islice(enough, max(1, tokens // length)))
        if len(found) * length > len(best) * (len(best[0]) if best else 0):
            best = found
        if len(best) * len(best[0] if best else ()) >= 0.9 * tokens:
            break
    return torch.tensor(best)


def _batches(texts_NT: Tensor) -> list[Tensor]:
    return list(texts_NT.split(max(1, _BATCH_TOKENS // texts_NT.shape[1])))


@dataclass(frozen=True)
class CutStudent:
    """How a student that is cut from the teacher begins.

    Attributes:
        layers: that it keeps.
        model: the student; None: it is the layers as they are in the teacher.
        record: for data/cut.json.
        seconds: that this took.
        remarks: lines for people.
    """

    layers: list[int]
    model: nn.Module | None
    record: dict[str, Any]
    seconds: float
    remarks: list[str]

    @property
    def weight_bytes(self) -> int:
        """Of the model, on the disk."""
        if self.model is None:
            return 0
        return sum(weights.numel() * weights.element_size() for weights in self.model.parameters())

    def figures(self) -> dict[str, Any]:
        """For the manifest and --json; what is not the same in every attempt, the seconds, only stands there."""
        record = self.record
        return {
            "layers": self.layers, "of": record["layers"], "way": record["way"], "start": record["start"],
            "bits_per_byte": record["bits_per_byte"], "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def summary(self, lang: str = "en") -> str:
        """`layers kept: 0, 1, 8 of 30: greedy, fitted, about 1.74 bits per byte before training (the teacher: 1.16)`."""
        found = self.record["bits_per_byte"]
        way = say(lang, f"cut.way.{self.record['way']}")
        layers = ", ".join(map(str, self.layers))
        words = say(lang, "cut.kept", layers=layers, whole=self.record["layers"], way=way)
        if (narrowed := self.record["width"]) is not None:
            sizes = (
                say(lang, "cut.size", name=name, after=after, before=before)
                for name, (before, after) in narrowed["sizes"].items()
                if after < before
            )
            words += f"; {', '.join(sizes)}"
        words += say(lang, "cut.fitted") if self.record["start"] == "fitted" else ""
        own = found["fitted"] if found["fitted"] is not None else found["cut"]
        if own is not None:
            words += say(lang, "cut.score", score=f"{own:.2f}")
            if found["teacher"] is not None:
                words += say(lang, "cut.teacher", score=f"{found['teacher']:.2f}")
        return words


def begin_cut_student(
    pair: ModelPair,
    config: Parameters,
    compute: Compute,
    texts: Sequence[Sequence[int]],
    tokens_per_byte: float | None,
    console: Console,
) -> CutStudent:
    """Choose the layers of the student, and fit them.

    Args:
        pair: its student is cut from its teacher, in a shape that is known (not `teacher:auto`).
        texts: the training part, as the teacher reads it.
        tokens_per_byte: of them, by which losses are told in bits per byte; None: they are not told.

    Raises:
        UsageError: layers that cannot be left out of this architecture.
        Interrupted: a signal arrived.
    """
    began = time.monotonic()
    reference = pair.student.reference
    drawn = CutTexts.drawn(texts, config.seed)
    fitting = config.student_start == "fitted"
    losses: dict[str, float | None] = {"teacher": None, "cut": None, "fitted": None}
    streams = choose_streaming(on_one_device(config), teacher_memory(pair, compute))
    if streams.on:
        console.info(f"the teacher is measured block by block: {streams.why}")
    opened = _block_by_block(pair, compute, console) if streams.on else _whole(pair, compute, console)
    with opened as teacher:
        choice = _choice(reference.layers, config.layer_choice, teacher, drawn, console)
        remarks, kept = choice.remarks, choice.kept
        fitting = fitting and (len(kept) < choice.total or reference.width is not None)
        problem = _problem(teacher, drawn)
        if fitting and problem is not None:
            fitting, remarks = False, [*remarks, _NOT_FITTED.format(problem)]
        if teacher.chain is not None and problem is None:
            losses |= _losses_of_layers(teacher.chain, kept, drawn.trial)
        targets = teacher.states(_batches(drawn.fit), target_places(kept, choice.total)) if fitting else []
    del teacher, opened
    trim_heap()  # The teacher and the student are never in memory together.
    student, fits, narrowed = None, [], None
    if fitting or reference.width is not None:
        student, narrowed = _made(pair, kept, streams.on, drawn, compute, console)
        if losses["cut"] is None or narrowed is not None:
            losses["cut"] = _loss(student, compute, drawn.trial)
    fitted = False
    if student is not None and fitting:
        columns = None if narrowed is None else narrowed.hidden_columns
        fits, said = _fitted(student, kept, targets, drawn, compute, console, whole=narrowed is None, columns=columns)
        remarks = [*remarks, *said]
        fitted = any(fit.after is not None for fit in fits)
        if fitted:
            losses["fitted"] = _loss(student, compute, drawn.trial)
        elif narrowed is None:
            student = None  # The layers as they are in the teacher need no folder of their own.
    if student is not None:
        student.to("cpu")
    record = {
        "format": 1,
        **choice.record(),
        "asked": config.layer_choice if isinstance(reference.layers, int) else "named",
        "start": "fitted" if fitted else "cut",
        "width": None if narrowed is None else narrowed.record,
        "fit": {"tokens": drawn.fit.numel() if fits else 0, "layers": [fit.record() for fit in fits]},
        "bits_per_byte": {
            **{name: _bits(loss, tokens_per_byte) for name, loss in losses.items()},
            "tokens": drawn.trial.numel(),
        },
        "computed_in": str(compute.teacher).removeprefix("torch."),
        "remarks": remarks,
    }
    return CutStudent(kept, student, record, time.monotonic() - began, remarks)


def _bits(loss: float | None, tokens_per_byte: float | None) -> float | None:
    if loss is None or tokens_per_byte is None or not math.isfinite(loss):
        return None
    return round(loss / math.log(2) * tokens_per_byte, 4)


# --- the teacher ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OpenTeacher:
    """The teacher for as long as it is measured.

    Attributes:
        model: as a whole, or without weights.
        states: its hidden states.
        chain: None where it runs block by block.
    """

    model: nn.Module
    states: TeacherStates
    chain: BlockChain | None


@contextlib.contextmanager
def _whole(pair: ModelPair, compute: Compute, console: Console) -> Iterator[_OpenTeacher]:
    model = pair.load_teacher(compute.teacher, console).to(compute.device).eval().requires_grad_(False)
    with BlockChain(model) as chain:
        yield _OpenTeacher(model, lambda batches, places: boundary_states(chain, batches, places), chain)


@contextlib.contextmanager
def _block_by_block(pair: ModelPair, compute: Compute, console: Console) -> Iterator[_OpenTeacher]:
    teacher = BlockwiseTeacher(pair.teacher, compute.teacher, compute.device)
    yield _OpenTeacher(teacher.model, lambda batches, places: blockwise_states(teacher, batches, places, console), None)


def blockwise_states(
    teacher: BlockwiseTeacher, batches: Sequence[Tensor], places: Sequence[int], console: Console
) -> list[Tensor]:
    """As `block_chain.boundary_states`, of a teacher of which one block at a time is in memory.

    Raises:
        Interrupted: a signal arrived.
    """
    parts: dict[int, list[Tensor]] = {place: [] for place in places}
    states: list[Tensor | None] = [None] * len(batches)
    teacher.load_frame(embedding=True)
    with console.progress("measuring layers", len(teacher.blocks), unit="layers") as progress:
        for index in range(len(teacher.blocks)):
            check_interrupted()
            teacher.load_block(index)
            for number, ids in enumerate(batches):
                given = states[number]
                before, after = teacher.around(
                    index, ids.to(teacher.device), None if given is None else given.to(teacher.device)
                )
                for place, hidden in ((index, before), (len(teacher.blocks), after)):
                    if place in parts and (place == index or index + 1 == place):
                        parts[place].append(hidden.flatten(0, 1).cpu())
                states[number] = after.cpu()
            teacher.forget_block(index)
            progress.advance()
    return [torch.cat(parts[place]) for place in places]


def _choice(
    layers: int | tuple[int, ...] | None, way: str, teacher: _OpenTeacher, drawn: CutTexts, console: Console
) -> LayerChoice:
    """The layers that are kept: those that are named, or those that are chosen, or near these if they cannot be saved."""
    total = len(decoder_blocks(teacher.model)[2])
    if not isinstance(layers, int):
        return LayerChoice("named", list(layers or range(total)), total)
    if layers >= total:
        return LayerChoice("all", list(range(total)), total)
    batches = _batches(drawn.influence)
    choice = choose_layers(way, layers, total, teacher.states, teacher.chain, batches, drawn.trial, console)
    kept = nearest_savable(teacher.model, choice.kept)
    if kept == choice.kept:
        return choice
    said = (
        f"the layers {', '.join(map(str, choice.kept))} were chosen; this architecture cannot be saved with them alone"
    )
    return choice.but(kept, f"{said}: the nearest that can are kept")


def _problem(teacher: _OpenTeacher, drawn: CutTexts) -> str | None:
    """Why the teacher's layers cannot run one by one; None if they can."""
    try:
        if teacher.chain is not None:
            teacher.chain.check(drawn.trial)
    except NotAChainError as error:
        return str(error)
    return None


def _losses_of_layers(chain: BlockChain, kept: Sequence[int], trial: Tensor) -> dict[str, float]:
    """Of the teacher, and of the teacher with the layers that are kept alone."""
    found: dict[str, float] = {}
    for name, layers in (("teacher", range(len(chain))), ("cut", kept)):
        _, logits = chain.run(trial, kept=layers, head=True)
        if logits is not None:
            found[name] = mean_loss(logits, trial)
    return found


# --- the student ------------------------------------------------------------------------------------------------------


def _made(
    pair: ModelPair, kept: Sequence[int], streams: bool, drawn: CutTexts, compute: Compute, console: Console
) -> tuple[nn.Module, Narrowed | None]:
    """The student with the teacher's weights, in fp32; narrowed where that is asked for."""
    width, trust = pair.student.reference.width, pair.config.trust_remote_code
    texts = [ids.to(compute.device) for ids in _batches(drawn.influence)]
    if streams:
        student = BlockwiseTeacher(pair.teacher, torch.float32, torch.device("cpu")).cut(kept).to(compute.device)
        if width is None:
            return student, None
        narrowed = narrow(student, width, texts)
        return narrowed.model, narrowed
    if width is None:
        student = load_student(pair.student, trust_remote_code=trust, console=console, layers=kept)
        return student.to(compute.device), None
    # First narrower: what a neuron is worth shows in the whole teacher, less in layers that are out of place.
    whole = load_model(pair.teacher, dtype=torch.float32, trust_remote_code=trust, console=console)
    narrowed = narrow(whole.to(compute.device), width, texts)
    return keep_layers(narrowed.model, kept, console.info).to(compute.device), narrowed


def _fitted(
    student: nn.Module,
    kept: Sequence[int],
    targets: Sequence[Tensor],
    drawn: CutTexts,
    compute: Compute,
    console: Console,
    *,
    whole: bool,
    columns: Tensor | None,
) -> tuple[list[LayerFit], list[str]]:
    """Fit the student in place; returns what became of its layers, and what is to be said."""
    try:
        with console.progress("fitting layers", len(kept), unit="layers") as progress:
            fits = fit_to_teacher(
                student, kept, targets, _batches(drawn.fit), whole=whole, columns=columns, autocast=compute.autocast,
                advance=progress.advance,
            )  # fmt: skip
    except NotAChainError as error:
        return [], [_NOT_FITTED.format(error)]
    if not any(fit.after is not None for fit in fits):
        reasons = dict.fromkeys(fit.why for fit in fits if fit.why)
        return fits, [f"no layer could be fitted to the teacher ({'; '.join(map(str, reasons))})"]
    return fits, []


def _loss(model: nn.Module, compute: Compute, trial: Tensor) -> float:
    """Nats per token of a model as it is."""
    ids = trial.to(compute.device)
    with torch.no_grad(), autocasting(compute.device, compute.autocast):
        return mean_loss(model(input_ids=ids, use_cache=False).logits, ids)
