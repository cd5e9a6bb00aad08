"""prepare-data: texts -> split -> the same bytes encoded for both models -> aligned rows.

Writes data/train, data/validation, data/test (Arrow), data/stats.json and data/models.json; of a student that is cut from
its teacher also data/cut.json and, where its layers are fitted to the teacher, data/start; of `teacher:auto` also
shapes/journal.jsonl.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from distillkit.console import Console, format_bytes
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.document import DocumentSet
from distillkit.data.document_marks import end_marks
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import Example
from distillkit.data.mixture import Mixture
from distillkit.data.part_amounts import check_amounts
from distillkit.data.prepared_parts import PreparedPart
from distillkit.data.shown_tokens import tokens_of_a_text
from distillkit.data.sources import source_fingerprint
from distillkit.data.special_tokens import (
    decide_special_tokens,
    same_tokens,
    without_start_names,
)
from distillkit.data.splitting import held_out_examples
from distillkit.data.template_choice import TemplatePair, choose_templates, read_template
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.memory import explained_memory_errors
from distillkit.device.precision import choose_compute
from distillkit.errors import UsageError
from distillkit.models.references import parse_reference
from distillkit.models.save_errors import plain_save_errors
from distillkit.models.student_files import save_student
from distillkit.reports.input_report import input_report
from distillkit.run.directory import RunDirectory
from distillkit.run.further_teachers import TEACHERS, further_teachers, locate_further, prepare_further, shortest
from distillkit.run.pair import START, ModelPair, locate_pair
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import (
    TEMPORARY_PREFIX,
    bytes_below,
    explained_write_errors,
    files_below,
    fingerprint_of,
    make_folder,
    remove_tree,
    write_folder,
    write_json,
)
from distillkit.teachers.cut_student import CutStudent, begin_cut_student
from distillkit.teachers.served_conversations import check_server_tokens
from distillkit.tuning.shape_race import RaceTexts, ShapeRace
from distillkit.wording import counted

# Below this the teacher reaches too little of the text to be worth its time.
_LOW_COVERAGE = 0.5


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """The content of local files."""
    found = {f"data {name}": value for name, value in source_fingerprint(config, run.path.parent).items()}
    if config.chat_template is not None:
        found["chat template"] = fingerprint_of([read_template(config.chat_template)])
    return found


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Locate the models (downloading them if need be), read the texts, build the examples."""
    if from_scratch:
        with explained_write_errors(run.shapes):
            remove_tree(run.shapes)
    pair = locate_pair(config, console)
    pair.further = locate_further(config, console)
    encoders = pair.text_encoders(config, console)
    pair.check_rows_around(encoders, console)
    marks = end_marks(e.tokenizer.eos_token for e in (encoders.student, encoders.teacher))
    mixture = Mixture.load(config, console, run.path.parent, () if config.special_tokens == "text" else marks)
    return prepare(mixture, pair, encoders, config, run, console)


def prepare(
    mixture: Mixture,
    pair: ModelPair,
    encoders: TextEncoders,
    config: Parameters,
    run: RunDirectory,
    console: Console,
) -> StageResult:
    """What is done with texts that are read: split, encoded for both models, aligned, written.

    Args:
        encoders: of `pair`.

    Raises:
        UsageError: there is too little text, or it contradicts the configuration.
        PreconditionError: a model cannot read it.
    """
    # Examples are written while they are built; what a process that was killed leaves here is a leftover like any other.
    drafts = run.data.with_name(f"{TEMPORARY_PREFIX}examples")
    with _temporary(drafts):
        return _prepare(mixture, pair, encoders, config, run, console, drafts)


