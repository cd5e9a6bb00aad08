"""Every parameter, declared once.

The Python signature, the command line options, the environment variables, the preset and configuration keys, the
checks of values, the tables and the reference pages are all derived from the fields of `Parameters`;
`tests/unit/settings/test_parameters_agree.py` proves that they agree. To add a parameter, write its field here (the promised
ones are in `core_parameters.py`, the knobs of the training in `training_parameters.py`, those of on-policy batches in `on_policy_parameters.py`) and its texts in `help_texts/`, then have the reference pages and the signature for editors written again:
`python -m distillkit.cli.parameter_pages --write docs` and `python -m distillkit.api_stub --write`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distillkit import registry
from distillkit.settings import conditions
from distillkit.settings.facts import (
    INNER_SHARE,
    NOT_NEGATIVE,
    PART,
    POSITIVE,
    SEED,
    SHARE,
    at_least,
    parameter,
)
from distillkit.settings.on_policy_parameters import OnPolicyParameters

Precision = Literal["auto", "fp32", "bf16", "fp16"]
LearningRateSchedule = Literal["linear", "cosine", "constant"]
QualityGate = Literal["improved", "not-worse", "better-than-control", "off"]
PrefixMap = Literal["longest", "canonical"]
TeacherStreaming = Literal["auto", "on", "off"]
TeacherPrecision = Literal["same", "int8"]
SparseMethod = Literal["sampling", "top-k"]
CompileMode = Literal["auto", "on", "off"]
DataFormat = Literal["auto", "text", "messages", "conversations", "prompt-completion", "alpaca", "question-answer"]
BadRowPolicy = Literal["skip", "skip-all", "stop"]
CsvQuoting = Literal["auto", "double", "single", "none"]
CsvHeader = Literal["auto", "present", "absent"]
SpecialTokens = Literal["auto", "text", "parse"]
TrainOn = Literal["assistant", "all"]
AnswerPolicy = Literal["keep", "drop"]
ReasoningPolicy = Literal["keep", "strip"]
LayerChoice = Literal["greedy", "influence", "perplexity", "contiguous", "even"]
StudentStart = Literal["fitted", "cut"]
TemperatureSchedule = Literal["constant", "anneal"]
AlphaSchedule = Literal["constant", "decay", "tempered"]


@dataclass(frozen=True, kw_only=True)
class Parameters(OnPolicyParameters):
    """The configuration of one run: the core parameters of `distill_models()`, then the advanced ones."""

    allow_out_of_range: bool = parameter(False, "advanced", topic="limits")
    trust_remote_code: bool = parameter(False, "advanced", topic="limits")
    control: bool | None = parameter(None, "advanced", topic="measuring")
    layer_choice: LayerChoice = parameter(
        "greedy", "advanced", topic="student", affects="prepare-data", used_by=conditions.MEASURED_LAYERS
    )
    student_start: StudentStart = parameter(
        "fitted", "advanced", topic="student", affects="prepare-data", used_by=conditions.CUT_STUDENT
    )
    target_parameters: int | None = parameter(
        None,
        "advanced",
        topic="student",
        low=100_000,
        high=100_000_000_000,
        possible=at_least(1),
        affects="prepare-data",
        used_by=conditions.AUTOMATIC_CUT,
        is_large=True,
        examples=("60M", "1.5B"),
    )
    extra_teachers: str | None = parameter(
        None,
        "advanced",
        topic="teacher",
        affects="prepare-data",
        used_by=conditions.TEACHER_IN_WHITE_BOX,
        examples=("gpt2-medium", "./other-teacher,gpt2-large"),
    )
    teacher_weights: str | None = parameter(
        None,
        "advanced",
        topic="teacher",
        affects="distill",
        used_by=conditions.SEVERAL_TEACHERS,
        examples=("0.7,0.3", "2,1,1"),
    )
    tune_teacher: int = parameter(
        0,
        "advanced",
        topic="teacher",
        low=0,
        high=10_000,
        possible=NOT_NEGATIVE,
        affects="distill",
        used_by=conditions.TEACHER_IN_WHITE_BOX,
        examples=("100",),
    )
    temperature_schedule: TemperatureSchedule = parameter(
        "constant", "advanced", topic="loss", affects="distill", used_by=conditions.FALLING_TEMPERATURE
    )
    alpha_schedule: AlphaSchedule = parameter(
        "tempered", "advanced", topic="loss", affects="distill", used_by=conditions.SCHEDULED_ALPHA
    )
    teacher_url: str | None = parameter(
        None, "advanced", topic="server", used_by=conditions.SERVED_TEACHER, examples=("http://127.0.0.1:8000/v1",)
    )
    teacher_concurrency: int = parameter(
        8,
        "advanced",
        topic="server",
        low=1,
        high=256,
        possible=at_least(1),
        used_by=conditions.SERVED_TEACHER,
        examples=("1", "64"),
    )
    teacher_timeout: float = parameter(
        600.0,
        "advanced",
        topic="server",
        low=1.0,
        high=86_400.0,
        possible=POSITIVE,
        used_by=conditions.SERVED_TEACHER,
        examples=("60", "3600"),
    )
    mix: str | None = parameter(
        None,
        "advanced",
        topic="texts",
        affects="prepare-data",
        examples=("wikitext:0.7,./mine.jsonl:0.3", "python-docs:1,owner/texts:2"),
    )
    answers: int = parameter(
        1,
        "advanced",
        topic="answers",
        low=1,
        high=64,
        possible=at_least(1),
        affects="distill",
        used_by=conditions.TEACHER_WRITES,
        examples=("4",),
    )
    teacher_temperature: float = parameter(
        1.0,
        "advanced",
        topic="answers",
        low=0.0,
        high=2.0,
        possible=NOT_NEGATIVE,
        affects="distill",
        used_by=conditions.TEACHER_WRITES,
        examples=("0", "0.7"),
    )
    teacher_top_p: float = parameter(
        0.95,
        "advanced",
        topic="answers",
        low=0.1,
        high=1.0,
        possible=PART,
        affects="distill",
        used_by=conditions.TEACHER_WRITES,
        examples=("0.8", "1.0"),
    )
    refusals: AnswerPolicy = parameter(
        "keep", "advanced", topic="answers", affects="distill", used_by=conditions.TEACHER_WRITES
    )
    cut_answers: AnswerPolicy = parameter(
        "keep", "advanced", topic="answers", affects="distill", used_by=conditions.TEACHER_WRITES
    )
    keep_answers: str | None = parameter(
        None,
        "advanced",
        topic="answers",
        affects="distill",
        used_by=conditions.TEACHER_WRITES,
        examples=(r"re:\d", "run:python keep.py"),
    )
    reasoning: ReasoningPolicy = parameter("keep", "advanced", topic="chat", affects="prepare-data")
    text_column: str | None = parameter(
        None, "advanced", topic="texts", affects="prepare-data", examples=("text", "body")
    )
    data_format: DataFormat = parameter("auto", "advanced", topic="texts", affects="prepare-data")
    system_prompt: str | None = parameter(
        None,
        "advanced",
        topic="chat",
        affects="prepare-data",
        may_be_blank=True,
        examples=("You are a helpful assistant.",),
    )
    bad_rows: BadRowPolicy = parameter("skip", "advanced", topic="texts", affects="prepare-data")
    encoding: str | None = parameter(
        None, "advanced", topic="texts", affects="prepare-data", examples=("cp1252", "utf-16", "gb18030")
    )
    csv_delimiter: str | None = parameter(
        None, "advanced", topic="texts", affects="prepare-data", may_be_blank=True, examples=(";", "|", "tab")
    )
    csv_quoting: CsvQuoting = parameter("auto", "advanced", topic="texts", affects="prepare-data")
    csv_header: CsvHeader = parameter("auto", "advanced", topic="texts", affects="prepare-data")
    train_on: TrainOn = parameter("assistant", "advanced", topic="chat", affects="prepare-data")
    chat_template: str | None = parameter(
        None, "advanced", topic="chat", affects="prepare-data", takes_path=True, examples=("./chat_template.jinja",)
    )
    special_tokens: SpecialTokens = parameter("auto", "advanced", topic="texts", affects="prepare-data")
    held_out_size: int | None = parameter(
        None,
        "advanced",
        topic="measuring",
        low=20,
        high=10_000,
        possible=at_least(1),
        affects="prepare-data",
        examples=("200",),
    )
    seed: int = parameter(
        42,
        "advanced",
        topic="course",
        low=0,
        high=2**31 - 1,
        possible=SEED,
        affects="prepare-data",
        examples=("1", "1234"),
    )
    gradient_accumulation: int = parameter(
        1, "advanced", topic="course", low=1, high=1024, possible=at_least(1), affects="distill", examples=("4",)
    )
    precision: Precision = parameter("auto", "advanced", topic="machine", affects="distill")
    lr_schedule: LearningRateSchedule = parameter("linear", "advanced", topic="course", affects="distill")
    warmup_fraction: float = parameter(
        0.05, "advanced", topic="course", low=0.0, high=0.5, possible=SHARE, affects="distill", examples=("0.1",)
    )
    alignment: str = parameter(
        "auto",
        "advanced",
        topic="loss",
        choices=registry.AutoOr(registry.ALIGNMENTS),
        affects="distill",
        used_by=conditions.WHITE_BOX,
        on_command_line=False,
    )
    prefix_map: PrefixMap = parameter(
        "longest", "advanced", topic="loss", affects="distill", used_by=conditions.BYTE_PREFIXES
    )
    divergence: str = parameter(
        "forward-kl",
        "advanced",
        topic="loss",
        choices=registry.DIVERGENCES,
        affects="distill",
        used_by=conditions.CHOSEN_DIVERGENCE,
    )
    divergence_mix: float | None = parameter(
        None,
        "advanced",
        topic="loss",
        low=0.01,
        high=0.99,
        possible=INNER_SHARE,
        affects="distill",
        used_by=conditions.MIXTURE,
        on_command_line=False,
        examples=("0.1", "0.5"),
    )
    ab_alpha: float = parameter(
        0.2,
        "advanced",
        topic="loss",
        low=0.05,
        high=2.0,
        possible=NOT_NEGATIVE,
        affects="distill",
        used_by=conditions.EXPONENTS,
        on_command_line=False,
        examples=("0.5",),
    )
    ab_beta: float = parameter(
        0.7,
        "advanced",
        topic="loss",
        low=0.05,
        high=2.0,
        possible=NOT_NEGATIVE,
        affects="distill",
        used_by=conditions.EXPONENTS,
        on_command_line=False,
        examples=("0.5",),
    )
    teacher_cache: str = parameter(
        "auto", "advanced", topic="teacher", choices=registry.AutoOr(registry.TEACHER_SOURCES), affects="distill"
    )
    sparse_method: SparseMethod = parameter(
        "sampling",
        "advanced",
        topic="teacher",
        affects="distill",
        used_by=conditions.SPARSE_TARGETS,
        on_command_line=False,
    )
    sparse_size: int = parameter(
        64,
        "advanced",
        topic="teacher",
        low=8,
        high=1024,
        possible=at_least(1),
        affects="distill",
        used_by=conditions.SPARSE_TARGETS,
        on_command_line=False,
        examples=("32", "128"),
    )
    teacher_streaming: TeacherStreaming = parameter(
        "auto", "advanced", topic="teacher", affects="distill", used_by=conditions.WHITE_BOX
    )
    teacher_devices: str = parameter("auto", "advanced", topic="teacher", examples=("all", "0,1"))
    teacher_precision: TeacherPrecision = parameter(
        "same", "advanced", topic="teacher", affects="distill", used_by=conditions.WHITE_BOX
    )
    compile_loss: CompileMode = parameter("auto", "advanced", topic="machine", affects="distill", on_command_line=False)
    threads: int | None = parameter(
        None, "advanced", topic="machine", low=1, high=1024, possible=at_least(1), examples=("1", "8")
    )
    quality_gate: QualityGate = parameter("not-worse", "advanced", topic="measuring", affects="validate")
    lm_eval: str | None = parameter(
        None, "advanced", topic="measuring", affects="validate", examples=("hellaswag,arc_easy", "./mine.yaml")
    )
    datasets: dict[str, dict[str, Any]] = parameter(
        {}, "advanced", topic="texts", affects="prepare-data", on_command_line=False
    )
