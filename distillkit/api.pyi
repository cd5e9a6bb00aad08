# The signature of api.py, rendered from the declaration by `python -m distillkit.api_stub --write`.
# fmt: off

from pathlib import Path
from typing import Any, Literal

from distillkit.run.results import DistillResult

def distill_models(
    *,
    teacher_model: str | Path = "gpt2-xl",
    student_model: str | Path = "arnir0/Tiny-LLM",
    box_type: Literal["white", "black"] = "white",
    teacher_model_path: str | Path | None = None,
    student_model_path: str | Path | None = None,
    dataset: str | Path = "wikitext",
    dataset_path: str | Path | None = None,
    sample_size: int = 1000,
    max_length: int = 256,
    temperature: float = 2.0,
    alpha: float = 0.7,
    beta: float = 0.3,
    epochs: int = 2,
    batch_size: int = 8,
    learning_rate: float = 5e-05,
    no_cuda: bool = False,
    output_dir: str | Path = "./output",
    folder_name: str | None = None,
    checkpoint_interval: int = 50,
    save_metrics: bool = True,
    save_plot: bool = True,
    save_best_model: bool = True,
    skip_validation: bool = False,
    install_deps: bool = True,
    run_tests: bool = False,
    skip_demo: bool = True,
    optimizer: Literal["adamw", "adamw-8bit", "adafactor", "muon"] = "adamw",
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    adapter: Literal["none", "lora"] = "none",
    lora_rank: int = 16,
    lora_alpha: float = 32.0,
    lora_dropout: float = 0.0,
    keep_adapter: bool = False,
    gradient_checkpointing: bool = False,
    max_steps: int | None = None,
    early_stopping_patience: int = 0,
    parallel: Literal["ddp", "fsdp"] = "ddp",
    attn_implementation: Literal["auto", "eager", "sdpa"] = "auto",
    model_kwargs: dict[str, Any] = {},
    report_to: str = "none",
    on_policy_fraction: float = 0.0,
    on_policy_max_new_tokens: int = 64,
    on_policy_temperature: float = 1.0,
    replay_buffer: int = 0,
    replay_fraction: float = 0.5,
    allow_out_of_range: bool = False,
    trust_remote_code: bool = False,
    control: bool | None = None,
    layer_choice: Literal["greedy", "influence", "perplexity", "contiguous", "even"] = "greedy",
    student_start: Literal["fitted", "cut"] = "fitted",
    target_parameters: int | None = None,
    extra_teachers: str | None = None,
    teacher_weights: str | None = None,
    tune_teacher: int = 0,
    temperature_schedule: Literal["constant", "anneal"] = "constant",
    alpha_schedule: Literal["constant", "decay", "tempered"] = "tempered",
    teacher_url: str | None = None,
    teacher_concurrency: int = 8,
    teacher_timeout: float = 600.0,
    mix: str | None = None,
    answers: int = 1,
    teacher_temperature: float = 1.0,
    teacher_top_p: float = 0.95,
    refusals: Literal["keep", "drop"] = "keep",
    cut_answers: Literal["keep", "drop"] = "keep",
    keep_answers: str | None = None,
    reasoning: Literal["keep", "strip"] = "keep",
    text_column: str | None = None,
    data_format: Literal["auto", "text", "messages", "conversations", "prompt-completion", "alpaca", "question-answer"] = "auto",
    system_prompt: str | None = None,
    bad_rows: Literal["skip", "skip-all", "stop"] = "skip",
    encoding: str | None = None,
    csv_delimiter: str | None = None,
    csv_quoting: Literal["auto", "double", "single", "none"] = "auto",
    csv_header: Literal["auto", "present", "absent"] = "auto",
    train_on: Literal["assistant", "all"] = "assistant",
    chat_template: str | Path | None = None,
    special_tokens: Literal["auto", "text", "parse"] = "auto",
    held_out_size: int | None = None,
    seed: int = 42,
    gradient_accumulation: int = 1,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear",
    warmup_fraction: float = 0.05,
    alignment: Literal["auto", "bpm", "strict", "alm", "uld"] = "auto",
    prefix_map: Literal["longest", "canonical"] = "longest",
    divergence: Literal["forward-kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "alpha-beta", "total-variation", "taid"] = "forward-kl",
    divergence_mix: float | None = None,
    ab_alpha: float = 0.2,
    ab_beta: float = 0.7,
    teacher_cache: Literal["auto", "exact", "sparse", "off"] = "auto",
    sparse_method: Literal["sampling", "top-k"] = "sampling",
    sparse_size: int = 64,
    teacher_streaming: Literal["auto", "on", "off"] = "auto",
    teacher_devices: str = "auto",
    teacher_precision: Literal["same", "int8"] = "same",
    compile_loss: Literal["auto", "on", "off"] = "auto",
    threads: int | None = None,
    quality_gate: Literal["improved", "not-worse", "better-than-control", "off"] = "not-worse",
    lm_eval: str | None = None,
    datasets: dict[str, dict[str, Any]] = {},
    preset: str | None = None,
    config: str | Path | None = None,
    run: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> DistillResult:
    """
    Distil a teacher into a student: prepare the data, train, validate, and as asked demo and plot.

    Only what is given counts as given: precedence is preset < config file < environment < argument.

    Args:
        teacher_model: the large model whose knowledge is passed on
        student_model: the small model that is trained
        box_type: what is learnt from: the teacher's probabilities (white) or only its texts (black)
        teacher_model_path: folder or .gguf file with a teacher saved on this computer; wins over teacher_model
        student_model_path: folder or .gguf file with a student saved on this computer; wins over student_model
        dataset: which texts to train on: wikitext, pokemon, python-docs, python-chat, a file, a folder or a Hub id
        dataset_path: file or folder with your own texts; wins over dataset
        sample_size: number of examples to train on
        max_length: longest example, in tokens of the student
        temperature: softens the probabilities of teacher and student before they are compared
        alpha: weight of the teacher in the loss (soft targets); alpha + beta = 1
        beta: weight of the true text in the loss (hard targets); alpha + beta = 1
        epochs: how many times the training goes through all examples
        batch_size: how many examples are processed at once
        learning_rate: how far each step moves the weights, at its peak
        no_cuda: compute on the CPU even where there is a GPU
        output_dir: folder in which every run gets a folder of its own
        folder_name: name of this run's folder inside output_dir
        checkpoint_interval: steps between checkpoints; the held-out score is measured as often
        save_metrics: write the training figures as JSON: metrics.jsonl and metrics.json
        save_plot: draw the curves of the training and the comparison with the teacher
        save_best_model: keep the student with the best held-out score, not only the last one
        skip_validation: skip the check that the student improved: faster, no quality control
        install_deps: install the libraries that this configuration needs and lacks
        run_tests: run the self-tests before distilling
        skip_demo: do not show at the end what the models write
        optimizer: how gradients become steps
        weight_decay: how fast weights are pulled towards zero
        max_grad_norm: the norm to which the gradient of a step is clipped
        adapter: whether an adapter is trained in place of all weights
        lora_rank: the rank of the matrices of a LoRA adapter (peft: `r`)
        lora_alpha: the scale of a LoRA adapter (peft: `lora_alpha`)
        lora_dropout: the share of inputs that an adapter does not see in a step (peft: `lora_dropout`)
        keep_adapter: whether the student is written as an adapter instead of merged weights
        gradient_checkpointing: whether the student's layers are computed a second time in the backward pass instead of kept
        max_steps: optimizer steps of the training, instead of `epochs`
        early_stopping_patience: held-out scores in a row without a new best one after which the training ends; 0: never
        parallel: what each of several processes has of the student
        attn_implementation: the code that computes attention in both models
        model_kwargs: more arguments for `from_pretrained` of both models; in configuration files and Python only
        report_to: the trackers that are told how the training goes, with commas between them
        on_policy_fraction: the share of the steps in which the student learns from texts that it writes itself; 0: none
        on_policy_max_new_tokens: how many tokens the student writes at most for each text of an on-policy step
        on_policy_temperature: the temperature at which the student draws these texts
        replay_buffer: how many texts of the student's are kept to be learnt from again; 0: none
        replay_fraction: the share of the on-policy steps that take their texts from the replay buffer
        allow_out_of_range: accept values outside the documented ranges
        trust_remote_code: run the Python code that a model's repository brings along
        control: whether the same student is also trained without the teacher, to see what the teacher was worth
        layer_choice: how the layers that a student `teacher:N` keeps are chosen
        student_start: whether what a cut student keeps is fitted to the teacher before the training
        target_parameters: how many parameters the student `teacher:auto` may have at most
        extra_teachers: more teachers besides `teacher_model`, with commas between them
        teacher_weights: what each of several teachers counts, with commas between: `teacher_model` first
        tune_teacher: for how many steps the teacher is trained on the texts before it teaches
        temperature_schedule: how the temperature changes over the training
        alpha_schedule: how the weight of the teacher changes over the training
        teacher_url: address of the server of a teacher openai:MODEL
        teacher_concurrency: how many requests the server of a teacher is sent at once
        teacher_timeout: seconds that the server of a teacher has for one reply
        mix: several sources of texts instead of one, each with a weight
        answers: how many answers of the teacher to each prompt
        teacher_temperature: temperature at which the teacher writes
        teacher_top_p: share of probability that the teacher's tokens are drawn from
        refusals: what becomes of answers that only refuse: `keep` or `drop`
        cut_answers: what becomes of answers that were cut off by their length: `keep` or `drop`
        keep_answers: which answers are kept: `re:PATTERN`, found in them, or `run:COMMAND`, a program that judges
        reasoning: whether the `<think>…</think>` at the beginning of answers is kept or stripped
        text_column: the column (or JSON key) that holds the text
        data_format: what the rows of the data are: texts, or conversations and how these are written
        system_prompt: what the system says in conversations in which it says nothing
        bad_rows: what happens to rows without a usable text (null, empty, only a number) or conversation
        encoding: the encoding of the data files, by a name that Python knows
        csv_delimiter: the character between the cells of a CSV file; `tab` for a tab
        csv_quoting: which marks quote the cells of CSV and TSV files
        csv_header: whether the first row of CSV and TSV files names the columns
        train_on: which turns of conversations are trained on and scored: the `assistant`'s, or `all`
        chat_template: file with the chat template (Jinja) for a model that has none
        special_tokens: names of special tokens in a text are its characters (`text`) or the tokens (`parse`)
        held_out_size: number of examples in each of the two held-out parts, validation and test
        seed: start of all random choices
        gradient_accumulation: micro-batches per optimizer step
        precision: number format of the computation
        lr_schedule: how the learning rate changes over the run
        warmup_fraction: share of all steps over which the learning rate rises to its peak
        alignment: how the teacher's distributions are related to the student's tokens
        prefix_map: which of the student's tokens stands for a token of the teacher, with alignment bpm
        divergence: what measures the difference between teacher and student
        divergence_mix: how teacher and student are mixed in jsd, skew-kl and skew-reverse-kl
        ab_alpha: the first exponent of the alpha-beta divergence
        ab_beta: the second exponent of the alpha-beta divergence
        teacher_cache: whether the teacher reads the training texts only once
        sparse_method: what the sparse teacher cache keeps of a distribution
        sparse_size: the draws for each row of the sparse teacher cache, or with `top-k` the ids that are kept
        teacher_streaming: whether the teacher's blocks are in memory one at a time
        teacher_devices: the GPUs of this machine that the teacher's blocks are spread over
        teacher_precision: whether the teacher computes in int8
        compile_loss: whether the element-wise part of the loss is compiled for this machine
        threads: threads that compute on the processor
        quality_gate: when validate fails with exit code 4
        lm_eval: tasks of lm-evaluation-harness that `validate` runs, by name or as YAML files, separated by commas
        datasets: your own names for data sets on the Hub; in configuration files and Python only
        preset: name of a preset to start from.
        config: a YAML file of parameters.
        run: an existing run directory to continue.
        force: redo what is complete already.
        quiet: print nothing but warnings.

    Returns:
        The run directory, the student's path, the figures before and after, and the verdict.

    Raises:
        UsageError: a parameter is unknown, of the wrong type, out of range or in conflict with another.
        PreconditionError: a model, a file, the hub or an earlier result is missing or not what it was.
        QualityGateError: the student did not pass `quality_gate`; its `result` attribute has the figures.
        DistillkitError: anything else that went wrong while running; the run can be continued with `run=`.
    """
    ...
