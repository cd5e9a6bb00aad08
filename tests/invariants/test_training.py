"""What training promises: the same student whatever the micro-batches, losses where they belong, no step on a NaN."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import (
    make_paragraph,
    save_model_folder,
    tiny_model,
    tiny_sentencepiece_tokenizer,
    tiny_tokenizer,
    write_texts,
)
from torch import nn
from torch.utils.data import SequentialSampler

from distillkit import distill_models
from distillkit.cli import main as cli
from distillkit.console import Console
from distillkit.data.batching import IGNORED, DistillationCollator
from distillkit.data.document import Document
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import ROW_COLUMNS
from distillkit.data.text_encoder import TextEncoders, make_text_encoder
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError
from distillkit.losses.chunked import StudentOutput
from distillkit.models.backbone_and_head import split_model
from distillkit.models.loading import load_model
from distillkit.run.pair import ModelPair
from distillkit.settings.declared import flag
from distillkit.settings.parameters import Parameters
from distillkit.storage import files_below
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.targets import teacher_signal
from distillkit.training.arguments import training_arguments
from distillkit.training.metrics_log import MetricsLog, read_metrics
from distillkit.training.objectives import BlackBox, Weights, objective_of
from distillkit.training.progress import Progress
from distillkit.training.schedules import Course, schedule_factor
from distillkit.training.trainer import DistillTrainer

CPU = Compute(torch.device("cpu"), None, torch.float32)
# With the alignment across tokenizers.
KINDS = {
    "same tokenizer": None,
    "black box": None,
    "across tokenizers: bpm": "bpm",
    "across tokenizers: strict": "strict",
    "across tokenizers: alm": "alm",
    "across tokenizers: uld": "uld",
}


class Setting:
    """Thirty-two examples of very different lengths, an objective for them, and untrained students."""

    def __init__(self, kind: str, **changes: Any) -> None:
        settings = {"alpha_schedule": "constant", **changes}
        other = kind.startswith("across tokenizers")
        student, teacher = tiny_tokenizer(384), tiny_tokenizer(300, bos="<s>") if other else tiny_tokenizer(384)
        encoders = [make_text_encoder(tokenizer, None, 64, needs_bytes=True) for tokenizer in (student, teacher)]
        self.encoders = TextEncoders(*encoders)
        builder = ExampleBuilder(self.encoders.student, self.encoders.teacher if other else None, align=other, seed=1)
        generator = random.Random(5)
        texts = [make_paragraph(generator, 1)[: generator.choice((6, 25, 60))] for _ in range(32)]
        self.rows: list[dict[str, Any]] = []
        for example in builder.build([Document(text, "test") for text in texts], 32):
            row = {"id": len(self.rows), "first_target": 1, "student_ids": example.student_ids}
            if kind == "black box":
                row |= {"teacher_text": len(self.rows) % 3 == 0, "first_target": 1 + len(self.rows) % 2}
            elif other and example.rows is not None:
                row |= {"teacher_ids": example.teacher_ids}
                row |= {name: getattr(example.rows, name) for name in ROW_COLUMNS}
            self.rows.append(row)
        assert len(self.rows) == 32
        width = 300 if other else 384
        self.teacher = LiveTeacher(tiny_model("gpt2", width, seed=1, initializer_range=0.2), CPU)
        box_type = "black" if kind == "black box" else "white"
        config = Parameters(temperature=2.0, alignment=KINDS[kind] or "auto", box_type=box_type, **settings)
        signal = teacher_signal(config, self.encoders, self.teacher, paired=other)
        self.objective: Any = BlackBox() if kind == "black box" else objective_of(signal, config)
        self.course = Course.of(config)
        self.collator = DistillationCollator(
            white_box=kind != "black box", aligned=other, prepare=self.objective.prepare
        )

    def student(self) -> nn.Module:
        return tiny_model("gpt2", 384, layers=1, hidden=16, seed=2)

    def train(
        self, folder: Path, batch: int, accumulation: int, kind: type[DistillTrainer], **options: Any
    ) -> dict[str, Any]:
        """The weights and the log after four optimizer steps over the examples in their order."""
        config = Parameters(
            batch_size=batch, gradient_accumulation=accumulation, epochs=1, learning_rate=1e-3, precision="fp32"
        )
        student = self.student()
        log = MetricsLog(folder / f"{kind.__name__}-{batch}x{accumulation}.jsonl", 0)
        with Console(quiet=True).progress("training", total=4, unit="steps") as display:
            trainer = kind(
                model=student, args=training_arguments(config, CPU, folder / "checkpoints", 32, resumed=False),
                train_dataset=_Rows(self.rows), eval_dataset=_Rows(()), data_collator=self.collator,
                objective=self.objective, alpha=0.7, beta=0.3, schedule="linear",
                lengths=[len(row["student_ids"]) for row in self.rows], held_out_score=lambda *_: 1.0,
                fingerprint="test", on_best=None, metrics_log=log, progress=Progress(), display=display,
                course=self.course, **options,
            )  # fmt: skip
            trainer.train()
        assert trainer.state.global_step == 4
        assert log.path is not None
        logged = [line for line in read_metrics(log.path) if "loss" in line]
        return {"weights": {name: value.detach() for name, value in student.named_parameters()}, "log": logged}


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class InOrder(DistillTrainer):
    """In the order of the rows, which the plain loop below can follow."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Nothing resumes from here."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.lengths)


