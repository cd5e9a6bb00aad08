"""The paper plan of docs/scale.md: a 70 B teacher, 10 B tokens, 64 GPUs. Nothing is run; every number follows from a constant
below, from a format of the program's code, or from a measurement that is named.

    python benchmarks/scale/plan.py                      shows the tables
    python benchmarks/scale/plan.py --write docs/scale.md   puts them between the two comments there
    python benchmarks/scale/plan.py --messages FOLDER    what the program would say on this machine, with made-up free disk and
                                                         GPUs where that is named; two config.json are written to FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillkit.device.precision import choose_compute
from distillkit.dry_run.inputs import count_texts, find_models, teacher_facts
from distillkit.dry_run.time_model import ENCODING_RATE
from distillkit.errors import DistillkitError
from distillkit.models.placement import spread_blocks
from distillkit.models.shape import ModelShape, model_shape
from distillkit.settings.parameters import Parameters
from distillkit.teachers import exact_cache
from distillkit.teachers.choices import Room, choose_placement
from distillkit.teachers.sparse_cache import TOKENS_PER_SHARD, bytes_per_token
from distillkit.training.decisions import decide_teacher

BEGIN, END = "<!-- benchmarks/scale/plan.py -->", "<!-- end -->"
DAY = 86_400

# --- what is planned --------------------------------------------------------------------------------------------------
TOKENS = 10_000_000_000
LENGTH = 2048  # Tokens of a text.
SPARSE_SIZE = 64  # The program's default.
GPUS = 64
GPUS_OF_MACHINE = 8

# --- constants, with their sources ------------------------------------------------------------------------------------
PEAK = 989e12  # bf16 FLOP/s, dense: NVIDIA's data sheet of the H100 SXM5.
GPU_MEMORY = 80e9  # Bytes: the same.
NETWORK = 50e9  # Bytes/s of a GPU to other machines: one InfiniBand NDR port (400 Gbit/s) for each.
DISK = 10e9  # Bytes/s of a shared file system: assumed, a small parallel one.
GPU_HOUR, TB_MONTH = 2.5, 20.0  # US dollars: assumed; multiply by your own.
# Measured here, as shares of the machine's own peak of matrix products (2 cores with AMX; benchmarks/speed/README.md).
TEACHER_SHARE = (0.24, 0.45)  # A teacher pass: SmolLM2-135M at 4 × 128 tokens, gpt2-xl's shape.
AMX_PEAK = 2.1e12
STUDENT_TOKENS, STUDENT_NUMBERS = 1148, 56.6e6  # A second, exact cache, 8 × 256: eight layers of SmolLM2 with its head.

LLAMA = {
    "model_type": "llama", "vocab_size": 128_256, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
}  # fmt: skip
TEACHER = {
    **LLAMA, "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
STUDENT = {
    **LLAMA, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "tie_word_embeddings": True,
}  # fmt: skip


def shape(config: dict[str, Any]) -> ModelShape:
    """Of one of the two models (Llama-3 70 B and 3 B by their published configurations)."""
    found = model_shape(config)
    assert found is not None
    return found


def amount(count: float, unit: str) -> str:
    """`16.4 kB`, `2.56 PB`."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 1000:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:.3g} P{unit}"


def duration(seconds: float) -> str:
    """In hours, or days where there are many."""
    return f"{seconds / 3600:,.1f} h" if seconds < 3 * DAY else f"{seconds / DAY:,.1f} days"


