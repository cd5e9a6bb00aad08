"""Several teachers in whole runs: two equal ones are one, tokenizers are mixed, caches and weights, what is measured and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conversation_runs import QUIET, chat_models, distilled, prepared
from safetensors.torch import load_file
from tiny_models import save_model_folder, tiny_model, tiny_sentencepiece_tokenizer
from transformers import AutoTokenizer

from distillkit import Interrupted, PreconditionError, UsageError
from distillkit.data.conversation import Conversation
from distillkit.data.examples import load_examples
from distillkit.run.further_teachers import examples_of
from distillkit.settings.resolve import resolve
from distillkit.stages import validate
from distillkit.teachers.precompute import fill_cache

Distil = Callable[..., Any]


def weights(result: Any) -> dict[str, torch.Tensor]:
    return load_file(result.run_directory / "student" / "final" / "model.safetensors")


def steps(result: Any) -> list[dict[str, float]]:
    """The losses of every step."""
    text = (result.run_directory / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if "loss" in line]
    return [{name: line[name] for name in ("loss", "soft_loss", "hard_loss", "grad_norm")} for line in lines]


def close(one: Any, other: Any, *, rel: float = 2e-5) -> None:
    """The same training, apart from rounding; Adam makes a step of a gradient that is nothing but rounding."""
    assert steps(one)
    for ours, theirs in zip(steps(one), steps(other), strict=True):
        assert ours == pytest.approx(theirs, rel=rel)
    left, right = weights(one), weights(other)
    assert max(float((left[name] - right[name]).abs().mean()) for name in right) < rel / 100


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stranger(pair: SimpleNamespace) -> Path:
    """A teacher with another tokenizer and a context that is shorter than some of the texts."""
    tokenizer = tiny_sentencepiece_tokenizer(pair.root / "stranger-words")
    made = tiny_model("llama", len(tokenizer), seed=8, layers=1, hidden=16, context=58)
    return save_model_folder(pair.root / "stranger", made, tokenizer)


@pytest.fixture(scope="module")
def mixed(distil: Distil, pair: SimpleNamespace, stranger: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three teachers, two of them with the student's tokenizer, validated, in a folder of its own."""
    return distil(
        extra_teachers=f"{stranger},{pair.other_teacher}", teacher_weights="2,1,1", teacher_cache="exact", temperature=2.0,
        skip_validation=False, output_dir=tmp_path_factory.mktemp("mixed"), folder_name="mixed",
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher_cache": "off", "temperature": 2.0, "teacher": "stranger"},
        {"teacher_cache": "exact", "divergence": "jsd", "temperature_schedule": "anneal", "temperature": 3.0},
        {"teacher_cache": "sparse"},
        {"teacher_cache": "sparse", "sparse_method": "top-k", "sparse_size": 8, "temperature": 2.0},
    ],
    ids=["live, another tokenizer", "exact", "sampled", "top-k"],
)
def test_two_equal_teachers_are_one(
    distil: Distil, pair: SimpleNamespace, stranger: Path, settings: dict[str, Any]
) -> None:
    teacher = stranger if "teacher" in settings else pair.teacher
    settings = {name: value for name, value in settings.items() if name != "teacher"} | {"teacher_model_path": teacher}
    # Of stored probabilities the sum is 1 but for their rounding; the mixture is normalised.
    rel = 1e-3 if "sparse_method" in settings else 2e-5
    measured = {"skip_validation": False, "quality_gate": "off"} if teacher == stranger else {}
    one = distil(**settings, **measured)
    twice = distil(**settings, **measured, extra_teachers=str(teacher), teacher_weights="0.3,0.7")
    close(twice, one, rel=rel)
    for name in ("before", "after") if measured else ():
        for figure in ("teacher_agreement", "teacher_kl"):
            assert getattr(twice, name)[figure] == pytest.approx(getattr(one, name)[figure], rel=1e-4)