class MeanOfMeans(InOrder):
    """What must not be: every micro-batch divided by its own targets."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        own = inputs["host"].targets * self.args.gradient_accumulation_steps
        return super().compute_loss(model, inputs, return_outputs, own)


def largest_difference(left: dict[str, Any], right: dict[str, Any]) -> float:
    return max(float((left["weights"][name] - right["weights"][name]).abs().max()) for name in left["weights"])


SCHEDULES = {"temperature_schedule": "anneal", "alpha_schedule": "decay"}


def weights_of_steps(settings: dict[str, Any]) -> list[tuple[float, float]]:
    """(α, β) of each of four steps."""
    alphas = [0.7, 0.7 * 2 / 3, 0.7 / 3, 0.0] if "alpha_schedule" in settings else [0.7] * 4
    return [(alpha, 1 - alpha) for alpha in alphas]


@pytest.mark.usefixtures("known_instructions")
@pytest.mark.parametrize("settings", [{}, SCHEDULES], ids=["constant", "schedules"])
@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_does_not_change_the_student(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    setting = Setting(kind, **settings)
    whole = setting.train(tmp_path, 8, 1, InOrder)
    parts = setting.train(tmp_path, 2, 4, InOrder)
    assert largest_difference(whole, parts) < 2e-5
    for (alpha, beta), one, other in zip(weights_of_steps(settings), whole["log"], parts["log"], strict=True):
        assert one["tokens"] == other["tokens"]
        assert one.keys() == other.keys()
        for name in {"loss", "soft_loss", "hard_loss", "grad_norm", "learning_rate"} & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-4), name
        assert ("soft_loss" in one) is (alpha > 0)
        assert one["loss"] == pytest.approx(alpha * one.get("soft_loss", 0) + beta * one["hard_loss"])
        assert one.get("alpha", 0.7) == pytest.approx(alpha, abs=1e-6)
    # The negative control: whole batches have but one mean, parts of them have others.
    assert largest_difference(whole, setting.train(tmp_path, 8, 1, MeanOfMeans)) < 2e-5
    assert largest_difference(whole, setting.train(tmp_path, 2, 4, MeanOfMeans)) > 2e-4


@pytest.mark.parametrize("settings", [{}, SCHEDULES], ids=["constant", "schedules"])
@pytest.mark.parametrize("compiles", [False, True])
def test_the_student_is_that_of_a_plain_loop(tmp_path: Path, compiles: bool, settings: dict[str, Any]) -> None:
    """Chunks, gradients put in place, the tied embedding, the fused optimizer and the compiler change nothing: text by
    text without padding, all logits at once, autograd, in double precision."""
    setting = Setting("same tokenizer", **settings)
    found = setting.train(tmp_path, 8, 1, InOrder, compile_kernels=compiles)
    temperatures = [2, 5 / 3, 4 / 3, 1] if settings else [2] * 4
    student, teacher = setting.student().double(), setting.teacher.model.double()
    optimizer = torch.optim.AdamW(student.parameters(), weight_decay=0.0, fused=False, foreach=False)
    warmup = round(Parameters().warmup_fraction * 4)
    for step in range(4):
        rows = setting.rows[8 * step : 8 * step + 8]
        total = sum(len(row["student_ids"]) - 1 for row in rows)
        (alpha, beta), tau = weights_of_steps(settings)[step], temperatures[step]
        optimizer.zero_grad()
        for row in rows:
            ids = torch.tensor([row["student_ids"]])
            with torch.no_grad():
                wanted = torch.log_softmax(teacher(ids).logits[0, :-1] / tau, -1)
            logits = student(ids).logits[0, :-1]
            guess = torch.log_softmax(logits / tau, -1)
            soft = tau**2 * (wanted.exp() * (wanted - guess)).sum()
            hard = -torch.log_softmax(logits, -1)[range(len(logits)), ids[0, 1:]].sum()
            ((alpha * soft + beta * hard) / total).backward()
        norm = torch.stack([value.grad.pow(2).sum() for value in student.parameters()]).sum().sqrt()
        assert found["log"][step]["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule_factor("linear", warmup, 4, step)
        for value in student.parameters():
            value.grad.mul_(torch.clamp(1 / (norm + 1e-6), max=1))
        optimizer.step()
    plain = {"weights": {name: value.detach().float() for name, value in student.named_parameters()}}
    assert largest_difference(found, plain) < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_an_example_does_not_depend_on_its_company(kind: str) -> None:
    """Nor on the padding that the company brings. Sums of gradients and of terms, one by one and together."""
    setting = Setting(kind)
    student = setting.student()

    def sums(rows: list[dict[str, Any]]) -> tuple[list[float], torch.Tensor]:
        student.zero_grad()
        batch = setting.collator(rows)
        parts = split_model(student)
        assert parts.apart
        output = StudentOutput(parts.hidden(batch), parts.head, parts.parameters, parts.columns)
        terms = setting.objective(output, batch, Weights(0.7, 0.3, torch.tensor(1)))
        assert terms.loss.item() == pytest.approx(0.7 * terms.soft_sum.item() + 0.3 * terms.hard_sum.item(), rel=1e-5)
        terms.loss.backward()
        gradient = torch.cat([value.grad.flatten() for value in student.parameters() if value.grad is not None])
        return [terms.soft_sum.item(), terms.hard_sum.item(), float(batch["host"].targets)], gradient

    alone = [sums([row]) for row in setting.rows[:8]]
    together, gradient = sums(setting.rows[:8])
    assert together == pytest.approx([sum(term) for term in zip(*(terms for terms, _ in alone), strict=True)], rel=1e-5)
    torch.testing.assert_close(gradient, torch.stack([one for _, one in alone]).sum(0), rtol=1e-4, atol=1e-4)
    assert all(abs(terms[0]) + abs(terms[1]) > 0 for terms, _ in alone)


def test_black_box_learns_continuations_only_each_text_with_its_weight() -> None:
    setting = Setting("black box")
    rows = [
        {**setting.rows[0], "first_target": 4, "teacher_text": True},
        {**setting.rows[1], "first_target": 1, "teacher_text": False},
    ]
    batch = setting.collator(rows)
    assert batch["labels"][0, :4].tolist() == [IGNORED] * 4
    assert batch["host"].targets == len(rows[0]["student_ids"]) - 4 + len(rows[1]["student_ids"]) - 1
    logits = setting.student()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.detach()
    logits.requires_grad_()
    output = StudentOutput(logits, lambda values: values, (), logits.shape[-1])
    terms = BlackBox()(output, batch, Weights(0.7, 0.3, torch.tensor(batch["host"].targets)))
    chances = logits.detach().log_softmax(-1)
    expected = []
    for index, row in enumerate(rows):
        ids = row["student_ids"]
        expected.append(-sum(float(chances[index, at - 1, ids[at]]) for at in range(row["first_target"], len(ids))))
    assert [terms.soft_sum.item(), terms.hard_sum.item()] == pytest.approx(expected, rel=1e-5)
    terms.loss.backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(-1)
    # Rows 0 to 2 predict tokens of the prompt; row 3 predicts the first of the continuation.
    assert moved[0, :3].max() == 0
    assert moved[0, 3] > 0
    # Each row's gradient is weight · (q − y) / N.
    for index, weight in ((0, 0.7), (1, 0.3)):
        row = 3 if index == 0 else 0
        chance = float(chances[index, row, rows[index]["student_ids"][row + 1]].exp())
        target = rows[index]["student_ids"][row + 1]
        assert float(logits.grad[index, row, target]) == pytest.approx(weight * (chance - 1) / batch["host"].targets)


def test_infinite_gradients_of_fp16_leave_a_line_that_json_can_hold(tmp_path: Path) -> None:
    """The scaler meets them on purpose and skips the step; the loss itself is finite."""

    class Infinite(InOrder):
        def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
            return float("inf")

    logged = Setting("same tokenizer").train(tmp_path, 8, 1, Infinite)["log"]
    assert len(logged) == 4
    assert all("grad_norm" not in line and line["loss"] > 0 for line in logged)


# --- through the whole pipeline --------------------------------------------------------------------------------------


class Pipeline:
    """Tiny models and texts on disk, and runs made of them in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tokenizer = tiny_tokenizer(384)
        self.teacher = save_model_folder(folder / "teacher", tiny_model("gpt2", 384, layers=1, seed=1), tokenizer)
        self.student = save_model_folder(
            folder / "student", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.1), tokenizer
        )
        self.texts = write_texts(folder / "texts.txt", 110, sentences=2)

    def values(self, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        return {
            "teacher_model_path": str(self.teacher), "student_model_path": str(self.student),
            "dataset_path": str(self.texts), "output_dir": str(self.folder / "runs"), "folder_name": name,
            "sample_size": 24, "max_length": 40, "held_out_size": 6, "batch_size": 4, "epochs": 1,
            "checkpoint_interval": 4, "learning_rate": 2e-3, "precision": "fp32", "no_cuda": True,
            "skip_validation": True, "save_plot": False, "control": False, "install_deps": False, "allow_out_of_range": True, **changes,
        }  # fmt: skip

    def run(self, name: str, **changes: Any) -> Path:
        distill_models(**self.values(name, changes), quiet=True)
        return self.folder / "runs" / name

    def command(self, name: str, **changes: Any) -> int:
        words = ["distill", "--quiet"]
        for key, value in self.values(name, changes).items():
            if not isinstance(value, bool):
                words += [flag(key), str(value)]
            elif value or key != "no_cuda":
                words.append(flag(key) if value else flag(key).replace("--", "--no-", 1))
        return cli.main(words)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tmp_path_factory.mktemp("training"))


