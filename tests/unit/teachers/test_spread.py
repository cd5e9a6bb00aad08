"""Whether a teacher is spread over GPUs, from numbers alone: this machine has none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.settings.parameters import Parameters
from distillkit.teachers import choices
from distillkit.teachers.choices import Room, TeacherMemory, choose_placement, choose_streaming

GB = 10**9
# 70 B in bf16: 80 blocks, and 4 GB that are none.
MEMORY = TeacherMemory(
    "big", 140 * GB, 79 * GB, None, Room(dict.fromkeys(range(4), 79 * GB), 80, 17 * GB // 10, 4 * GB)
)


def chosen(memory: TeacherMemory = MEMORY, **settings: Any) -> tuple[list[int] | None, bool]:
    """(GPUs, whether it runs block by block)."""
    config = Parameters(**settings)
    placement = choose_placement(config, memory).placement
    return None if placement is None else list(placement.blocks), choose_streaming(config, memory).on


def test_a_teacher_too_large_for_one_gpu_is_spread_over_those_there_are() -> None:
    assert chosen() == ([0, 1, 2, 3], False)
    why = choose_placement(Parameters(), MEMORY).why
    assert why.startswith("34.6 GB of 79.0 GB free on GPU 0, 35.7 GB of 79.0 GB free on GPU 1, ")
    assert chosen(teacher_devices="2,0") == ([0, 2], False)
    assert chosen(teacher_devices="one") == (None, True)
    assert chosen(teacher_streaming="on") == (None, True)
    small = dataclasses.replace(MEMORY, weight_bytes=7 * GB)
    assert chosen(small) == (None, False)
    assert chosen(small, teacher_devices="all") == ([0, 1, 2, 3], False)
    crowded = dataclasses.replace(MEMORY, room=dataclasses.replace(MEMORY.room, free=dict.fromkeys(range(4), 30 * GB)))  # type: ignore[arg-type, type-var]
    assert chosen(crowded) == (None, True)
    assert chosen(dataclasses.replace(MEMORY, room=None)) == (None, True)


def test_several_processes_have_a_teacher_each_only_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "process_count", lambda: 4)
    assert chosen(teacher_cache="exact")[0] == [0, 1, 2, 3]
    assert chosen(teacher_cache="off") == (None, False)


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"teacher_devices": "0,7"}, UsageError, "there is no GPU 7"),
        ({"teacher_devices": "1,2"}, UsageError, "GPU 0, which computes, is not among them"),
        ({"teacher_devices": "0,1"}, PreconditionError, "200 GB, 158 GB are free on 2 GPUs"),
        ({"teacher_devices": "all", "teacher_cache": "off"}, UsageError, "4 processes have a teacher each"),
    ],
)
def test_what_is_refused(
    settings: dict[str, Any], kind: type[DistillkitError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "process_count", lambda: 4)
    memory = dataclasses.replace(
        MEMORY, weight_bytes=200 * GB, room=dataclasses.replace(MEMORY.room, block_bytes=24 * GB // 10)
    )  # type: ignore[arg-type, type-var]
    with pytest.raises(kind, match=words):
        choose_placement(Parameters(**settings), memory)
    with pytest.raises(UsageError, match="there is one device"):
        choose_placement(Parameters(teacher_devices="0,1"), dataclasses.replace(MEMORY, room=None))
