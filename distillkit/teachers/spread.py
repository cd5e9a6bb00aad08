"""A teacher where it computes: on one device, or its blocks over several GPUs of this machine.

The engine for several is accelerate's, through the `device_map` of `from_pretrained`: weights go from the disk to their device.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from distillkit.console import Console
from distillkit.device.memory import free_memory_bytes
from distillkit.device.precision import Compute
from distillkit.models.empty_model import empty_model
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import read_config, weight_files
from distillkit.models.placement import device_map
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.shape import ModelShape, model_shape
from distillkit.processes.taking_part import leads
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.teachers.blocks import streaming_problem, transformers_config
from distillkit.teachers.choices import Room, TeacherMemory, choose_placement


def teacher_memory(pair: ModelPair, compute: Compute) -> TeacherMemory:
    """What decides whether the teacher of a run fits into memory, as it is now."""
    config = read_config(pair.teacher.folder)
    shape = model_shape(config)
    numbers = shape.parameters if shape else StoredWeights(list(weight_files(pair.teacher.folder))).numbers
    memory = TeacherMemory(
        name=pair.teacher.reference.text,
        weight_bytes=numbers * compute.teacher.itemsize,
        free_bytes=free_memory_bytes(compute.device),
        streaming_problem=streaming_problem(config),
    )
    return with_room(memory, pair.config, shape, compute)


def with_room(memory: TeacherMemory, config: Parameters, shape: ModelShape | None, compute: Compute) -> TeacherMemory:
    """With the room on all GPUs, where the teacher may be spread over them. To ask a GPU for its free memory takes some of it,
    so this is not done where one is enough, nor by every process."""
    if config.teacher_devices == "one" or (config.teacher_devices == "auto" and memory.fits) or not leads():
        return memory
    return dataclasses.replace(memory, room=room_for(shape, compute))


def room_for(shape: ModelShape | None, compute: Compute) -> Room | None:
    """The GPUs that a teacher may be spread over, the one that computes first; None where there is one device, or where the
    teacher's configuration does not tell its parts."""
    if shape is None or compute.device.type != "cuda" or torch.cuda.device_count() < 2:
        return None
    own = torch.cuda.current_device() if compute.device.index is None else compute.device.index
    numbers = [own, *(number for number in range(torch.cuda.device_count()) if number != own)]
    itemsize = compute.teacher.itemsize
    return Room(
        free={number: free_memory_bytes(torch.device("cuda", number)) for number in numbers},
        blocks=shape.layers,
        block_bytes=itemsize * -(-(shape.parameters - shape.outside) // max(1, shape.layers)),
        other_bytes=itemsize * shape.outside,
    )


def place_teacher(
    pair: ModelPair,
    dtype: torch.dtype,
    compute: Compute,
    console: Console,
    instead: LocatedModel | None = None,
) -> nn.Module:
    """The teacher with its weights, in evaluation mode, where it computes.

    Args:
        dtype: of the weights.
        instead: what the teacher has become; default: the teacher as it came.

    Raises:
        PreconditionError, UsageError: as `ModelPair.load_teacher` and `choose_placement`.
    """
    # Another process than the first only ever has a teacher of its own.
    config = pair.config if leads() else on_one_device(pair.config)
    choice = choose_placement(config, teacher_memory(pair, compute))
    if choice.placement is None:
        return pair.load_teacher(dtype, console, instead=instead).to(compute.device).eval()
    console.info(f"the teacher is spread over {len(choice.placement.blocks)} GPUs: {choice.why}")
    empty = empty_model(transformers_config(instead or pair.teacher), dtype)
    places = device_map(empty, choice.placement)
    return pair.load_teacher(dtype, console, instead=instead, places=places).eval()


def on_one_device(config: Parameters) -> Parameters:
    """For work that takes the teacher apart itself."""
    return dataclasses.replace(config, teacher_devices="one")
