"""docs/extension-example, installed beside distillkit: its names are choices like others, and bad packages are said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import distillkit
from distillkit import PreconditionError, registry
from distillkit.cli import main
from distillkit.data.examples import load_examples
from distillkit.registry import DATA_FORMATS, AutoOr, Table, resolve
from distillkit.settings import extensions

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "extension-example"
OWN = {"forward-kl": "distillkit.losses.divergences:forward_kl"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    # Building writes beside the sources.
    source = shutil.copytree(EXAMPLE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "here", source]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / "here"


def test_a_run_uses_it_and_records_it(
    installed: Path, run_cli: Callable[..., Any], cli_env: Callable[..., dict[str, str]], cli_pair: list[str], tmp_path: Path
) -> None:  # fmt: skip
    package = str(Path(distillkit.__file__).resolve().parents[1])
    environment = cli_env(PYTHONPATH=f"{installed}{os.pathsep}{package}", HF_HUB_OFFLINE="1")
    stanzas = "\n\n".join(
        f"The lamp of house {number} is lit,\nand number {number} waits for it." for number in range(90)
    )
    (tmp_path / "poems.stanzas").write_text(stanzas.replace("\n\n", "\n* * *\n", 1), encoding="utf-8")
    given = [*cli_pair, "--dataset-path", tmp_path / "poems.stanzas", "--divergence", "hellinger", "--teacher-cache", "exact"]  # fmt: skip
    placed = ["--output-dir", tmp_path, "--folder-name", "run"]
    done = run_cli("distill", *given, *placed, "--json", env=environment, check=0)
    assert "extension" in done.stderr
    assert "divergence hellinger (distillkit-hellinger 1.0)" in done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["versions"]["distillkit-hellinger"] == "1.0"
    texts = [row["text"] for row in load_examples(tmp_path / "run" / "data" / "train")]
    assert len(texts) == 16
    assert all(text.startswith("The lamp of house") and "\n" in text and "*" not in text for text in texts)
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    soft = [line["soft_loss"] for line in lines if "soft_loss" in line]
    # Squared Hellinger distances times the square of the temperature, 2 by default.
    assert all(0 < value < 4 for value in soft)
    gone = run_cli("distill", "--run", tmp_path / "run", "--epochs", 2, env=cli_env(HF_HUB_OFFLINE="1"), check=2)
    assert "hellinger" in gone.stderr
    assert "forward-kl" in gone.stderr


# --- what can be wrong with a package ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`package("name", "1.0", {"choice": "module:attribute"}, module="code")` puts one on the path, as if it were installed."""

    def make(name: str, version: str, points: dict[str, str], **modules: str) -> None:
        site = tmp_path / f"{name}-{version}"
        information = site / f"{name}-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "".join(f"{choice} = {path}\n" for choice, path in points.items())
        (information / "entry_points.txt").write_text(f"[test.choices]\n{lines}")
        for module, code in modules.items():
            (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))

    return make


def test_names_are_added_behind_the_own_ones_and_nothing_is_imported(package: Callable[..., None]) -> None:
    package("good", "2.1", {"mean": "good_code:mean"}, good_code="def mean(p, q): return p - q\n")
    package("bad", "0.1", {"worse": "bad_code:worse", "absent": "good_code:nothing"}, bad_code="raise OSError('no disk\\nx')\n")  # fmt: skip
    table = Table("test.choices", OWN)
    assert list(table) == ["forward-kl", "absent", "mean", "worse"]
    assert list(AutoOr(table))[:2] == ["auto", "forward-kl"]
    assert len(AutoOr(table)) == 5
    assert "auto" in AutoOr(table)
    assert "auto" not in table
    assert not {"good_code", "bad_code"} & set(sys.modules)
    assert resolve(table, "mean")(3, 1) == 2
    with pytest.raises(
        PreconditionError, match=r"'worse' of bad 0\.1 \(bad_code:worse\) cannot be loaded: no disk$"
    ) as caught:
        resolve(table, "worse")
    assert "pip uninstall bad" in str(caught.value.hint)
    with pytest.raises(PreconditionError, match="cannot be loaded: module 'good_code' has no attribute 'nothing'"):
        resolve(table, "absent")
    with pytest.raises(KeyError):
        resolve(table, "neither")
    with Table.own_alone():
        assert list(table) == ["forward-kl"]