def test_what_is_mixed_is_measured_and_told(mixed: Any, pair: SimpleNamespace, stranger: Path) -> None:
    names = [str(pair.teacher), str(stranger), str(pair.other_teacher)]
    assert [one["name"] for one in mixed.teachers] == names
    assert [one["weight"] for one in mixed.teachers] == [0.5, 0.25, 0.25]
    alone = [one["bits_per_byte"] for one in mixed.teachers]
    # A mean of probabilities is never worse than the mean of the codes, and random teachers err in different places.
    assert mixed.teacher["bits_per_byte"] < sum(
        score * weight for score, weight in zip(alone, (0.5, 0.25, 0.25), strict=True)
    )
    before, after = mixed.before["bits_per_byte"], mixed.after["bits_per_byte"]
    if mixed.gap_closed is not None:
        assert mixed.gap_closed == pytest.approx((before - after) / (before - mixed.teacher["bits_per_byte"]))
    # Trained to follow the mixture, it does so more closely than before; that is in the report.
    assert 0 < mixed.after["teacher_kl"] < mixed.before["teacher_kl"]
    assert 0 <= mixed.after["teacher_agreement"] <= 1
    assert "teacher_kl" not in mixed.teacher
    assert 'data-of="validation.after.teacher_kl"' in (mixed.run_directory / "report.html").read_text(encoding="utf-8")
    stats = read(mixed.run_directory / "data" / "stats.json")
    assert [told["same_tokenizer"] for told in stats["extra_teachers"]] == [False, True]
    first = stats["extra_teachers"][0]
    assert 0 < first["alignment"]["positions_aligned"] < 1 == stats["guided"]["any"]
    assert stats["guided"]["all"] == pytest.approx(first["alignment"]["positions_aligned"])
    assert first["shortened"] > 0 == first["unread"]["train"]
    card = (mixed.student_path / "README.md").read_text(encoding="utf-8")
    for line in (
        "Teacher 1 of 3, weight 0.5: `teacher`",
        "Teacher 2 of 3, weight 0.25: `stranger`",
        "| teachers together |",
    ):
        assert line in card
    page = (mixed.run_directory / "report.html").read_text(encoding="utf-8")
    assert 'data-of="validation.teachers.2.bits_per_byte"' in page
    assert 'data-of="stats.extra_teachers.0.alignment.positions_aligned"' in page
    passed = mixed.metrics["teacher_pass"]
    assert passed["tokens"] == sum(one["tokens"] for one in passed["teachers"])
    assert [one["weight"] for one in passed["teachers"]] == [0.5, 0.25, 0.25]


def test_other_weights_train_again_and_compute_no_cache_again(
    mixed: Any, distil: Distil, pair: SimpleNamespace, stranger: Path
) -> None:
    where = {"output_dir": mixed.run_directory.parent, "folder_name": "mixed", "teacher_cache": "exact", "temperature": 2.0,
             "extra_teachers": f"{stranger},{pair.other_teacher}"}  # fmt: skip
    before, data = weights(mixed), mixed.run_directory / "data" / "stats.json"
    prepared = data.stat().st_mtime_ns
    with pytest.raises(PreconditionError, match="teacher_weights: 2,1,1 -> 1,1,2"):
        distil(**where, teacher_weights="1,1,2")
    other = distil(**{**where, "folder_name": "other"}, teacher_weights="1,1,2")
    assert all(one["cached_tokens"] == one["tokens"] for one in other.metrics["teacher_pass"]["teachers"])
    assert any(not torch.equal(before[name], value) for name, value in weights(other).items())
    assert data.stat().st_mtime_ns == prepared
    # The live teachers, all in memory, teach the same.
    close(distil(**{**where, "teacher_cache": "off", "folder_name": "live"}, teacher_weights="2,1,1"), mixed)
    # A teacher that was one of several has its cache for a run in which it teaches alone.
    alone = distil(**{**where, "extra_teachers": None, "folder_name": "alone"}, teacher_model_path=pair.other_teacher)
    assert alone.metrics["teacher_pass"]["cached_tokens"] == alone.metrics["teacher_pass"]["tokens"]


