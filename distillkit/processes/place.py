"""Which of several processes this one is, as a launcher says it: torchrun, accelerate launch, distillkit launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What every launcher of torch's kind sets, and all of which is needed to find the others.
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """One of several processes.

    Attributes:
        rank: its number among all of them; process 0 leads.
        size: how many there are, 2 or more.
        local_rank, local_size: the same among those of this machine.
        address, port: where they find one another.
        hosted: whether the launcher keeps the store at that address; otherwise process 0 does.
        attempt: how often the launcher has started them all anew.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    hosted: bool = False
    attempt: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Place | None:
        """What the variables of a launcher say; None where they speak of one process, or not of all that is needed.

        Args:
            variables: `process_environment.SetAside.launching`.
        """
        numbers = {name: _number(variables.get(name)) for name in NEEDED if name != "MASTER_ADDR"}
        rank, size, local, port = (numbers[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"))
        address = variables.get("MASTER_ADDR")
        if rank is None or size is None or local is None or port is None or not address or size < 2 or rank >= size:
            return None
        return cls(
            rank, size, local, _number(variables.get("LOCAL_WORLD_SIZE")) or size, address, port,
            hosted=variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=_number(variables.get("TORCHELASTIC_RESTART_COUNT")) or 0,
        )  # fmt: skip

    def variables(self) -> dict[str, str]:
        """What accelerate has to find in the environment to take part."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.strip().isdecimal() else None
