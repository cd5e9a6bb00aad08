"""How a run comes by its teacher: which cache, and whole or block by block. Pure functions, used by the run and by the plan.

A choice depends on the configuration and on `TeacherFacts`, which whoever asks has gathered; nothing is read or loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distillkit.console import format_bytes
from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.models.placement import Placement, spread_blocks
from distillkit.processes.taking_part import process_count
from distillkit.settings.conditions import sparse_problem
from distillkit.settings.device_values import device_numbers
from distillkit.settings.parameters import Parameters

# What else the run writes besides the cache, at least.
RESERVE_BYTES = 1 << 30
# Of the free memory; the rest is for what is not weights.
USABLE_MEMORY = 0.9
_NOT_PLAIN = "its head is more than a linear layer on its last hidden states"


@dataclass(frozen=True)
class Room:
    """The GPUs that a teacher may be spread over, and its parts.

    Attributes:
        free: number of a GPU to its free bytes, the one that computes first.
        blocks: how many it has.
        block_bytes, other_bytes: of the weights of a block, and of all that is no block.
    """

    free: Mapping[int, int]
    blocks: int
    block_bytes: int
    other_bytes: int


@dataclass(frozen=True)
class TeacherMemory:
    """What decides whether a teacher fits into memory.

    Attributes:
        name: the teacher as the user named it.
        weight_bytes: in the format in which it computes.
        free_bytes: of memory.
        streaming_problem: why it cannot run block by block; None: it can.
        room: of all GPUs; None where there is one device, or the parts of the teacher are not known.
    """

    name: str
    weight_bytes: int
    free_bytes: int
    streaming_problem: str | None
    room: Room | None = None

    @property
    def fits(self) -> bool:
        """Whether the device that computes has room for it all."""
        return self.weight_bytes <= USABLE_MEMORY * self.free_bytes


@dataclass(frozen=True)
class TeacherFacts:
    """What the choices depend on besides the configuration.

    Attributes:
        memory: of the teacher.
        place: the output directory, where the caches lie.
        tokens: that the teacher reads in an epoch.
        free_disk: bytes.
        head_is_plain: whether the hidden states are all that has to be kept.
        begun: whether an exact cache of these very texts has been begun.
        exact_bytes: the whole exact cache.
        exact_missing_bytes: what is still to be written of it.
        streaming_bytes: what a pass block by block still has to write, activations included.
        sparse_missing_bytes: what is still to be written of the sparse targets.
        beside_bytes: of several teachers the weights of all others, which are in memory too where none is cached.
    """

    memory: TeacherMemory
    place: str
    tokens: int
    free_disk: int
    head_is_plain: bool
    begun: bool
    exact_bytes: int
    exact_missing_bytes: int
    streaming_bytes: int
    sparse_missing_bytes: int
    beside_bytes: int = 0


@dataclass(frozen=True)
class StreamingChoice:
    """Whether a teacher runs block by block, and why."""

    on: bool
    why: str


@dataclass(frozen=True)
class CacheChoice:
    """`exact`, `sparse`, `off` or another name in `registry.TEACHER_SOURCES`, and why."""

    mode: str
    why: str


@dataclass(frozen=True)
class PlacementChoice:
    """Over which GPUs a teacher is spread, and why; `placement` None: it lies on one device."""

    placement: Placement | None
    why: str


def choose_placement(config: Parameters, memory: TeacherMemory) -> PlacementChoice:
    """What `config.teacher_devices` comes to.

    Raises:
        UsageError: it names GPUs that are not there, or several where each process has a teacher of its own.
        PreconditionError: the teacher does not fit on those that it names.
    """
    asked, room = config.teacher_devices, memory.room
    numbers = device_numbers(asked)
    if room is None:
        if numbers is not None and len(numbers) > 1:
            raise UsageError(
                f"--teacher-devices {asked}: there is one device, or the blocks of {memory.name} are not known",
                hint="use --teacher-devices auto",
            )
        return PlacementChoice(None, "there is one device for it")
    if asked == "one" or (numbers is not None and len(numbers) == 1) or config.teacher_streaming == "on":
        return PlacementChoice(None, "one device, as the settings say")
    missing = [number for number in numbers or () if number not in room.free]
    if missing:
        there = ", ".join(map(str, sorted(room.free)))
        raise UsageError(f"--teacher-devices {asked}: there is no GPU {missing[0]}", hint=f"there are: {there}")
    own = next(iter(room.free))
    if numbers is not None and own not in numbers:
        raise UsageError(
            f"--teacher-devices {asked}: GPU {own}, which computes, is not among them",
            hint=f"add {own}, or choose the one that computes by CUDA_VISIBLE_DEVICES",
        )
    if asked == "auto" and memory.fits:
        return PlacementChoice(None, "it fits on one GPU")
    if (processes := process_count()) > 1 and config.teacher_cache == "off" and config.box_type == "white":
        if asked == "auto":
            return PlacementChoice(None, "each process has a teacher of its own")
        raise UsageError(
            f"--teacher-devices {asked}: {processes} processes have a teacher each with --teacher-cache off",
            hint="use --teacher-cache exact or sparse: then process 0 reads the texts with all GPUs",
        )
    chosen = {number: free for number, free in room.free.items() if numbers is None or number in numbers}
    usable = {number: int(USABLE_MEMORY * free) for number, free in chosen.items()}
    placement = spread_blocks(room.blocks, room.block_bytes, room.other_bytes, usable)
    if placement is not None:
        shares = ", ".join(
            f"{format_bytes(held)} of {format_bytes(chosen[number])} free on GPU {number}"
            for number, held in placement.bytes.items()
        )
        return PlacementChoice(placement, shares)
    there = f"{format_bytes(sum(chosen.values()))} are free on {len(chosen)} GPUs"
    needed = f"its weights take {format_bytes(memory.weight_bytes)}, {there}"
    if asked == "auto":
        return PlacementChoice(None, needed)
    raise PreconditionError(
        f"--teacher-devices {asked}: {memory.name} does not fit: {needed}", hint="use --teacher-streaming on"
    )


def choose_streaming(config: Parameters, memory: TeacherMemory) -> StreamingChoice:
    """What `config.teacher_streaming` comes to.

    Raises:
        UsageError: it was asked for and is not possible with this architecture.
    """
    if config.box_type == "black":
        return StreamingChoice(False, "a teacher that writes is in memory as a whole")
    if config.teacher_streaming == "off":
        return StreamingChoice(False, "as --teacher-streaming says")
    if config.teacher_streaming == "on":
        if memory.streaming_problem is not None:
            raise UsageError(
                f"{memory.name} cannot run block by block: {memory.streaming_problem}",
                hint="use --teacher-streaming off",
            )
        return StreamingChoice(True, "as --teacher-streaming says")
    if choose_placement(config, memory).placement is not None:
        return StreamingChoice(False, "it is spread over several GPUs")
    why = f"its weights take {format_bytes(memory.weight_bytes)}, {format_bytes(memory.free_bytes)} of memory are free"
    possible = memory.streaming_problem is None and config.teacher_cache != "off"
    return StreamingChoice(not memory.fits and possible, why)


def disk_problem(facts: TeacherFacts, streaming: StreamingChoice) -> str | None:
    """Why the exact cache cannot be completed on this disk; None if it can."""
    needed = facts.streaming_bytes if streaming.on else facts.exact_missing_bytes
    if needed <= 0 or needed + RESERVE_BYTES <= facts.free_disk:
        return None
    return f"its cache takes {format_bytes(needed)}, {format_bytes(facts.free_disk)} are free in {facts.place}"


def choose_cache(
    config: Parameters, facts: TeacherFacts, streaming: StreamingChoice, remembered: CacheChoice | None = None
) -> CacheChoice:
    """What `config.teacher_cache` comes to.

    Args:
        remembered: what `auto` came to when this run began: another choice would make another student.

    Raises:
        DistillkitError: the exact cache was asked for, or is needed, and does not fit on the disk.
        PreconditionError: it was asked for and the teacher's head is not a plain linear layer.
    """
    if config.teacher_cache != "auto":
        choice = CacheChoice(config.teacher_cache, "as --teacher-cache says")
    else:
        choice = remembered or _automatic(config, facts, streaming)
    if choice.mode == "exact":
        if not facts.head_is_plain:
            raise PreconditionError(f"the teacher cannot be cached: {_NOT_PLAIN}", hint="use --teacher-cache off")
        problem = disk_problem(facts, streaming)
        if problem is not None:
            raise DistillkitError(
                f"the teacher cannot be cached: {problem}",
                hint="free some space, or use --teacher-cache sparse or off",
            )
    if choice.mode == "sparse" and streaming.on and facts.sparse_missing_bytes:
        problem = disk_problem(facts, streaming)
        if problem is not None:
            raise DistillkitError(f"the teacher cannot run block by block: {problem}", hint="free some space")
    if choice.mode == "sparse" and facts.sparse_missing_bytes > facts.free_disk:
        raise DistillkitError(
            f"the sparse teacher cache takes about {format_bytes(facts.sparse_missing_bytes)}, "
            f"{format_bytes(facts.free_disk)} are free in {facts.place}",
            hint="free some space, or use --teacher-cache off",
        )
    return choice


def _automatic(config: Parameters, facts: TeacherFacts, streaming: StreamingChoice) -> CacheChoice:
    if config.on_policy_fraction == 1:
        return CacheChoice("off", "every batch is on-policy")
    spread = choose_placement(config, facts.memory).placement is not None
    once = config.epochs == 1 and config.max_steps is None and not facts.begun
    together = facts.memory.weight_bytes + facts.beside_bytes <= USABLE_MEMORY * facts.memory.free_bytes
    if once and not streaming.on and not spread and (together or not facts.beside_bytes):
        return CacheChoice("off", "with one epoch every text is read once")
    if not facts.head_is_plain:
        return CacheChoice("off", _NOT_PLAIN)
    problem = disk_problem(facts, streaming)
    if problem is None:
        size = f"{format_bytes(facts.exact_bytes)} for {facts.tokens:,} tokens"
        why = "begun by an earlier run" if facts.begun else "read in every epoch"
        if once and facts.beside_bytes and not streaming.on:
            why = "the teachers do not fit into memory together"
        return CacheChoice("exact", f"{size}, {why}")
    if streaming.on:
        raise DistillkitError(
            f"the teacher cannot run block by block: {problem}", hint="free some space, or choose another --output-dir"
        )
    needed = facts.sparse_missing_bytes
    if sparse_problem(vars(config)) is None and needed + RESERVE_BYTES <= facts.free_disk:
        return CacheChoice("sparse", f"about {format_bytes(needed)}; of an exact one, {problem}")
    return CacheChoice("off", problem)


def cache_bytes(choice: CacheChoice, facts: TeacherFacts, streaming: StreamingChoice) -> int:
    """What is still to be written for the teacher of this choice, at most and at one time."""
    needed: Mapping[str, int] = {"exact": facts.exact_missing_bytes, "sparse": facts.sparse_missing_bytes}
    missing = needed.get(choice.mode, 0)
    if streaming.on and missing:
        return max(0, facts.streaming_bytes) + (missing if choice.mode == "sparse" else 0)
    return missing
