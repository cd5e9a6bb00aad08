"""What excludes on-policy steps is refused in one line, with a way out; nothing is asked where there are none."""

from __future__ import annotations

from typing import Any

import pytest

from distillkit.errors import UsageError
from distillkit.settings.resolve import resolve

SERVED = {"teacher_model": "openai:big", "teacher_url": "http://127.0.0.1:1/v1", "temperature": 1.0}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"box_type": "black"}, "--box-type black"),
        ({"alpha": 0.0}, "--alpha 0"),
        (SERVED, "--teacher-model openai:…"),
        ({"teacher_model": "logprobs:./folder", "temperature": 1.0}, "--teacher-model logprobs:…"),
        ({"extra_teachers": "./other"}, "--extra-teachers"),
        ({"teacher_streaming": "on"}, "--teacher-streaming on"),
        ({"teacher_cache": "exact", "on_policy_fraction": 1.0}, "--teacher-cache exact"),
        ({"max_length": 64}, "--on-policy-max-new-tokens of --max-length or more"),
        ({"replay_buffer": 7}, "--replay-buffer 7"),
    ],
)
def test_what_excludes_on_policy_steps(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve({"on_policy_fraction": 0.5, **settings})
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(f"--on-policy-fraction and {said} exclude each other: ")
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    resolve({**settings, "on_policy_fraction": 0.0})


def test_a_cache_of_the_texts_of_the_data_set_is_allowed() -> None:
    for cache in ("exact", "sparse", "off"):
        assert resolve({"on_policy_fraction": 0.5, "teacher_cache": cache}).parameters.teacher_cache == cache