def _prepare(
    mixture: Mixture,
    pair: ModelPair,
    encoders: TextEncoders,
    config: Parameters,
    run: RunDirectory,
    console: Console,
    drafts: Path,
) -> StageResult:
    documents = mixture.as_one()
    chats = _are_conversations(documents, config)
    templates = _templates(config, encoders, console) if chats else None
    special = decide_special_tokens(
        "text" if chats else config.special_tokens, chain(*documents.splits.values()), encoders
    )
    if special.parse:
        mixture.sources = [without_start_names(source, encoders) for source in mixture.sources]
    held_out = held_out_examples(config)
    split = mixture.split(seed=config.seed, max_length=config.max_length, held_out_size=held_out)
    for note in [*documents.reading["remarks"], *split.notes]:
        console.info(note)

    if (line := special.line()) is not None:
        console.info(line)

    one_tokenizer = same_tokens(encoders, special)
    same = one_tokenizer
    if templates is not None:
        encoders = templates.marked(encoders)
        same = one_tokenizer and templates.same(encoders)
    white = config.box_type == "white"
    encoders = encoders.reading(parse=special.parse, exact=white and not same)
    student = encoders.for_shared_examples() if same else encoders.student
    others = further_teachers(pair, config, special, templates, console)
    student = shortest(student, others)
    builder: ExampleBuilder | ConversationExampleBuilder = ExampleBuilder(
        student, None if same else encoders.teacher, align=white and not same, seed=config.seed, around=encoders.teacher
    )
    if templates is not None:
        reader, other = templates.readers(TextEncoders(student, encoders.teacher))
        check_server_tokens(config, reader, chain(*documents.splits.values()), console)
        builder = ConversationExampleBuilder(
            reader, None if same else other, align=white and not same, seed=config.seed, train_on=config.train_on
        )
    wanted = {"test": held_out, "validation": held_out, "train": config.sample_size}
    with console.progress("encoding", total=sum(wanted.values()), unit="examples") as progress:
        examples = {
            part: PreparedPart.write(_told(split.build(builder, part, amount), progress.advance), drafts / part)
            for part, amount in wanted.items()
        }
    problems = builder.notes.problems
    dropped = [*problems.dropped_lines(shared=same), *builder.notes.dropped_lines()]
    check_amounts(config, documents.description, examples, dropped, console)
    for line in split.shortages(config.sample_size):
        console.warn(line)
    _report_texts(builder, console, shared=same)
    pair.check_rows_inside(
        {
            "teacher": lambda: chain(*(part.token_ids("teacher") for part in examples.values())),
            "student": lambda: chain(*(part.token_ids("student") for part in examples.values())),
        },
        console,
    )

    stats: dict[str, Any] = {
        "source": documents.description,
        "fingerprint": documents.fingerprint,
        "same_tokenizer": same,
        **({"served": True} if pair.teacher.is_served and not pair.teacher.is_imported else {}),
        "max_length": {"student": student.limit, "teacher": encoders.teacher.limit},
        "splits": {part: built.counts() for part, built in examples.items()},
        "dropped": {"inexact": builder.notes.inexact, "too_short": builder.notes.too_short},
        "normalised": problems.record(),
        "special_tokens": special.record(),
        "notes": [*documents.notes, *split.notes],
        "source_documents": sum(map(len, documents.splits.values())),
        "duplicates": split.duplicates,
        "reading": documents.reading | {"splits": _source_splits(documents)},
        **({} if (mix := split.record()) is None else {"mix": mix}),
        "first_text": examples["train"].rows.value("text", 0),
    }
    sides = {"student": student} if pair.teacher.is_served else {"student": student, "teacher": encoders.teacher}
    if (shown := tokens_of_a_text(stats["first_text"], sides, conversation=chats)) is not None:
        stats["tokens_of_a_text"] = shown
    if templates is not None:
        stats["conversations"] = {
            "train_on": config.train_on,
            "one_tokenizer": one_tokenizer,
            **builder.notes.record(),
            **templates.record(),
        }
    stats |= prepare_further(others, examples, student, config, drafts, console, first_is_paired=white and not same)
    if white and not same:
        stats["alignment"] = examples["train"].alignment(encoders.student, encoders.teacher)
        _warn_of_low_coverage(stats["alignment"], console)
    console.table(console.say("input.title"), ["", ""], input_report(stats, console.lang))
    race, cut = None, None
    if pair.student.reference.kind == "pruned-teacher":
        with explained_memory_errors():
            rate = examples["train"].tokens_per_byte(encoders.teacher, conversations=templates is not None)
            race, cut = _cut_student(pair, config, run, examples, rate, stats, console)

    def fill(folder: Path) -> None:
        for part, built in examples.items():
            built.folder.rename(folder / part)
        if others:
            (drafts / TEACHERS).rename(folder / TEACHERS)
        write_json(folder / "stats.json", stats)
        write_json(folder / "models.json", pair.record())
        if cut is not None:
            write_json(folder / "cut.json", cut.record)
            _write_start(folder / START, cut, pair)

    write_folder(run.data, fill, bytes_below(drafts) + (0 if cut is None else cut.weight_bytes))
    outputs = files_below(run.data)
    if race is not None:
        race.tidy()
        outputs.append(race.journal.path)
    run.manifest.models = pair.record()
    summary = _summary(stats, console, one_tokenizer=one_tokenizer, imported=pair.teacher.is_imported)
    metrics = {
        "examples": {part: len(built) for part, built in examples.items()},
        "same_tokenizer": same,
        "input_report": dict(input_report(stats)),
        **({} if cut is None else {"cut": cut.figures()}),
        **({"shapes": stats["shapes"]} if "shapes" in stats else {}),
    }
    return StageResult(outputs, metrics | {"alignment": stats.get("alignment")}, summary)


