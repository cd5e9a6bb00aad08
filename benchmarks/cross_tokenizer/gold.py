"""TRL's GOLD trainer on the same pair: same teacher, first weights, texts, batch size, steps and learning rate.

TRL brings its own versions of everything, so the three steps run in two environments:

    python gold.py texts --texts TEXT... --work FOLDER --seed 1                # distillkit's environment
    trl-environment/bin/python gold.py train --work FOLDER --seed 1 [--positional]
    python gold.py score --texts TEXT... --work FOLDER --seed 1 --results results.jsonl [--positional]

GOLD is trained as its documentation says for different tokenizers: its ULD loss with the hybrid (matched tokens by
divergence, the rest sorted), byte-offset alignment unless `--positional`, half of the weight on the true tokens as in
the best runs of `experiment.py`, no generation by the student.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

STUDENTS = ("tiny-llm", "four-layer")
STEPS, BATCH, MAX_LENGTH, LEARNING_RATE = 50, 8, 128, 1e-3


def name_of(arguments: argparse.Namespace) -> str:
    return "TRL GOLD, by position" if arguments.positional else "TRL GOLD, by byte offsets"


def out_folder(arguments: argparse.Namespace, shape: str) -> Path:
    kind = "positional" if arguments.positional else "aligned"
    return arguments.work / f"gold-{kind}-{shape}-{arguments.seed}"


def examples_of(arguments: argparse.Namespace) -> tuple[Any, list[Any], list[Any]]:
    from experiment import HELD_OUT
    from pair import sentencepiece_folder, teacher_folder
    from transformers import AutoTokenizer

    from distillkit.console import Console
    from distillkit.data.example_builder import ExampleBuilder
    from distillkit.data.sources import load_documents
    from distillkit.data.splitting import split_documents
    from distillkit.data.text_encoder import make_text_encoder
    from distillkit.settings.parameters import Parameters

    config = Parameters(
        dataset_path=str(arguments.texts), sample_size=STEPS * BATCH, max_length=MAX_LENGTH, seed=arguments.seed,
        held_out_size=HELD_OUT, no_cuda=True,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(sentencepiece_folder(arguments.work / "sentencepiece"))
    teacher = AutoTokenizer.from_pretrained(teacher_folder(arguments.work / "teacher"))
    encoder = make_text_encoder(tokenizer, 1024, MAX_LENGTH, needs_bytes=True)
    documents = split_documents(
        load_documents(config, Console(quiet=True)), seed=arguments.seed, max_length=MAX_LENGTH, held_out_size=HELD_OUT
    )
    other = make_text_encoder(teacher, 8192, 8192, needs_bytes=True)
    builder = ExampleBuilder(encoder, other, align=True, seed=arguments.seed)
    train = list(builder.build(documents.train, STEPS * BATCH))
    return encoder, train, list(builder.build(documents.test, HELD_OUT))


def texts(arguments: argparse.Namespace) -> None:
    encoder, train, _ = examples_of(arguments)
    lines = []
    for example in train:
        inside = [index for index in example.student_ids if index not in encoder.table.specials]
        spelled = b"".join(encoder.table.pieces[index] for index in inside).removeprefix(b" ")
        lines.append(json.dumps({"text": spelled.decode(errors="ignore")}, ensure_ascii=False))
    (arguments.work / f"gold-texts-{arguments.seed}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(arguments: argparse.Namespace) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gold import GOLDConfig, GOLDTrainer

    text = (arguments.work / f"gold-texts-{arguments.seed}.jsonl").read_text(encoding="utf-8")
    # GOLD wants a prompt, which it does not train on: the first word.
    words = [json.loads(line)["text"].partition(" ") for line in text.splitlines()]
    rows = [{"prompt": first, "completion": space + rest} for first, space, rest in words]
    for shape in arguments.students:
        torch.manual_seed(arguments.seed)
        tokenizer = AutoTokenizer.from_pretrained(arguments.work / "sentencepiece")
        tokenizer.pad_token = tokenizer.unk_token
        teacher_folder = str(arguments.work / "teacher")
        config = GOLDConfig(
            output_dir=str(out_folder(arguments, shape) / "trainer"), per_device_train_batch_size=BATCH,
            max_steps=STEPS, learning_rate=LEARNING_RATE, warmup_steps=round(0.05 * STEPS), lr_scheduler_type="linear",
            weight_decay=0.0, max_length=2 * MAX_LENGTH, lmbda=0.0, use_uld_loss=True, bf16=True, use_cpu=True,
            use_extended_uld=not arguments.positional, uld_use_hybrid_loss=not arguments.positional,
            uld_crossentropy_weight=0.5, uld_distillation_weight=0.5, teacher_tokenizer_name_or_path=teacher_folder,
            uld_skip_student_eos=False, uld_skip_teacher_eos=False, report_to=[], save_strategy="no", seed=arguments.seed,
            gradient_checkpointing=False, logging_steps=10, max_completion_length=16,
        )  # fmt: skip
        trainer = GOLDTrainer(
            model=AutoModelForCausalLM.from_pretrained(arguments.work / f"{shape}-{arguments.seed}"),
            teacher_model=AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.bfloat16),
            args=config, processing_class=tokenizer, train_dataset=Dataset.from_list(rows),
        )  # fmt: skip
        began = time.monotonic()
        trainer.train()
        folder = out_folder(arguments, shape)
        trainer.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "seconds.json").write_text(json.dumps(time.monotonic() - began), encoding="utf-8")


def score_students(arguments: argparse.Namespace) -> None:
    import torch
    from experiment import emit, held_out_scores, line_of
    from transformers import AutoModelForCausalLM

    from distillkit.device.precision import choose_compute
    from distillkit.settings.parameters import Parameters

    encoder, _, test = examples_of(arguments)
    autocast = choose_compute(Parameters(no_cuda=True)).autocast
    for shape in arguments.students:
        folder = out_folder(arguments, shape)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        scores = held_out_scores(model, test, encoder, "student", autocast)
        seconds = round(json.loads((folder / "seconds.json").read_text(encoding="utf-8")), 1)
        emit(
            arguments,
            line_of(
                scores, seed=arguments.seed, student=shape, method=name_of(arguments), steps=STEPS, tokens=0,
                seconds=seconds,
            ),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("texts", "train", "score"))
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--experiment", default="main")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--positional", action="store_true", help="pair tokens by their number, not by their bytes")
    arguments = parser.parse_args()
    {"texts": texts, "train": train, "score": score_students}[arguments.step](arguments)


if __name__ == "__main__":
    main()
