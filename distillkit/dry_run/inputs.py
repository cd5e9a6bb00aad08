"""What a plan goes by: the models as far as they are on this machine, the texts as far as they are prepared."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.first_look import FirstLook, Known
from distillkit.data.splitting import held_out_examples
from distillkit.data.standard_sets import PYTHON_CHAT
from distillkit.data.training_rows import white_box_rows
from distillkit.device.memory import free_memory_bytes
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError
from distillkit.evaluation.stopping import QUESTIONS
from distillkit.models.adapters import read_adapter
from distillkit.models.cut_shape import cut_shape
from distillkit.models.gguf import cached_conversion
from distillkit.models.load_options import load_options
from distillkit.models.located import LocatedModel
from distillkit.models.quantised import quantisation
from distillkit.models.references import ModelReference, parse_student_reference, parse_teacher_reference
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.shape import ModelShape, model_shape
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import START, ModelPair, settled_reference
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_hub
from distillkit.storage import free_disk_bytes, read_json
from distillkit.teachers.blocks import streaming_problem
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.choices import TeacherFacts, TeacherMemory
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.sparse_cache import bytes_per_token
from distillkit.teachers.spread import with_room
from distillkit.training.decisions import TuningFacts, tunes_teacher
from distillkit.training.inputs import planned_loader
from distillkit.training.teacher_tuning import TeacherTuning


@dataclass(frozen=True)
class PlannedModels:
    """Teacher and student of a plan; None for what is not on this machine, or cannot be told from its configuration.

    Attributes:
        teacher, student: where they lie; a Hub model may be there with its configuration only.
        teacher_shape, student_shape: their sizes.
    """

    teacher: LocatedModel | None
    student: LocatedModel | None
    teacher_shape: ModelShape | None
    student_shape: ModelShape | None


@dataclass(frozen=True)
class Amounts:
    """What is to be read.

    Attributes:
        examples: training texts.
        student_tokens, teacher_tokens: of the training texts, once.
        student_inputs: the same with start and end tokens: the rows of the student's head in an epoch.
        held_out_tokens: of the validation part, and of the test part.
        length: the longest text in tokens.
        exact: counted; else every text is taken to be full.
        known: how much of the texts has been read.
        questions: that each model answers in validation at most; 0 where the texts are not known to be conversations.
    """

    examples: int
    student_tokens: int
    teacher_tokens: int
    student_inputs: int
    held_out_tokens: int
    length: int
    exact: bool
    questions: int = 0
    known: Known = "not looked at"


def find_models(config: Parameters, folder: Path) -> PlannedModels:
    """The models of a configuration, from where they cost next to nothing: no weights are downloaded or converted.

    Args:
        folder: the run directory, which need not be there; in it may lie the start of a student that is cut from the teacher.
    """
    teacher_reference, student_reference = parse_teacher_reference(config), parse_student_reference(config)
    teacher = find_model(teacher_reference, config, "teacher")
    teacher_shape = shape_of(teacher)
    student_reference = _settled(student_reference, folder / "data" / "models.json")
    if student_reference.kind == "pruned-teacher":
        options = load_options(config, "student")
        student = LocatedModel(student_reference, teacher.folder, options=options) if teacher is not None else None
        shape = _shape_in(folder / "data" / START)
        if shape is None and teacher_shape is not None:
            shape = cut_shape(teacher_shape.config, student_reference)
        return PlannedModels(teacher, student, teacher_shape, shape)
    student = find_model(student_reference, config, "student")
    return PlannedModels(teacher, student, teacher_shape, shape_of(student))


def _settled(reference: ModelReference, record: Path) -> ModelReference:
    """`teacher:auto` as the shape that was chosen, where that has been done."""
    with contextlib.suppress(DistillkitError, OSError, ValueError, KeyError, TypeError):
        return settled_reference(reference, str(read_json(record)["student"]["reference"]))
    return reference


def shape_of(located: LocatedModel | None) -> ModelShape | None:
    """The size of a model; None where it is not known."""
    return None if located is None else _shape_in(located.folder)


def _shape_in(folder: Path) -> ModelShape | None:
    with contextlib.suppress(OSError, ValueError):
        config: Any = read_json(folder / "config.json")
        return model_shape(config) if isinstance(config, dict) else None
    return None


def find_model(reference: ModelReference, config: Parameters, role: str) -> LocatedModel | None:
    """A model, from where it costs next to nothing; None where it is not on this machine."""
    folder: Path | None = None
    if reference.kind == "folder":
        folder = reference.path
    elif reference.kind in ("gguf", "wheel"):
        folder = cached_conversion(reference)
    elif reference.repo_id is not None:
        folder = _hub_config(reference.repo_id, reference.revision)
    elif reference.kind == "adapter" and reference.path is not None:
        # Of the size of the model that it is for; added to it, it may not be there yet.
        base = find_model(read_adapter(reference.path).base, config, role)
        folder = None if base is None else base.folder
    return LocatedModel(reference, folder, options=load_options(config, role)) if folder is not None else None


def _hub_config(repo_id: str, revision: str | None) -> Path | None:
    """The folder of a Hub model's config.json: a few hundred bytes, from the cache or the Hub."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        return Path(hf_hub_download(repo_id, "config.json", revision=revision, local_files_only=True)).parent
    except OSError:
        pass  # not in the cache
    with silence_hub():
        try:
            # One short request first: the library's own retries would take most of a minute without a network.
            HfApi().model_info(repo_id, revision=revision, timeout=5)
            return Path(hf_hub_download(repo_id, "config.json", revision=revision, etag_timeout=5)).parent
        except Exception:
            # Not on the Hub, gated, no network, in whatever words the HTTP client has for it: the plan says
            # "unknown", the run itself says why.
            return None


