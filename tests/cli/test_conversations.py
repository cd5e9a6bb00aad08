"""Runs on conversations, from documents that are read to the student's folder: white and black box, one template and two."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conversation_runs import QUIET, chat_models, distilled, prepared

from distillkit.data.conversation import Conversation
from distillkit.errors import UsageError
from distillkit.stages import distill, validate


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return chat_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("student", ["same", "bare", "llama3", "base"])
@pytest.mark.parametrize("box_type", ["white", "black"])
def test_a_student_keeps_its_template_and_stops(tmp_path, models, student: str, box_type: str) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    made = prepared(tmp_path, models, student, box_type=box_type)
    told = made.stats["conversations"]
    origin = {"same": "model", "bare": "teacher", "llama3": "model", "base": "plain"}[student]
    assert told["student"]["origin"] == origin
    assert made.stats["same_tokenizer"] is (student in ("same", "bare"))
    if box_type == "white" and student in ("llama3", "base"):
        assert 0.5 < made.stats["alignment"]["positions_aligned"] <= 1
    assert distilled(made)["soft_loss"] > 0
    tokenizer = AutoTokenizer.from_pretrained(made.run.best_student)
    assert tokenizer.chat_template == told["student"]["source"]
    ends = GenerationConfig.from_pretrained(made.run.best_student).eos_token_id
    assert told["student"]["end_of_turn_id"] in (ends if isinstance(ends, list) else [ends])
    validate.run(made.config, made.run, QUIET)
    found = json.loads((made.run.path / "validation.json").read_text())
    assert 0 < found["after"]["bits_per_byte"] < 20
    for name in ("teacher", "before", "after"):
        answers = found[name]["answers"]
        assert 0 < answers["asked"] <= 6
        assert answers["share"] == answers["stopped"] / answers["asked"]
        assert 0 <= answers["mean_tokens"] <= answers["limit"] == 128
    card = (made.run.best_student / "README.md").read_text()
    assert "answers that stop" in card
    whose = {"same": "the student's own (ChatML)", "bare": "its teacher's", "llama3": "the student's own (Llama 3)"}
    assert f"{whose.get(student, 'plain one')}" in card
    assert f"An answer ends with `{told['student']['end_of_turn']}`" in card
    if box_type == "white":
        assert found["after"]["teacher_kl"] >= 0


def test_targets_are_what_the_assistant_says(tmp_path, models) -> None:
    from transformers import AutoTokenizer

    from distillkit.data.examples import load_examples

    made = prepared(tmp_path, models, "same")
    tokenizer = AutoTokenizer.from_pretrained(models.same)
    for row in load_examples(made.run.data / "train").to_list():
        conversation = Conversation.from_canonical(row["text"])
        said = [turn.text + "<|im_end|>" for turn in conversation.turns if turn.role == "assistant"]
        assert [tokenizer.decode(row["student_ids"][begin:end]) for begin, end in row["target_spans"]] == said
        scored = [tokenizer.decode(row["student_ids"][begin:end]) for begin, end in row["student_scored"]]
        assert scored == [text.removesuffix("<|im_end|>") for text in said]
        assert row["bytes"] == sum(len(text.encode()) for text in scored)
        messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
        assert row["student_ids"] == row["teacher_ids"]
        assert row["student_ids"] == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


def test_special_tokens_of_rendered_texts_are_refused(tmp_path, models) -> None:
    with pytest.raises(UsageError, match="the rows are conversations"):
        prepared(tmp_path, models, "same", special_tokens="parse")


def test_an_alignment_of_one_template_is_the_plain_loss(tmp_path, models) -> None:
    plain = distilled(prepared(tmp_path / "plain", models, "same"))
    paired = distilled(prepared(tmp_path / "paired", models, "same", alignment="bpm"))
    assert paired["soft_loss"] == pytest.approx(plain["soft_loss"], rel=1e-5)
    assert paired["hard_loss"] == pytest.approx(plain["hard_loss"], rel=1e-6)


def test_the_plain_loss_is_over_the_answers_alone(tmp_path, models) -> None:
    """The first step's losses against a plain computation on the stored tokens."""
    from transformers import AutoModelForCausalLM

    from distillkit.data.examples import load_examples

    made = prepared(tmp_path, models, "same", batch_size=12, temperature=1.0)
    rows = load_examples(made.run.data / "train").to_list()
    student, teacher = (AutoModelForCausalLM.from_pretrained(path).double() for path in (models.same, models.teacher))
    soft = hard = 0.0
    targets = 0
    for row in rows:
        ids = torch.tensor([row["student_ids"]])
        with torch.no_grad():
            ours, theirs = (model(input_ids=ids).logits[0].log_softmax(-1) for model in (student, teacher))
        for begin, end in row["target_spans"]:
            for place in range(begin, end):
                hard -= float(ours[place - 1, row["student_ids"][place]])
                soft += float((theirs[place - 1].exp() * (theirs[place - 1] - ours[place - 1])).sum())
                targets += 1
    found = distilled(made)
    assert found["hard_loss"] == pytest.approx(hard / targets, rel=1e-4)
    assert found["soft_loss"] == pytest.approx(soft / targets, rel=1e-3)