def weights(run: Path) -> bytes:
    return (run / "student" / "final" / "model.safetensors").read_bytes()


def losses(run: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in read_metrics(run / "metrics.jsonl") if name in line]


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def test_the_seed_decides_everything(pipeline: Pipeline) -> None:
    first, again, other = (pipeline.run(f"seed {seed}", seed=seed % 10) for seed in (3, 13, 4))
    assert weights(first) == weights(again)
    assert losses(first) == losses(again)
    assert weights(first) != weights(other)


@pytest.mark.parametrize("box_type", ["white", "black"])
def test_without_alpha_the_teacher_is_never_loaded(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, box_type: str
) -> None:
    loaded = []

    def load_teacher(self: ModelPair, *arguments: Any, **named: Any) -> nn.Module:
        loaded.append(self.teacher)
        return load_model(self.teacher, dtype=torch.float32, console=Console(quiet=True))

    monkeypatch.setattr(ModelPair, "load_teacher", load_teacher)
    run = pipeline.run(f"alone {box_type}", alpha=0.0, beta=1.0, box_type=box_type)
    assert loaded == []
    assert "teacher_pass" not in json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert set(losses(run, "soft_loss")) == {0.0}
    assert losses(run) == losses(run, "hard_loss")
    assert losses(run)[-1] < losses(run)[0]
    # Where the teacher counts it is loaded, so the above could fail.
    pipeline.run(f"together {box_type}", alpha=0.5, beta=0.5)
    assert len(loaded) == 1