def test_a_defect_of_a_package_is_told_from_one_of_the_program(
    package: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import distillkit.words as words, json\ndef own(p): return json.loads(p)\ndef theirs(p): return words.words(p)\n"
    package("faulty", "3.0", {"own": "faulty_code:own", "theirs": "faulty_code:theirs"}, faulty_code=code)
    table = Table("test.choices", OWN)
    monkeypatch.setattr(extensions, "TABLES", {"divergence": table})
    for name, said in (("own", "a defect of faulty 3.0, which adds to distillkit"), ("theirs", "a defect; --debug")):

        def fails(*_: object, name: str = name, **__: object) -> None:
            resolve(table, name)("xx")

        monkeypatch.setattr(main, "app", fails)
        assert main.main(["x"]) == 1
        assert said in " ".join(capsys.readouterr().err.split())


def test_names_that_are_taken_are_left_out_and_said(package: Callable[..., None]) -> None:
    package("one", "1.0", {"forward-kl": "x:y", "shared": "x:y", "number": "x_code:NUMBER"}, x_code="NUMBER = 3\n")
    package("two", "1.0", {"shared": "z:y"})
    table = Table("test.choices", OWN)
    assert list(table) == ["forward-kl", "number"]
    assert table["forward-kl"] == OWN["forward-kl"]
    assert table.conflicts == [
        "test.choices: 'forward-kl' of one 1.0 is left out: distillkit has one itself",
        "test.choices: 'shared' is left out: two 1.0, one 1.0 all claim it",
    ]
    with pytest.raises(PreconditionError, match="is no function"):
        resolve(table, "number")


def test_names_and_paths_that_cannot_be_used_are_left_out_and_said(
    package: Callable[..., None], tmp_path: Path
) -> None:
    points = {"auto": "x:y", "re\x1bd": "x:y", "whole": "json", "extra": "nested_code:Of.mean [fast]"}
    package("odd", "1.0", points, nested_code="class Of:\n    mean = staticmethod(max)\n")
    package("nameless", "1.0", {"lost": "x:y"})
    (tmp_path / "nameless-1.0" / "nameless-1.0.dist-info" / "METADATA").unlink()
    table = Table("test.choices", OWN)
    assert list(table) == ["forward-kl", "extra"]
    assert resolve(table, "extra") is max
    words = "\n".join(table.conflicts)
    assert len(table.conflicts) == 4
    assert "'auto' is left out: odd 1.0 cannot call it that" in words
    assert r"'re\x1bd' is left out: odd 1.0 cannot" in words
    assert "'whole' is left out: odd 1.0 names no 'module:function' but 'json'" in words
    assert "'lost' is left out: the package that adds it has no readable METADATA" in words
    # Whatever the suffix, no file would ever be read by these.
    package("formats", "1.0", {"stanzas": "x:y", ".UP": "x:y", ".low": "x:y"})
    assert set(Table("test.choices", {}, names=DATA_FORMATS.names)) == {".low"}


def test_a_module_that_ends_the_process_is_said(package: Callable[..., None]) -> None:
    package("ending", "1.0", {"end": "ending_code:f"}, ending_code="import sys\nsys.exit(0)\n")
    with pytest.raises(PreconditionError, match=r"'end' of ending 1\.0 .* cannot be loaded: it ends the process \(0\)"):
        resolve(Table("test.choices", OWN), "end")


def test_a_divergence_that_does_not_give_one_number_a_row_is_refused(
    package: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit.losses.divergences import Divergence

    points = {"sum": "summing_code:total", "rows": "summing_code:rows", "no": "summing_code:no"}
    code = "def total(t, s): return (t - s).sum()\ndef rows(t, s): return (t - s).sum(-1)\ndef no(t, s): return 3\n"
    package("summing", "1.0", points, summing_code=code)
    monkeypatch.setattr(registry, "DIVERGENCES", Table("test.choices", OWN))
    rows = torch.randn(3, 5).log_softmax(-1)
    assert Divergence("rows")(rows, rows).tolist() == [0, 0, 0]
    with pytest.raises(
        PreconditionError, match=r"'sum' of summing 1\.0 gives a shape \[\], not one number for each of the 3"
    ):
        Divergence("sum")(rows, rows)
    with pytest.raises(PreconditionError, match="gives a shape of a int"):
        Divergence("no")(rows, rows)
