"""Runs are removed whole, never a link's target, never one in use; what a kill leaves is no run and is finished later."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import filelock
import pytest

from distillkit.errors import PreconditionError, UsageError
from distillkit.run import removal
from distillkit.run.directory import RunDirectory, find_run, list_runs
from distillkit.run.removal import finish_removals, held, remove_run, run_folder, unfinished_removals
from distillkit.settings.resolve import resolve
from distillkit.storage import remove_tree


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        run = RunDirectory.create(tmp_path / "out" / name, resolve({}))
        (run.path / "student" / "best").mkdir(parents=True)
        (run.path / "student" / "best" / "model.safetensors").write_bytes(bytes(100))
    return tmp_path / "out"


def names(output: Path) -> list[str]:
    return [path.name for path in list_runs(output)]


def remove(output: Path, name: str) -> None:
    folder = run_folder(name, output)
    with held([folder]):
        remove_run(folder)


def test_a_run_goes_and_latest_names_the_one_that_is_left(output: Path) -> None:
    assert find_run(None, output).path.name == "two"
    remove(output, "two")
    assert names(output) == ["one"]
    assert find_run(None, output).path.name == "one"
    assert sorted(path.name for path in output.iterdir()) == ["latest", "one"]
    remove(output, str(output / "one"))
    assert list(output.iterdir()) == []


def test_latest_stays_where_another_run_goes(output: Path) -> None:
    remove(output, "one/")
    assert find_run(None, output).path.name == "two"


def test_links_are_never_followed(output: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    shutil.copytree(output / "one", precious)
    (output / "linked").symlink_to(precious)
    (output / "one" / "inside").symlink_to(precious)
    (output / "one" / "student" / "file").symlink_to(precious / "manifest.json")
    with pytest.raises(UsageError, match="a link that leads elsewhere"):
        run_folder("linked", output)
    remove(output, "one")
    assert (precious / "student" / "best" / "model.safetensors").stat().st_size == 100
    assert (precious / "manifest.json").is_file()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "none", "latest", "notes", "../out", "../elsewhere", "/", ".tmp-removed-one"]
)
def test_what_is_no_run_of_the_folder_is_refused(output: Path, name: str) -> None:
    (output / "notes").mkdir()
    (output.parent / "elsewhere").mkdir()
    shutil.copy(output / "one" / "manifest.json", output.parent / "elsewhere")
    shutil.copy(output / "one" / "manifest.json", output)  # The folder of the runs is none.
    with pytest.raises(UsageError):
        run_folder(name, output)
    assert names(output) == ["one", "two"]


def test_none_goes_where_one_is_in_use(output: Path) -> None:
    lock = filelock.FileLock(output / "two" / ".lock")
    refused = pytest.raises(PreconditionError, match=r"two is in use by .*, so nothing was removed")
    with lock, refused, held([output / "one", output / "two"]):
        pytest.fail("both were held")
    with held([output / "one", output / "two"]):
        pass  # Neither is held any more.


@pytest.mark.parametrize("done", range(5))
def test_a_kill_half_way_leaves_no_run_and_the_next_removal_finishes(
    output: Path, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    steps = iter(range(100))

    def killed(real: Any) -> Any:
        def step(*given: Any, **options: Any) -> Any:
            if next(steps) == done:
                raise KilledError
            return real(*given, **options)

        return step

    folder = run_folder("one", output)
    with monkeypatch.context() as patch, held([folder]):
        # What deletes after the rename: three files, a folder, and the emptied one itself.
        patch.setattr(Path, "unlink", killed(Path.unlink))
        patch.setattr(Path, "rmdir", killed(Path.rmdir))
        patch.setattr(removal, "remove_tree", lambda path: killed(remove_tree)(path) if path.exists() else None)
        with pytest.raises(KilledError):
            remove_run(folder)
    assert names(output) == ["two"]
    assert find_run(None, output).path.name == "two"
    assert len(unfinished_removals(output)) == 1
    # A run of the same name may be there again.
    RunDirectory.create(output / "one", resolve({}))
    assert len(finish_removals(output)) == 1
    assert sorted(path.name for path in output.iterdir()) == ["latest", "one", "two"]


def test_what_another_process_is_removing_is_left_to_it(output: Path) -> None:
    leaving = (output / "one").rename(output / ".tmp-removed-one")
    with filelock.FileLock(leaving / ".lock"):
        assert finish_removals(output) == []
        assert (leaving / "manifest.json").is_file()
    assert finish_removals(output) == [leaving]


def test_where_nothing_can_be_renamed_the_manifest_goes_last(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    real_unlink, real_tree = Path.unlink, removal.remove_tree

    def rename(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(
        Path, "unlink", lambda self, **options: (gone.append(self.name), real_unlink(self, **options))[1]
    )
    monkeypatch.setattr(removal, "remove_tree", lambda path: (gone.append(path.name), real_tree(path))[1])
    remove(output, "one")
    assert {"config.yaml", "student"} <= set(gone[: gone.index("manifest.json")])
    assert not (output / "one").exists()
