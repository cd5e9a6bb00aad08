"""What the variables of a launcher say of a process."""

from __future__ import annotations

import pytest

from distillkit.processes.group import ALONE
from distillkit.processes.place import Place

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node", "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1",
}  # fmt: skip


def test_the_variables_of_torchrun() -> None:
    place = Place.of(TORCHRUN)
    assert place == Place(3, 4, 1, 2, "node", 29500, hosted=True, attempt=1)
    assert not place.leads
    assert place.variables().items() <= TORCHRUN.items()


@pytest.mark.parametrize(
    "change", [{"WORLD_SIZE": "1"}, {"MASTER_ADDR": ""}, {"RANK": "4"}, {"MASTER_PORT": "x"}, {"LOCAL_RANK": "-1"}]
)
def test_one_process_and_what_is_not_whole(change: dict[str, str]) -> None:
    assert Place.of(TORCHRUN | change) is None
    assert Place.of({}) is None


def test_the_group_of_one_process() -> None:
    assert ALONE.by_leader(lambda: 3) == 3
    assert ALONE.part([1, 2, 3]) == [1, 2, 3]
    assert ALONE.sums([1.5, 2.0]) == [1.5, 2.0]
    assert ALONE.gather(b"x") == [b"x"]
