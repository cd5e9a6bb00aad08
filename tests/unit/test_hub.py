"""The Hub when it fails: what is tried again, and what the user is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from distillkit.errors import DistillkitError, Interrupted
from distillkit.hub import HubRepository, http_status, is_unreachable, retry

MODEL = HubRepository("model", "org/name", "v9", "take another one")
DATA_SET = HubRepository("data set", "org/name", None, "take another one")


def http_error(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    # Not a response of the HTTP client, which is another one in every other version of huggingface_hub.
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("refused", response=response)


def failing(*errors: BaseException) -> Callable[[], str]:
    """An action that raises these one after another, then succeeds."""
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "the result"

    return action


def test_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    lines: list[str] = []
    action = failing(http_error(503), ConnectionError("cut"), http_error(429))
    assert retry(action, "org/name", inform=lines.append, check_interrupted=lambda: None) == "the result"
    assert pauses == [1, 2, 4]
    assert lines[0] == "org/name: the Hub answered with status 503; trying again in 1 s (1 of 3)"
    assert lines[1] == "org/name: the Hub cannot be reached; trying again in 2 s (2 of 3)"
    with pytest.raises(HfHubHTTPError):
        retry(failing(*[http_error(503)] * 4), "org/name", inform=lines.append, check_interrupted=lambda: None)


@pytest.mark.parametrize(
    "error", [http_error(404), OfflineModeIsEnabled("off"), ValueError("no"), DistillkitError("known already")]
)
def test_what_stays_is_not_tried_again(error: Exception) -> None:
    lines: list[str] = []
    with pytest.raises(type(error)):
        retry(failing(error), "org/name", inform=lines.append, check_interrupted=lambda: None)
    assert lines == []


def test_a_signal_ends_the_attempts() -> None:
    """A worker thread that a signal made leave raises something else; the signal counts."""
    checks = iter([None, Interrupted(15)])

    def check() -> None:
        if (raised := next(checks)) is not None:
            raise raised

    with pytest.raises(Interrupted):
        retry(failing(ConnectionError("left")), "org/name", inform=lambda line: None, check_interrupted=check)


@pytest.mark.parametrize(
    ("repository", "error", "message", "hint"),
    [
        (MODEL, http_error(403, GatedRepoError), "model org/name: access has to be asked for", "its page (org/name)"),
        (DATA_SET, http_error(403, GatedRepoError), "data set org/name: access has", "its page (datasets/org/name)"),
        (DATA_SET, http_error(404, RepositoryNotFoundError), "data set org/name: not on the Hub, or private", "take"),
        (MODEL, http_error(500), "status 500, and no complete copy of it is on this machine", "take another one"),
        (MODEL, http_error(400), "model org/name: the Hub answered with status 400", "take another one"),
        (DATA_SET, OSError(28, "No space left", "/cache"), "cannot be stored in the Hub's cache: No space", "HF_HOME"),
        (DATA_SET, json.JSONDecodeError("no JSON", "<html>", 0), "is no model hub", "HF_ENDPOINT"),
    ],
)
def test_errors_are_explained(repository: HubRepository, error: Exception, message: str, hint: str) -> None:
    explained = repository.explain(error)
    assert explained is not None
    assert message in explained.message
    assert hint in (explained.hint or "")


def test_a_defect_of_the_program_is_not_explained_away() -> None:
    assert MODEL.explain(ZeroDivisionError("division by zero")) is None
    assert MODEL.explain(ValueError("wrong")) is None


def test_what_caused_an_error_counts() -> None:
    outer = RuntimeError("wrapped")
    outer.__cause__ = http_error(502)
    assert http_status(outer) == 502
    assert is_unreachable(outer)
    refusal = OSError("wrapped")
    refusal.__cause__ = http_error(404, RepositoryNotFoundError)
    explained = MODEL.explain(refusal)
    assert explained is not None
    assert "not on the Hub" in explained.message
