"""The limits of a container: memory and processors, as Linux's control groups of both versions say them.

A process stands in a tree of groups, and the tightest limit of its own group and of all above it holds. Which group it is
in, /proc/self/cgroup says; where the tree is to be seen, /proc/self/mountinfo. Within a container either may be seen from
outside: what does not exist here is passed over, and the top of what is mounted is the container's own group.
(https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Version 1 writes "no limit" as the largest number of pages that fits, which differs between systems.
_UNLIMITED = 1 << 60
_MACHINE = Path("/")


@dataclass(frozen=True)
class GroupLimits:
    """What the groups leave to this process; None where none of them says anything.

    Attributes:
        memory: bytes that may be used at all.
        memory_left: bytes that are still free, files that can be dropped counted as free.
        processors: their time, as a number of processors.
    """

    memory: int | None = None
    memory_left: int | None = None
    processors: float | None = None


def group_limits(root: Path = _MACHINE) -> GroupLimits:
    """The limits of this process.

    Args:
        root: the folder in which proc and sys lie.
    """
    memory = [*_memory_of_version_2(root), *_memory_of_version_1(root)]
    processors = [*_processors_of_version_2(root), *_processors_of_version_1(root)]
    return GroupLimits(
        min((limit for limit, _ in memory), default=None),
        min((max(0, limit - used) for limit, used in memory), default=None),
        min(processors, default=None),
    )


# --- what the files say ----------------------------------------------------------------------------------------------


def _memory_of_version_2(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of each group that has a limit."""
    for group in _groups(root, None):
        limits = [limit for name in ("memory.max", "memory.high") if (limit := _number(group / name)) is not None]
        used = _number(group / "memory.current")
        if limits and used is not None:
            yield min(limits), used - _droppable(group, "inactive_file")


def _memory_of_version_1(root: Path) -> Iterator[tuple[int, int]]:
    for group in _groups(root, "memory"):
        limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _UNLIMITED:
            yield limit, used - _droppable(group, "total_inactive_file", "inactive_file")


def _droppable(group: Path, *names: str) -> int:
    """Bytes of files that nobody has used lately."""
    try:
        figures = dict(
            line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines() if " " in line
        )
        return next((int(figures[name]) for name in names if name in figures), 0)
    except (OSError, ValueError):
        return 0


def _processors_of_version_2(root: Path) -> Iterator[float]:
    for group in _groups(root, None):
        words = _words(group / "cpu.max")
        # The period may be left out.
        quota, period = [*words, *("max", "100000")[len(words) :]][:2]
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)


def _processors_of_version_1(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota is not None and period and quota > 0:
            yield quota / period


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None for "max", -1 and where there is no such file."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


# --- where the groups are --------------------------------------------------------------------------------------------


def _groups(root: Path, controller: str | None) -> list[Path]:
    """The folders of this process's group and of those above it.

    Args:
        controller: of version 1; None for version 2, which has one tree for all.
    """
    places = _own_places(root, controller)
    found: dict[Path, None] = {}
    for mount, top in _mounts(root, controller):
        for place in places:
            inside = place.relative_to(top) if place.is_relative_to(top) else place.relative_to("/")
            names = [name for name in inside.parts if name != ".."]
            for count in range(len(names), -1, -1):
                folder = mount.joinpath(*names[:count])
                if folder.is_dir():
                    found[folder] = None
    return list(found)


def _own_places(root: Path, controller: str | None) -> list[PurePosixPath]:
    """Of the lines `number:controllers:path` those of a version; the top where there is none."""
    places: list[PurePosixPath] = []
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        wanted = number == "0" and not controllers if controller is None else controller in controllers.split(",")
        if wanted and path.startswith("/"):
            places.append(PurePosixPath(path))
    return places or [PurePosixPath("/")]


def _mounts(root: Path, controller: str | None) -> list[tuple[Path, PurePosixPath]]:
    """(where a tree is mounted, which group is at its top), and where trees usually are."""
    found: dict[Path, PurePosixPath] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        # 36 35 98:0 /top /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kinds) < 3:
            continue
        if controller is None:
            wanted = kinds[0] == "cgroup2"
        else:
            wanted = kinds[0] == "cgroup" and controller in kinds[2].split(",")
        if wanted:
            found[root / _plain(fields[4]).lstrip("/")] = PurePosixPath(_plain(fields[3]))
    usual = ("", "unified") if controller is None else (controller, f"{controller},cpuacct", f"cpuacct,{controller}")
    for name in usual:
        found.setdefault(root / "sys/fs/cgroup" / name, PurePosixPath("/"))
    return list(found.items())


def _plain(text: str) -> str:
    """A path of mountinfo, in which spaces are written as numbers."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