def _summary(stats: Mapping[str, Any], console: Console, *, one_tokenizer: bool, imported: bool) -> str:
    """How much there is to train on, to choose and to judge by; how the models read it."""
    if imported or stats.get("served"):
        key = "imported" if imported else "served"
    elif one_tokenizer:
        key = "one_tokenizer" if stats["same_tokenizer"] else "templates"
    else:
        key = "tokenizers"
    parts = stats["splits"]
    return console.say(
        "summary.prepare",
        examples=parts["train"]["examples"],
        size=format_bytes(parts["train"]["bytes"]),
        tokens=f"{parts['train']['student_tokens']:,}",
        validation=f"{parts['validation']['examples']:,}",
        test=f"{parts['test']['examples']:,}",
        kind=console.say(f"summary.prepare.{key}"),
    )


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """An empty folder that is deleted in the end, whatever happens."""
    with explained_write_errors(folder):
        remove_tree(folder)
    make_folder(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # It would hide what went wrong; the next start deletes it.
            remove_tree(folder)


def _told(examples: Iterable[Example], advance: Callable[[], None]) -> Iterator[Example]:
    for example in examples:
        yield example
        advance()


def _cut_student(
    pair: ModelPair,
    config: Parameters,
    run: RunDirectory,
    examples: Mapping[str, PreparedPart],
    tokens_per_byte: float | None,
    stats: dict[str, Any],
    console: Console,
) -> tuple[ShapeRace | None, CutStudent]:
    """How a student that is cut from the teacher begins, told to the pair; of `teacher:auto` also the race that gave it its
    shape, which is added to `stats`."""
    texts = examples["train"].token_ids("teacher")

    def cut_into(cut_pair: ModelPair) -> CutStudent:
        return begin_cut_student(cut_pair, config, choose_compute(config), texts, tokens_per_byte, console)

    race = None
    if pair.student.reference.automatic:
        raced = RaceTexts({part: examples[part] for part in ("train", "validation")}, stats)
        race = ShapeRace(pair, config, run, raced, cut_into, console)
        choice, cut = race.winner()
        pair.student = replace(pair.student, reference=parse_reference(choice.winner.shape.reference, role="student"))
        stats["shapes"] = choice.record()
    else:
        cut = cut_into(pair)
    pair.layers, pair.start = cut.layers, None if cut.model is None else run.data / START
    for remark in cut.remarks:
        console.warn(remark)
    console.info(cut.summary(console.lang))
    return race, cut


def _write_start(folder: Path, cut: CutStudent, pair: ModelPair) -> None:
    """The student before training, where it is not simply some of the teacher's layers."""
    if cut.model is not None:
        folder.mkdir()
        with plain_save_errors(folder):
            save_student(folder, cut.model, pair.student.folder, trust_remote_code=pair.config.trust_remote_code)


def _are_conversations(documents: DocumentSet, config: Parameters) -> bool:
    """Whether the documents are conversations.

    Raises:
        UsageError: some are, and some are not; or an option contradicts it.
    """
    found = {document.conversation is not None for document in chain(*documents.splits.values())}
    if len(found) > 1:
        raise UsageError(
            f"{documents.description}: some rows are conversations, others plain texts",
            hint="give them as two data sets",
        )
    if True in found and config.special_tokens == "parse":
        raise UsageError(
            f"{documents.description}: the rows are conversations, and --special-tokens parse is for texts that a template "
            "has already rendered",
            hint="leave --special-tokens out: the template's special tokens are tokens, those that people name are text",
        )
    return True in found


def _templates(config: Parameters, encoders: TextEncoders, console: Console) -> TemplatePair:
    given = None if config.chat_template is None else read_template(config.chat_template)
    templates = choose_templates(encoders, given)
    for line in templates.lines():
        console.info(line)
    return templates


def _report_texts(builder: ExampleBuilder | ConversationExampleBuilder, console: Console, *, shared: bool) -> None:
    for line in builder.notes.problems.lines(shared=shared):
        console.info(line)
    for line in builder.notes.lines():
        console.info(line)
    for line in [*builder.notes.problems.dropped_lines(shared=shared), *builder.notes.dropped_lines()]:
        console.warn(line)
    if builder.notes.too_short:
        count = counted(builder.notes.too_short, "text was", "texts were")
        console.info(f"{count} left out: fewer than two tokens")


def _warn_of_low_coverage(figures: dict[str, Any], console: Console) -> None:
    if figures["positions_aligned"] < _LOW_COVERAGE:
        console.warn(
            f"the tokenizers differ, and the teacher guides only {100 * figures['positions_aligned']:.1f} % of the "
            f"student's tokens ({100 * figures['bytes_aligned']:.1f} % of the bytes): --box-type black does not depend on it"
        )


def _source_splits(documents: DocumentSet) -> dict[str, int]:
    """Documents of each split that the source has; empty where it has none."""
    return {split: len(texts) for split, texts in documents.splits.items() if split != "all"}