def test_padded_vocabularies(pipeline: Pipeline) -> None:
    """Heads wider than the tokenizer on both sides; what the student gave its columns without tokens it unlearns."""
    tokenizer = tiny_tokenizer(384)
    teacher = save_model_folder(pipeline.folder / "wide_teacher", tiny_model("gpt2", 448, layers=1, seed=1), tokenizer)
    student = save_model_folder(
        pipeline.folder / "wide_student",
        tiny_model("gpt2", 400, layers=1, hidden=16, seed=2, tie_word_embeddings=False),
        tokenizer,
    )
    run = pipeline.run(
        "padded", teacher_model_path=str(teacher), student_model_path=str(student), learning_rate=2e-2, epochs=3
    )
    ids = torch.tensor([tokenizer.encode("In the market there were 23 lamps, and Ada counted every one of them.")])
    with torch.no_grad():
        wasted = [
            float(load(folder)(ids).logits.softmax(-1)[..., 384:].sum(-1).mean())
            for folder in (student, run / "student" / "final")
        ]
    assert wasted[0] > 0.02
    assert wasted[1] < wasted[0] / 4
    assert load(run / "student" / "final").config.vocab_size == 400


@pytest.mark.parametrize("other", ["bpe of another size", "sentencepiece"])
def test_different_tokenizers(pipeline: Pipeline, other: str) -> None:
    folder = pipeline.folder / other
    if other == "sentencepiece":
        pytest.importorskip("sentencepiece")
        tokenizer, width = tiny_sentencepiece_tokenizer(folder), 420
    else:
        tokenizer, width = tiny_tokenizer(290, bos="<s>", eos="</s>"), 290
    save_model_folder(folder, tiny_model("llama", width, layers=1, seed=5, initializer_range=0.2), tokenizer)
    for name, changes in (
        ("its student", {"teacher_model_path": str(folder)}),
        ("its teacher", {"student_model_path": str(folder)}),
    ):
        run = pipeline.run(f"{other} {name}", learning_rate=1e-2, epochs=2, **changes)
        figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        assert figures["alignment"]["rows"] > 500
        assert 0.2 < figures["alignment"]["mass_mapped"] <= 1
        assert all(loss > 0 for loss in losses(run, "soft_loss"))
        assert losses(run)[-1] < losses(run)[0]
        stats = json.loads((run / "data" / "stats.json").read_text(encoding="utf-8"))
        assert stats["same_tokenizer"] is False


