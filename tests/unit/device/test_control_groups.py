"""Limits of containers, from trees of files as the systems write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.device.control_groups import GroupLimits, group_limits

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


def tree(root: Path, **files: str) -> Path:
    """Files by their paths, `__` for a slash."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def group(root: Path, place: str, **files: str) -> None:
    folder = root / "sys/fs/cgroup" / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content + "\n")


def test_a_container_of_version_2_sees_itself_at_the_top(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/\n", proc__self__mountinfo=V2_MOUNT)
    group(
        tmp_path,
        "",
        memory_max="1500",
        memory_current="900",
        memory_stat="anon 700\ninactive_file 100",
        cpu_max="150000 100000",
    )
    assert group_limits(tmp_path) == GroupLimits(1500, 700, 1.5)


def test_the_limits_of_parents_hold_too(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/user.slice/session.scope\n", proc__self__mountinfo=V2_MOUNT)
    group(tmp_path, "", cpu_max="max 100000")
    group(tmp_path, "user.slice", memory_max="2000", memory_current="1900", memory_stat="", cpu_max="200000 100000")
    group(
        tmp_path,
        "user.slice/session.scope",
        memory_max="1000",
        memory_current="300",
        memory_stat="inactive_file 50",
        cpu_max="max 100000",
    )
    # The least of all is left by the parent, which others use too.
    assert group_limits(tmp_path) == GroupLimits(1000, 100, 2.0)


def test_high_is_a_limit_and_max_is_none(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/job\n", proc__self__mountinfo=V2_MOUNT)
    group(tmp_path, "job", memory_max="max", memory_high="800", memory_current="500", cpu_max="max")
    assert group_limits(tmp_path) == GroupLimits(800, 300, None)
    group(tmp_path, "job", memory_high="max")
    assert group_limits(tmp_path) == GroupLimits()


def test_a_path_of_the_host_is_cut_to_what_is_mounted(tmp_path: Path) -> None:
    """Without a namespace of its own a container reads the host's path; only its own group is mounted."""
    for mountinfo in ("", V2_MOUNT, V2_MOUNT.replace(" / /sys", " /docker/abc /sys")):
        root = tmp_path / str(len(mountinfo))
        tree(root, proc__self__cgroup="0::/docker/abc\n", proc__self__mountinfo=mountinfo)
        group(root, "", memory_max="1000", memory_current="400")
        assert group_limits(root).memory_left == 600


def test_a_group_outside_the_namespace(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/../../other\n", proc__self__mountinfo=V2_MOUNT)
    group(tmp_path, "", memory_max="1000", memory_current="400")
    assert group_limits(tmp_path).memory == 1000


@pytest.mark.parametrize("controllers", ["cpu,cpuacct", "cpu", "cpuacct,cpu"])
def test_version_1(tmp_path: Path, controllers: str) -> None:
    tree(
        tmp_path,
        proc__self__cgroup=f"5:{controllers}:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        proc__self__mountinfo="31 23 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        f"32 23 0:28 / /sys/fs/cgroup/{controllers} ro - cgroup cgroup rw,{controllers}\n",
    )
    memory, processors = tmp_path / "sys/fs/cgroup/memory", tmp_path / "sys/fs/cgroup" / controllers / "docker/abc"
    memory.mkdir(parents=True)
    processors.mkdir(parents=True)
    (memory / "memory.limit_in_bytes").write_text("1500\n")
    (memory / "memory.usage_in_bytes").write_text("900\n")
    (memory / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 100\n")
    (processors / "cpu.cfs_quota_us").write_text("50000\n")
    (processors / "cpu.cfs_period_us").write_text("100000\n")
    assert group_limits(tmp_path) == GroupLimits(1500, 700, 0.5)
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (processors / "cpu.cfs_quota_us").write_text("-1\n")
    assert group_limits(tmp_path) == GroupLimits()


def test_version_1_without_proc(tmp_path: Path) -> None:
    tree(tmp_path, sys__fs__cgroup__memory__x="")
    group(
        tmp_path,
        "memory",
        memory_limit_in_bytes="1500",
        memory_usage_in_bytes="900",
        memory_stat="total_inactive_file 100",
    )
    assert group_limits(tmp_path) == GroupLimits(1500, 700, None)


def test_a_hybrid_system_has_both(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__self__cgroup="3:memory:/a\n0::/b\n",
        proc__self__mountinfo="31 23 0:27 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    group(tmp_path, "memory/a", memory_limit_in_bytes="1000", memory_usage_in_bytes="100")
    group(tmp_path, "unified/b", cpu_max="300000 100000")
    assert group_limits(tmp_path) == GroupLimits(1000, 900, 3.0)


def test_a_mount_with_spaces_elsewhere(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__self__cgroup="0::/a\n",
        proc__self__mountinfo="30 23 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\nnonsense\n\n1 - 2\n",
    )
    folder = tmp_path / "mnt/my groups/a"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text("1000\n")
    (folder / "memory.current").write_text("1500\n")
    assert group_limits(tmp_path).memory_left == 0


@pytest.mark.parametrize("content", ["", "many\n", "-1\n", "max\n", "\x00\xff"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, content: str) -> None:
    tree(tmp_path, proc__self__cgroup=content, proc__self__mountinfo=content)
    group(tmp_path, "", memory_max=content, memory_current=content, memory_stat=content, cpu_max=content)
    assert group_limits(tmp_path) == GroupLimits()
    assert group_limits(tmp_path / "absent") == GroupLimits()
