"""The libraries are silent inside the block, and as before behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import datasets
import huggingface_hub
import pytest
from huggingface_hub.utils import are_progress_bars_disabled as hub_bars_disabled
from transformers.utils import logging as transformers_logging

from distillkit.silence_libraries import silence_datasets, silence_gguf_reader, silence_hub, silence_transformers


def state() -> dict[str, object]:
    return {
        "transformers": transformers_logging.get_verbosity(),
        "transformers bars": transformers_logging.is_progress_bar_enabled(),
        "hub": huggingface_hub.logging.get_verbosity(),
        "hub bars": not hub_bars_disabled(),
        "datasets": datasets.logging.get_verbosity(),
        "datasets bars": not datasets.are_progress_bars_disabled(),
        "stderr": sys.stderr,
    }


@pytest.mark.parametrize(
    ("silence", "changed"),
    [
        # The switch of transformers turns the bars of huggingface_hub too.
        (silence_transformers, {"transformers", "transformers bars", "hub bars"}),
        (silence_gguf_reader, {"transformers", "transformers bars", "hub bars", "stderr"}),
        (silence_hub, {"hub", "hub bars"}),
        (lambda: silence_hub(keep_bars=True), {"hub"}),
        (silence_datasets, {"hub", "hub bars", "datasets", "datasets bars"}),
    ],
)
def test_silent_inside_and_as_before_afterwards(
    silence: Callable[[], AbstractContextManager[None]], changed: set[str]
) -> None:
    before, inside = state(), {}

    def fail() -> None:
        inside.update(state())
        raise KeyError

    with pytest.raises(KeyError), silence():
        fail()
    assert {name for name, value in inside.items() if value != before[name]} == changed
    assert state() == before


def test_what_was_off_stays_off() -> None:
    huggingface_hub.utils.disable_progress_bars()
    try:
        for silence in (silence_hub, silence_transformers, silence_datasets):
            with silence():
                pass
            assert hub_bars_disabled()
    finally:
        huggingface_hub.utils.enable_progress_bars()