def makes_start(config: Parameters, models: PlannedModels, folder: Path) -> bool:
    """Whether preparing the data will write a start for the student (`--student-start`)."""
    teacher, student = models.teacher_shape, models.student_shape
    reference = parse_student_reference(config)
    if teacher is None or student is None or (folder / "data" / START).exists():
        return False
    fitted = reference.kind == "pruned-teacher" and config.student_start == "fitted" and student.layers < teacher.layers
    return fitted or reference.width is not None


# --- the texts -------------------------------------------------------------------------------------------------------


def count_texts(config: Parameters, folder: Path, look: FirstLook | None = None) -> Amounts:
    """Tokens of the texts of the run in `folder`: counted if they are prepared.

    Args:
        look: what is known of texts that are not; None where they were not looked at.
    """
    try:
        prepared = read_json(folder / "data" / "stats.json")
        train, test = prepared["splits"]["train"], prepared["splits"]["test"]
        lengths = stored_rows(load_examples(folder / "data" / "train")).lengths("student_ids").tolist()
        return Amounts(
            examples=len(lengths),
            student_tokens=int(train["student_tokens"]),
            teacher_tokens=int(train["teacher_tokens"]),
            student_inputs=sum(lengths),
            held_out_tokens=int(test["student_tokens"]),
            length=max(lengths),
            exact=True,
            questions=QUESTIONS if prepared.get("conversations") is not None else 0,
            known="prepared",
        )
    except (OSError, ValueError, KeyError, TypeError):
        look = look or FirstLook(config.sample_size, "not looked at")
        full = look.examples * config.max_length
        held_out = held_out_examples(config)
        return Amounts(
            examples=look.examples,
            student_tokens=full,
            teacher_tokens=full,
            student_inputs=full,
            held_out_tokens=(min(held_out, look.examples) if look.known == "counted" else held_out) * config.max_length,
            length=config.max_length,
            exact=False,
            known=look.known,
            questions=QUESTIONS if config.dataset_path is None and config.dataset == PYTHON_CHAT else 0,
        )


# --- what the teacher's choices depend on ----------------------------------------------------------------------------


def teacher_facts(
    config: Parameters, compute: Compute, folder: Path, models: PlannedModels, amounts: Amounts
) -> TeacherFacts | None:
    """The facts that the run itself will gather, where its data are prepared; else with every text taken to be full, and
    no cache begun. None where the teacher's size is not known."""
    shape = models.teacher_shape
    if shape is None:
        return None
    if amounts.exact and (context := planned_context(config, compute, folder, models)) is not None:
        return _planned_loader(context, folder)[0].facts()
    itemsize = compute.teacher.itemsize
    vocabulary = models.student_shape.vocabulary if models.student_shape is not None else shape.vocabulary
    exact = amounts.teacher_tokens * shape.width * itemsize
    memory = TeacherMemory(
        name=config.teacher_model_path or config.teacher_model,
        weight_bytes=shape.parameters * itemsize,
        free_bytes=free_memory_bytes(compute.device),
        streaming_problem=streaming_problem(shape.config),
    )
    return TeacherFacts(
        memory=with_room(memory, config, shape, compute),
        place=str(folder.parent),
        tokens=amounts.teacher_tokens,
        free_disk=free_disk_bytes(folder.parent / FOLDER),
        # Where only the weights would tell, most heads are.
        head_is_plain=shape.head_is_plain is not False,
        begun=False,
        exact_bytes=exact,
        exact_missing_bytes=exact,
        streaming_bytes=2 * amounts.teacher_tokens * max(shape.width, shape.inner_width) * itemsize,
        sparse_missing_bytes=amounts.student_inputs * bytes_per_token(config.sparse_size, vocabulary),
    )


def tuning_facts(
    config: Parameters, compute: Compute, folder: Path, models: PlannedModels, amounts: Amounts
) -> TuningFacts | None:
    """What the run itself will ask before it tunes the teacher; None where it does not, or where the size is not known."""
    shape = models.teacher_shape
    if shape is None or not tunes_teacher(config):
        return None
    if amounts.exact and (context := planned_context(config, compute, folder, models)) is not None:
        return _planned_loader(context, folder)[1]
    return TuningFacts(shape.parameters, quantisation(shape.config, StoredWeights([])))


def planned_context(
    config: Parameters, compute: Compute, folder: Path, models: PlannedModels
) -> TrainingContext | None:
    """The run's own context, if everything that it reads is here."""
    if models.teacher is None or models.student is None:
        return None
    console = Console(quiet=True)
    try:
        run = RunDirectory.open(folder)
        pair = ModelPair(config, models.teacher, models.student)
        pair.take_from(read_json(run.data / "stats.json"))
        pair.take_record(read_json(run.data / "models.json"), run.data)
        return TrainingContext(config, run, pair, pair.text_encoders(config), compute, console)
    except (DistillkitError, OSError, ValueError, KeyError, TypeError):
        return None  # The run itself says what is wrong with them.


def _planned_loader(context: TrainingContext, folder: Path) -> tuple[TeacherLoader, TuningFacts | None]:
    first_target = 0 if context.encoders.student.start_id is None else 1
    identical = bool(context.pair.same_tokenizer) and context.pairs_rows
    rows = white_box_rows(
        load_examples(folder / "data" / "train"), first_target=first_target, identical=identical,
        start_shift=context.encoders.start_shift,
    )  # fmt: skip
    # Recorded when the data were prepared, and compared again by the run: computing it reads all weights.
    fingerprint = str(read_json(folder / "data" / "models.json")["teacher"]["fingerprint"])
    tuning = TeacherTuning(context, rows, fingerprint) if tunes_teacher(context.config) else None
    return planned_loader(context, rows, tuning, fingerprint, prove=False)
