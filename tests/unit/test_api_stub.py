"""api.pyi: what editors and type checkers know of `distill_models()` is what it takes."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from distillkit import api, api_stub, registry
from distillkit.settings import declared


@pytest.fixture
def function() -> ast.FunctionDef:
    tree = ast.parse(api_stub.STUB.read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def test_the_committed_stub_is_up_to_date() -> None:
    assert not api_stub.is_stale(), "run: python -m distillkit.api_stub --write"


def test_the_stub_has_the_parameters_of_the_function(function: ast.FunctionDef) -> None:
    arguments = inspect.signature(api.distill_models).parameters
    assert [argument.arg for argument in function.args.kwonlyargs] == list(arguments)
    assert (function.args.args, function.args.vararg, function.args.kwarg) == ([], None, None)
    defaults = [ast.literal_eval(default) for default in function.args.kw_defaults if default is not None]
    assert defaults == [argument.default for argument in arguments.values()]
    assert ast.get_docstring(function) == inspect.getdoc(api.distill_models)


def test_closed_choices_are_literals(function: ast.FunctionDef) -> None:
    written = {
        argument.arg: ast.unparse(argument.annotation or ast.Constant(None)) for argument in function.args.kwonlyargs
    }
    for name in declared.fields():
        closed = [f"{choice!r}" for choice in declared.choices(name)]
        assert (written[name] == f"Literal[{', '.join(closed)}]") is bool(closed), name
    assert written["teacher_model_path"] == "str | Path | None"
    assert written["datasets"] == "dict[str, dict[str, Any]]"


def test_a_new_divergence_makes_the_stub_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.DIVERGENCES, "hellinger", "distillkit.losses.divergences:forward_kl")
    changed = dict(inspect.signature(api.distill_models).parameters)
    changed["divergence"] = changed["divergence"].replace(annotation=declared.argument_type("divergence"))
    monkeypatch.setattr(api.distill_models, "__signature__", inspect.Signature(list(changed.values())))
    assert api_stub.is_stale()
    assert '"taid", "hellinger"]' in api_stub.stub()


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (str | None, "str | None"),
        (None | Path | str, "Path | str | None"),
        (dict[str, Any], "dict[str, Any]"),
    ],
)
def test_annotations_as_source(annotation: Any, text: str) -> None:
    assert api_stub.type_text(annotation) == text


def test_write_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(api_stub, "STUB", tmp_path / "api.pyi")
    assert api_stub.main(["--check"]) == 1
    assert "python -m distillkit.api_stub --write" in capsys.readouterr().err
    assert api_stub.main(["--write"]) == 0
    assert api_stub.main(["--check"]) == 0