def test_a_pass_goes_on_with_the_teacher_where_it_was(
    mixed: Any, distil: Distil, pair: SimpleNamespace, stranger: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = {"output_dir": tmp_path, "folder_name": "run", "teacher_cache": "exact", "temperature": 2.0,
             "extra_teachers": f"{stranger},{pair.other_teacher}", "teacher_weights": "2,1,1"}  # fmt: skip
    filled: list[str] = []

    def cut_off(cache: Any, *rest: Any) -> Any:
        if len(filled) == 1:
            raise Interrupted(2, "stopped")
        filled.append(cache.key.teacher)
        return fill_cache(cache, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("distillkit.teachers.loader.fill_cache", cut_off)
        with pytest.raises(Interrupted):
            distil(**where)
    assert filled == [str(pair.teacher)]
    result = distil(**where)
    cached = [one["cached_tokens"] == one["tokens"] for one in result.metrics["teacher_pass"]["teachers"]]
    assert cached == [True, False, False]
    assert all(torch.equal(value, weights(mixed)[name]) for name, value in weights(result).items())


def test_a_changed_teacher_is_noticed(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pair.other_teacher, copy)
    where = {"output_dir": tmp_path, "folder_name": "run", "extra_teachers": str(copy)}
    distil(**where)
    copy.rename(tmp_path / "moved")
    # The same files elsewhere are the same teacher.
    distil(**{**where, "extra_teachers": str(tmp_path / "moved")})
    shutil.copy(pair.teacher / "model.safetensors", tmp_path / "moved")
    with pytest.raises(
        PreconditionError, match=r"teacher 2, .*moved, has changed since prepare-data|changed since: extra_teachers"
    ):
        distil(**{**where, "extra_teachers": str(tmp_path / "moved")}, epochs=2)


def test_the_plan_names_all_teachers(
    command: Callable[..., Any], pair_file: Path, pair: SimpleNamespace, stranger: Path, tmp_path: Path
) -> None:
    more = ["--extra-teachers", f"{stranger},{pair.other_teacher}", "--teacher-weights", "2,1,1"]
    given = ["distill", "--config", str(pair_file), "--dry-run", "--output-dir", str(tmp_path), "--json"]
    one, all_three = (json.loads(command(*given, *flags).out)["estimate"] for flags in ([], more))
    assert [teacher["weight"] for teacher in all_three["teachers"]] == [0.5, 0.25, 0.25]
    assert "teachers" not in one
    assert all_three["memory_bytes"] > one["memory_bytes"]
    assert all_three["phases"]["teacher pass"] > one["phases"]["teacher pass"]
    kept = ["--teacher-cache", "exact"]
    one, all_three = (json.loads(command(*given, *kept, *flags).out)["estimate"] for flags in ([], more))
    assert all_three["teacher_cache_bytes"] > 2 * one["teacher_cache_bytes"]
    assert all_three["disk_bytes"] > one["disk_bytes"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_type": "black"}, "--extra-teachers and --box-type black exclude each other"),
        ({"alignment": "uld"}, "--extra-teachers and alignment uld exclude each other"),
        ({"tune_teacher": 5}, "--extra-teachers and --tune-teacher exclude each other"),
        ({"teacher_model": "openai:gpt", "teacher_url": "http://127.0.0.1:1/v1", "temperature": 1.0}, "and --extra-teachers"),
        ({"extra_teachers": "gpt2,openai:gpt"}, "'openai:gpt' cannot be one of several teachers"),
        ({"extra_teachers": "logprobs:here"}, "'logprobs:here' cannot be one of several teachers"),
        ({"extra_teachers": "gpt2,,gpt2"}, "has an empty name"),
        ({"extra_teachers": "teacher:2"}, "'teacher:2' is a student"),
        ({"teacher_weights": "1,2,3"}, "--teacher-weights has 3 numbers, and there are 2 teachers"),
        ({"teacher_weights": "1,0"}, "is no list of numbers above 0"),
        ({"teacher_weights": "1,much"}, "is no list of numbers above 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        resolve({"extra_teachers": "gpt2", **settings})
    assert "\n" not in refused.value.message
    assert refused.value.hint


def test_each_teacher_reads_conversations_in_its_own_template(tmp_path: Path) -> None:
    models = chat_models(tmp_path / "models")
    made = prepared(tmp_path, models, "same", extra_teachers=str(models.llama3))
    told = made.stats["extra_teachers"][0]
    ends = [made.stats["conversations"]["teacher"]["end_of_turn"], told["conversations"]["teacher"]["end_of_turn"]]
    assert ends == ["<|im_end|>", "<|eot_id|>"]
    assert told["conversations"]["student"] == made.stats["conversations"]["student"]
    assert (made.stats["same_tokenizer"], told["same_tokenizer"], told["unread"]["train"]) == (True, False, 0)
    assert distilled(made)["soft_loss"] > 0
    one = load_examples(made.run.data / "train").to_list()
    other = load_examples(examples_of(made.run.data, 2, "train")).to_list()
    tokenizer = AutoTokenizer.from_pretrained(models.llama3)
    for row, theirs in zip(one, other, strict=True):
        assert (row["student_ids"], row["target_spans"]) == (theirs["student_ids"], theirs["target_spans"])
        turns = Conversation.from_canonical(row["text"]).turns
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        assert theirs["teacher_ids"] == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    validate.run(made.config, made.run, QUIET)
    found = read(made.run.path / "validation.json")
    assert found["teacher"]["tokens"] > 0
    assert "answers" in found["teachers"][0]
