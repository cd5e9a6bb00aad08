"""A student made of some of the teacher's layers (as DistilGPT-2 was: Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from distillkit.errors import UsageError
from distillkit.models.cut_config import LAYER_COUNT_NAMES, UnsavableLayersError, cut_values
from distillkit.models.empty_model import empty_copy
from distillkit.models.same_structure import Place, difference, scalings
from distillkit.silence_libraries import silence_transformers

_MOST_TRIES = 60  # Of other choices of layers, each of which builds a model without weights.


def evenly_spaced(count: int, total: int) -> list[int]:
    """`count` of `total` layer numbers, the first and the last among them; the first alone where `count` is 1."""
    if count == 1:
        return [0]
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def decoder_blocks(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of decoder blocks of a causal language model: (its parent, its name there, the list).

    Raises:
        UsageError: the architecture has no such list, or several of equal length.
    """
    wanted = _layer_count(model.config)
    lists = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == wanted
    ]
    # The outermost counts where lists lie inside one another (the experts of a layer).
    inner = {module for _, _, blocks in lists for block in blocks for module in block.modules()}
    lists = [(parent, name, blocks) for parent, name, blocks in lists if blocks not in inner]
    if len(lists) != 1:
        raise UsageError(
            f"{type(model).__name__}: its layers cannot be told apart, so none can be left out",
            hint="name a student model instead of teacher:N",
        )
    return lists[0]


def _layer_count(config: Any) -> int:
    text_config = config.get_text_config(decoder=True)
    for name in LAYER_COUNT_NAMES:
        value = getattr(text_config, name, None)
        if isinstance(value, int):
            return value
    raise UsageError(
        f"{type(config).__name__} does not say how many layers it has", hint="name a student model instead of teacher:N"
    )


def keep_layers(
    model: nn.Module, layers: int | Sequence[int], report: Callable[[str], None] | None = None
) -> nn.Module:
    """A model with only some decoder blocks, independent of `model`, which stays as it is.

    It is built from the configuration that will be saved with it, and gets the weights of the layers that are kept: so
    what is trained is what is loaded later.

    Args:
        model: a causal language model; without weights (on the meta device) the student has none either.
        layers: how many to keep, evenly spaced and with the first and the last; or which.
        report: gets a line on what the layers that are kept compute otherwise than in `model`.

    Raises:
        UsageError: layers that are not there, not in ascending order, or that no configuration of this architecture can
            describe; or an unknown architecture.
    """
    _, _, blocks = decoder_blocks(model)
    total = len(blocks)
    kept = evenly_spaced(layers, total) if isinstance(layers, int) else list(layers)
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= total:
        highest = f"teacher:{total}" if isinstance(layers, int) else f"layers 0 to {total - 1} in ascending order"
        raise UsageError(f"the teacher has {total} layers, so {layers} cannot be kept", hint=f"use at most {highest}")
    path = _path_of(blocks, model)
    try:
        student = _student(model, blocks, path, kept)
    except UnsavableLayersError as error:
        other = _another_choice(model, blocks, path, kept)
        raise UsageError(
            f"{type(model).__name__} cannot be saved with its layers {_listed(kept)} alone: {error}",
            hint="name a student model instead" if other is None else f"teacher:{_listed(other)} can be saved",
        ) from error
    if report is not None:
        for line in scalings(blocks, _blocks_at(student, path), kept):
            report(line)
    _share_out(model, student, path, kept)
    return student


def _blocks_at(model: nn.Module, path: str) -> nn.ModuleList:
    blocks: Any = model.get_submodule(path)
    return blocks


def _student(model: Any, blocks: nn.ModuleList, path: str, kept: Sequence[int]) -> nn.Module:
    """The model of the cut configuration, without weights.

    Raises:
        UnsavableLayersError: its layers are others than those that are kept.
    """
    config = copy.deepcopy(model.config)
    text = config.get_text_config(decoder=True)
    changed = cut_values(vars(text), kept)
    try:
        for name, value in changed.items():
            setattr(text, name, value)
        read = read_again(config)
        student = empty_copy(model, read)
        found = _blocks_at(student, path)
    except Exception as error:
        # Configurations and constructors raise whatever their own checks find.
        if isinstance(error, MemoryError):
            raise
        said = " ".join(str(error).split())
        raise UnsavableLayersError(f"its configuration does not allow them ({said})") from error
    if len(found) != len(kept):
        raise UnsavableLayersError(f"{len(found)} layers would be loaded")
    for place, index in enumerate(kept):
        if other := difference(blocks[index], found[place], Place(index, len(blocks)), Place(place, len(kept))):
            raise UnsavableLayersError(f"layer {index} would be loaded as number {place}, where {other}")
    return student