def test_a_nan_of_the_teacher_stops_before_the_step(pipeline: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tiny_model("gpt2", 384, layers=1, seed=1)
    with torch.no_grad():
        broken.get_parameter("transformer.ln_f.weight")[3] = float("nan")
    teacher = save_model_folder(pipeline.folder / "broken", broken, tiny_tokenizer(384))
    capfd.readouterr()
    assert pipeline.command("broken", teacher_model_path=str(teacher), checkpoint_interval=1) == 1
    said = capfd.readouterr().err
    assert "the loss became nan at step 1 (learning rate 0.002, training examples " in said
    assert "it is the teacher that gives no numbers" in said
    run = pipeline.folder / "runs" / "broken"
    assert files_below(run / "checkpoints") == []
    assert not (run / "student" / "final").exists()


@pytest.mark.parametrize("interval", [1, 100])
def test_a_student_that_explodes_is_never_committed(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str], interval: int
) -> None:
    """A rate of 1e30: the weights of the first step are finite, and whatever they give is not."""
    name = f"exploded {interval}"
    capfd.readouterr()
    assert pipeline.command(name, learning_rate=1e30, warmup_fraction=0.0, checkpoint_interval=interval) == 1
    said = capfd.readouterr().err
    assert "became nan" in said or "became inf" in said
    assert "at step 2" in said if interval == 100 else "after step 1" in said
    assert "learning rate 1e+30" in said or "learning rate 8.33e+29" in said
    assert "--learning-rate" in said
    assert files_below(pipeline.folder / "runs" / name / "checkpoints") == []


def test_a_nan_in_the_middle_keeps_the_last_good_checkpoint(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continued where nothing is wrong any more, the run is the undisturbed one."""
    reference = pipeline.run("good")
    hidden = LiveTeacher.hidden
    calls = []

    def broken(self: LiveTeacher, batch: Any) -> torch.Tensor:
        calls.append(self)
        return hidden(self, batch) * (float("nan") if len(calls) == 6 else 1.0)

    monkeypatch.setattr(LiveTeacher, "hidden", broken)
    with pytest.raises(DistillkitError, match=r"nan at step 6 .*training examples \d+, \d+, \d+, \d+\)") as caught:
        pipeline.run("bad")
    assert caught.value.exit_code == 1
    run = pipeline.folder / "runs" / "bad"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-4"]
    monkeypatch.undo()
    distill_models(run=run, quiet=True)
    assert weights(run) == weights(reference)
    assert losses(run) == losses(reference)