def dollars(count: float) -> str:
    return f"{count:,.0f} $" if count < 10_000 else f"{count / 1000:,.0f},000 $"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def caches(teacher: ModelShape, student: ModelShape) -> list[str]:
    """Bytes of what is kept of the teacher, by kind; what the disk and the network need for one reading of it."""
    sparse = bytes_per_token(SPARSE_SIZE, student.vocabulary)
    kinds = [
        ("whole distributions, fp32 (not a format of the program)", 4 * teacher.vocabulary, 0),
        ("whole distributions, bf16 (not a format of the program)", 2 * teacher.vocabulary, 0),
        ("exact, fp32: hidden states", 4 * teacher.width, exact_cache._SHARD_BYTES // (4 * teacher.width)),
        ("exact, bf16: hidden states", 2 * teacher.width, exact_cache._SHARD_BYTES // (2 * teacher.width)),
        (f"sparse, {SPARSE_SIZE} ids a row, at most", sparse, TOKENS_PER_SHARD),
    ]
    rows = []
    for name, each, shard in kinds:
        whole = each * TOKENS
        files = f"{2 * TOKENS / shard / 1e6:.1f} million" if shard else "–"
        month = dollars(whole / 1e12 * TB_MONTH)
        rows.append([name, amount(each, "B"), amount(whole, "B"), files, duration(whole / DISK), month])
    head = [
        "kept",
        "a token",
        f"{TOKENS / 1e9:.0f} B tokens",
        "files",
        f"read once at {amount(DISK, 'B')}/s",
        "a month",
    ]
    return table(head, rows)


def times(teacher: ModelShape, student: ModelShape) -> list[str]:
    """Of each part: with all GPUs as if it were divided well, and as the program does it."""
    pass_flops = 2 * (teacher.parameters - teacher.embedded) * TOKENS
    slow, fast = (pass_flops / (share * PEAK) for share in TEACHER_SHARE)
    share = 6 * STUDENT_NUMBERS * STUDENT_TOKENS / AMX_PEAK
    head = 2 * teacher.vocabulary * teacher.width
    training = TOKENS * (6 * student.parameters + head) / (share * PEAK)
    encoding = TOKENS / ENCODING_RATE
    rows = [
        ["data: reading, encoding, pairing", duration(encoding / GPUS), duration(encoding), cost(encoding)],
        ["teacher pass", f"{duration(fast / GPUS)} to {duration(slow / GPUS)}", f"{duration(fast)} to {duration(slow)}", cost(fast)],
        [
            "the same by servers, imported", f"{duration(fast / GPUS)} to {duration(slow / GPUS)}",
            f"{duration(fast / GPUS)} to {duration(slow / GPUS)}", cost(fast / GPUS),
        ],
        ["training, an epoch", duration(training / GPUS), duration(training / GPUS), cost(training / GPUS)],
    ]  # fmt: skip
    return [
        *table(
            ["work", f"divided over {GPUS} GPUs", "as the program does it", f"cost of {GPUS} GPUs meanwhile, at least"],
            rows,
        ),
        "",
        f"Shares of the peak: teacher pass {TEACHER_SHARE[0]:.0%} to {TEACHER_SHARE[1]:.0%}, training {share:.0%}.",
    ]


def cost(seconds: float) -> str:
    return dollars(seconds / 3600 * GPUS * GPU_HOUR)


def memory(teacher: ModelShape, student: ModelShape) -> list[str]:
    """Of a GPU: what the models take, before activations."""
    layer = (student.parameters - student.outside) / student.layers
    block = 2 * (teacher.parameters - teacher.outside) // teacher.layers
    room = dict.fromkeys(range(GPUS_OF_MACHINE), int(GPU_MEMORY))
    spread = spread_blocks(teacher.layers, block, 2 * teacher.outside, room)
    assert spread is not None
    rows = [
        ["teacher, bf16, whole", amount(2 * teacher.parameters, "B"), "no"],
        [
            f"teacher over the {GPUS_OF_MACHINE} GPUs of a machine (`--teacher-devices`)",
            f"at most {amount(max(spread.bytes.values()), 'B')}", "yes",
        ],
        ["student, `ddp`: 16 bytes a parameter", amount(16 * student.parameters, "B"), "yes"],
        [
            f"student, `fsdp` over {GPUS}: 16 bytes / {GPUS}, embedding and two layers with their gradients",
            amount(16 * student.parameters / GPUS + 8 * (student.outside + 2 * layer), "B"), "yes",
        ],
        ["process 0's machine for a checkpoint: 12 bytes a parameter", amount(12 * student.parameters, "B"), "–"],
    ]  # fmt: skip
    return table(["what", "bytes", f"fits into {amount(GPU_MEMORY, 'B')}"], rows)


def network(student: ModelShape) -> list[str]:
    """What a step moves."""
    whole = 4 * student.parameters
    rows = [
        ["`ddp`: gradients, there and back", amount(2 * whole, "B"), f"{2 * whole / NETWORK:.2f} s"],
        ["`fsdp`: weights twice, gradients once, fp32", amount(3 * whole, "B"), f"{3 * whole / NETWORK:.2f} s"],
    ]
    return table(["in a step, each GPU", "bytes", f"at {amount(NETWORK, 'B')}/s, not hidden"], rows)


def lines() -> list[str]:
    teacher, student = shape(TEACHER), shape(STUDENT)
    facts = (
        f"Teacher {teacher.parameters / 1e9:.1f} B (width {teacher.width:,}, {teacher.layers} layers, {teacher.vocabulary:,} "
        f"tokens), student {student.parameters / 1e9:.1f} B (width {student.width:,}, {student.layers} layers), the same tokenizer; "
        f"{TOKENS / 1e9:.0f} B tokens in texts of {LENGTH:,}; {GPUS} H100 in machines of {GPUS_OF_MACHINE}."
    )
    parts = (caches, times, memory)
    text = [facts]
    for part in parts:
        text += ["", *part(teacher, student)]
    return [*text, "", *network(student)]


def with_plan(page: str) -> str:
    """A page with the tables as they are now between `BEGIN` and `END`."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return "\n".join([before + BEGIN, *lines(), END]) + after


def messages(folder: Path) -> list[str]:
    """What the plan of the program says of such a run: of the decisions, which need no weights. Nothing is timed."""
    for name, config in (("teacher-70b", TEACHER), ("student-3b", STUDENT)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        architecture = {"architectures": ["LlamaForCausalLM"], **config}
        (folder / name / "config.json").write_text(json.dumps(architecture), encoding="utf-8")
    usual = Parameters(
        teacher_model_path=str(folder / "teacher-70b"), student_model_path=str(folder / "student-3b"), precision="bf16",
        sample_size=TOKENS // LENGTH, max_length=LENGTH, output_dir=str(folder), epochs=2, no_cuda=True,
    )  # fmt: skip
    run = folder / "run"
    models, amounts = find_models(usual, run), count_texts(usual, run)
    facts = teacher_facts(usual, choose_compute(usual), run, models, amounts)
    assert facts is not None
    teacher = shape(TEACHER)
    block = 2 * (teacher.parameters - teacher.outside) // teacher.layers
    gpus = {
        count: Room(dict.fromkeys(range(count), int(GPU_MEMORY)), teacher.layers, block, 2 * teacher.outside)
        for count in (1, GPUS_OF_MACHINE)
    }
    cases: list[tuple[str, dict[str, Any], int, Room | None]] = [
        ("as it comes", {}, facts.free_disk, None),
        ("8 H100, 4 TB of disk", {}, 4 * 10**12, gpus[GPUS_OF_MACHINE]),
        ("8 H100, 4 TB of disk, --teacher-cache exact", {"teacher_cache": "exact"}, 4 * 10**12, gpus[GPUS_OF_MACHINE]),
        ("8 H100, 400 TB of disk", {}, 400 * 10**12, gpus[GPUS_OF_MACHINE]),
        ("one H100, 4 TB of disk", {}, 4 * 10**12, gpus[1]),
    ]
    found = []
    for name, settings, disk, room in cases:
        config = replace(usual, **settings)
        free = facts.memory.free_bytes if room is None else int(GPU_MEMORY)
        own = replace(facts, free_disk=disk, memory=replace(facts.memory, room=room, free_bytes=free))
        try:
            devices, decided = choose_placement(config, own.memory), decide_teacher(config, own)
            said = f"cache {decided.cache.mode}: {decided.cache.why}; block by block {decided.streaming.on}: {decided.streaming.why}"
            said += "" if devices.placement is None else f"; on GPUs {len(devices.placement.blocks)}: {devices.why}"
        except DistillkitError as error:
            said = f"error: {error.message}; hint: {error.hint}"
        found.append(f"{name}: {said}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="a page with the two comments")
    parser.add_argument("--messages", type=Path, help="a folder for two model configurations")
    asked = parser.parse_args()
    if asked.messages is not None:
        print("\n".join(messages(asked.messages)))
    elif asked.write is None:
        print("\n".join(lines()))
    else:
        asked.write.write_text(with_plan(asked.write.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