def read_again(config: Any) -> Any:
    """A configuration as it will be loaded: what it derives when it is read counts, not what it was set to."""
    with tempfile.TemporaryDirectory(prefix="distillkit-") as folder, silence_transformers():
        config.save_pretrained(folder)
        read = type(config).from_pretrained(folder)
    read._attn_implementation = config._attn_implementation
    return read


def nearest_savable(model: nn.Module, kept: Sequence[int]) -> list[int]:
    """The layers `kept` where this architecture can be saved with them alone, else as many that are near them and can.

    Args:
        model: a causal language model, with or without weights.

    Raises:
        UsageError: none was found.
    """
    _, _, blocks = decoder_blocks(model)
    path = _path_of(blocks, model)
    try:
        _student(model, blocks, path, kept)
    except UnsavableLayersError as error:
        other = _another_choice(model, blocks, path, kept)
        if other is None:
            raise UsageError(
                f"{type(model).__name__} cannot be saved with {len(kept)} of its layers: {error}",
                hint="name a student model instead",
            ) from error
        return other
    return list(kept)


def _path_of(blocks: nn.ModuleList, model: nn.Module) -> str:
    return next(place for place, module in model.named_modules() if module is blocks)


def _listed(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers))


def _another_choice(model: nn.Module, blocks: nn.ModuleList, path: str, kept: Sequence[int]) -> list[int] | None:
    """A choice of as many layers that can be saved, as near as possible."""
    for choice in itertools.chain(
        itertools.islice(_neighbours(kept, len(blocks)), _MOST_TRIES), [list(range(len(kept)))]
    ):
        try:
            _student(model, blocks, path, choice)
        except UnsavableLayersError:
            continue
        return choice
    return None


def _neighbours(kept: Sequence[int], total: int) -> Iterator[list[int]]:
    """Choices of as many layers, those with the smallest shifts first."""
    seen = {tuple(kept)}
    ring = [tuple(kept)]
    while ring:
        following: list[tuple[int, ...]] = []
        for choice in ring:
            for place, step in itertools.product(reversed(range(len(choice))), (-1, 1)):
                shifted = (*choice[:place], choice[place] + step, *choice[place + 1 :])
                ordered = all(low < high for low, high in itertools.pairwise(shifted))
                if ordered and shifted[0] >= 0 and shifted[-1] < total and shifted not in seen:
                    seen.add(shifted)
                    following.append(shifted)
                    yield list(shifted)
        ring = following


def _share_out(model: Any, student: Any, path: str, kept: Sequence[int]) -> None:
    """Give the student copies of the weights of the layers that are kept, and of all that is no layer."""
    own = model.state_dict()
    copies: dict[tuple[Any, ...], Tensor] = {}

    def copied(name: str) -> Tensor:
        weights: Tensor = own[name]
        # What is tied is one tensor in the copy too.
        key = (weights.data_ptr() or id(weights), weights.shape, weights.stride())
        if key not in copies:
            copies[key] = weights.clone()
        return copies[key]

    prefix = f"{path}."
    state = {}
    for name in student.state_dict():
        source = name
        if name.startswith(prefix):
            place, rest = name.removeprefix(prefix).split(".", 1)
            source = f"{prefix}{kept[int(place)]}.{rest}"
        state[name] = copied(source)
    give_weights(student, state, model)


def give_weights(student: Any, state: dict[str, Tensor], model: Any) -> None:
    """Make `state` the weights of a model that has none; how it is trained and how it writes comes from `model`."""
    student.load_state_dict(state, assign=True)
    student.tie_weights()
    for weights in student.parameters():
        weights.requires_grad_(weights.dtype.is_floating_point)
    if getattr(model, "generation_config", None) is not None:
        student.generation_config = copy.deepcopy(model.generation_config)
    student.train(model.training)