@pytest.mark.parametrize("student", ["same", "llama3"])
def test_the_sparse_cache_and_a_tuned_teacher_know_the_targets(tmp_path, models, student: str) -> None:
    made = prepared(tmp_path, models, student, teacher_cache="sparse", tune_teacher=2)
    assert distilled(made)["soft_loss"] > 0
    again = prepared(tmp_path / "all", models, student, teacher_cache="sparse", tune_teacher=2, train_on="all")
    assert distilled(again)["soft_loss"] > 0


def test_the_demo_asks_in_each_models_template(tmp_path, models) -> None:
    from distillkit.stages import demo

    made = prepared(tmp_path, models, "base")
    distilled(made)
    demo.run(made.config, made.run, QUIET)
    texts = json.loads((made.run.path / "demo.json").read_text())["texts"]
    assert texts
    assert {text["prompt"] for text in texts} <= set(_asked(made.run.data / "test"))


def _asked(folder: Path) -> list[str]:
    from distillkit.data.examples import load_examples

    rows = load_examples(folder).to_list()
    return [turn.text for row in rows for turn in Conversation.from_canonical(row["text"]).turns if turn.role == "user"]


def test_several_answers_and_a_program_that_knows_the_rows_own(tmp_path, models) -> None:
    """The program gets the messages, the answer and the row's last turn; its verdicts stay when the run goes on."""
    from distillkit.data.examples import load_examples

    seen = tmp_path / "seen.jsonl"
    hook = tmp_path / "judge.py"
    hook.write_text(
        "import sys\nfor number, line in enumerate(sys.stdin):\n"
        f"    open({str(seen)!r}, 'a').write(line)\n"
        "    print('drop every third' if number % 3 == 2 else 'keep')\n"
    )
    rule = f"run:'{sys.executable}' '{hook}'"
    made = prepared(tmp_path, models, "llama3", box_type="black", answers=2, keep_answers=rule)
    distilled(made)
    asked = [json.loads(line) for line in seen.read_text().splitlines()]
    rows = load_examples(made.run.data / "train").to_list()
    known = {row["text"]: Conversation.from_canonical(row["text"]).turns for row in rows}
    for row in asked:
        turns = [(turn["role"], turn["content"]) for turn in row["prompt"]] + [("assistant", row["known_answer"])]
        assert turns in [[(turn.role, turn.text) for turn in own] for own in known.values()]
    counts = json.loads((made.run.path / "metrics.json").read_text())["teacher_texts"]
    assert counts["written"] == 24
    assert counts["dropped"]["program"] == len(asked) // 3 > 0
    distill.run(made.config, made.run, QUIET)
    assert len(seen.read_text().splitlines()) == len(asked)


def test_a_cut_students_start_is_told_in_bits_of_all_that_is_read(tmp_path, models) -> None:
    """Not of the bytes that are learnt alone: turns of others and the template's words would count without their bytes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distillkit.data.examples import load_examples
    from distillkit.teachers.cut_student import CutTexts

    made = prepared(tmp_path, models, "same", student_model="teacher:1", student_model_path=None)
    rows = [row["teacher_ids"] for row in load_examples(made.run.data / "train").to_list()]
    trial = CutTexts.drawn(rows, made.config.seed).trial
    teacher = AutoModelForCausalLM.from_pretrained(models.teacher).double()
    with torch.no_grad():
        scores = teacher(input_ids=trial).logits[:, :-1].log_softmax(-1)
    nats = -float(scores.gather(-1, trial[:, 1:, None].long()).mean())
    tokenizer = AutoTokenizer.from_pretrained(models.teacher)
    spelled = sum(len(tokenizer.decode(ids, skip_special_tokens=True).encode()) for ids in rows)
    wanted = nats / math.log(2) * sum(map(len, rows)) / spelled
    found = json.loads((made.run.data / "cut.json").read_text())["bits_per_byte"]
    assert found["teacher"] == pytest.approx(wanted, rel=2e-3)
