"""Whatever is read: only errors that a user can act on come out, in one line, and soon.

Random bytes, random values, and sound files in which something was put in the place of something else. More by hand:
FUZZ_EXAMPLES=5000 in the environment.
"""

from __future__ import annotations

import bz2
import copy
import csv
import io
import json
import lzma
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.cli import main as cli
from distillkit.console import Console, sanitize
from distillkit.data.cleaning import clean_text, text_digest
from distillkit.data.document import Document
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.python_docs import prose
from distillkit.data.rows import heading_depth
from distillkit.data.sections import cut_sections
from distillkit.data.sources import check_source, load_documents, source_fingerprint
from distillkit.data.split_names import assign_splits
from distillkit.data.standard_sets import parse_hub_reference
from distillkit.data.text_boundaries import TextBoundaries
from distillkit.data.text_decoding import decode_lines
from distillkit.data.text_encoder import make_text_encoder
from distillkit.errors import DistillkitError
from distillkit.models import loading, locating
from distillkit.models.context import context_length
from distillkit.models.references import parse_reference
from distillkit.models.usable_ids import embedding_rows
from distillkit.run.directory import RunDirectory, find_run, list_runs
from distillkit.run.manifest import save_manifest
from distillkit.run.results import read_result
from distillkit.settings.declared import fields
from distillkit.settings.parameters import Parameters
from distillkit.settings.paths import check_folder_name
from distillkit.settings.resolve import Layer, resolve
from distillkit.teachers import cache_entries, shards
from distillkit.teachers.continuation_filter import reason_to_drop
from distillkit.teachers.exact_cache import known_width
from distillkit.training import checkpoints
from distillkit.training.metrics_log import read_metrics

QUIET = Console(quiet=True)
# A deadline catches what does not end soon; the first call of anything imports.
# The same examples in every run, so that a change is judged by itself; FUZZ_EXAMPLES=1000 looks for new ones.
bounded = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")), derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=60_000, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def ours(call: Callable[[], Any]) -> Any:
    """What `call` gives; a refusal as None. Any other exception is a failure."""
    try:
        return call()
    except DistillkitError as error:
        refusal = error
    assert refusal.exit_code in (2, 3), refusal
    assert "\n" not in refusal.message
    assert refusal.message.strip()
    return None


# --- what is put there -----------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=30), st.text("ab/\\.:~-_@#=\0\n 19\u2028\ud800é", max_size=20),
    st.sampled_from(["../x", "~nobody-here/x", "/", ".", "..", "a" * 300, "a/" * 3000, "\ud800", "CON", "-rf", "%s", "{}", "[b]x", "nan", "1e999"]),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(), st.integers(-2, 300), st.sampled_from([2**63, 2**64, -(2**63), 10**400, 1e308, -0.0, 5e-324]), st.floats(allow_nan=True),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


@st.composite
def altered(draw: st.DrawFn, sound: Any) -> Any:
    """`sound` with one to three values replaced, left out or added."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            continue
        owner = value
        for key in place[:-1]:
            owner = owner[key]
        way = draw(st.sampled_from(["replace", "replace", "leave out", "add"]))
        if way == "leave out":
            del owner[place[-1]]
        elif way == "add" and isinstance(owner, dict):
            owner[draw(TEXTS)] = draw(VALUES)
        else:
            owner[place[-1]] = draw(VALUES)
    return value


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with bytes replaced, taken away, put in, repeated."""
    content = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 8))
        content[at : at + length] = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\0", b"\xff\xfe", b'"', b"\n", b"{", b"]", b"\r", b",", b"\xed\xa0\x80"]))
        )  # fmt: skip
        if draw(st.booleans()) and draw(st.booleans()):
            del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


# --- the run directory -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose stages are complete on paper, without files."""
    output = tmp_path_factory.mktemp("runs")
    made = RunDirectory.create(output / "run", resolve({"output_dir": str(output), "folder_name": "run"}))
    (made.path / "metrics.json").write_text('{"train": {"steps": 1}, "best": {"step": 1, "bits_per_byte": 1.5}}')
    for stage in ("check-env", "prepare-data", "distill", "validate"):
        made.begin_stage(stage, {"epochs": "1"})
        made.finish_stage(stage, [made.path / "metrics.json"] if stage == "distill" else [], {"gate_failure": None})
    return made


def use(folder: Path) -> None:
    """What commands do with a run before any stage runs."""
    opened = RunDirectory.open(folder)
    resolve({}, base=Layer("this run", {**opened.manifest.config}))
    for stage in opened.manifest.stages:
        opened.output_problem(stage)
    read_result(opened)


@bounded
@given(st.data())
def test_manifests(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any bytes, any JSON; and with the right checksum, as another version of the program may have written it."""
    folder = run.path.parent / "other"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run.path, folder)
    path = folder / "manifest.json"
    sound = path.read_bytes()
    way = data.draw(st.sampled_from(["bytes", "value", "altered", "checked"]))
    if way == "bytes":
        path.write_bytes(data.draw(damaged(sound)))
    elif way == "value":
        path.write_bytes(dumped(data.draw(VALUES)))
    else:
        value = data.draw(altered(json.loads(sound)))
        path.write_bytes(dumped(value))
        if way == "checked":
            # As far as the value is a manifest at all.
            from distillkit.run.manifest import Manifest

            try:
                manifest = Manifest.model_validate(value)
                save_manifest(folder, manifest)
            except (ValueError, DistillkitError, RecursionError):
                return
    before = path.read_bytes()
    ours(lambda: use(folder))
    ours(lambda: find_run("other", run.path.parent))
    assert list_runs(run.path.parent)
    assert path.read_bytes() == before


@bounded
@given(TEXTS)
@example("a" * 300)
@example("~nobody-here/x")
@example("\ud800")
def test_run_references(run: RunDirectory, name: str) -> None:
    found = ours(lambda: find_run(name, run.path.parent))
    assert found is None or (found.path / "manifest.json").is_file()
    (run.path.parent / "latest").write_bytes(name.encode("utf-8", "surrogatepass"))
    found = ours(lambda: find_run(None, run.path.parent))
    assert found is None or found.path.parent == run.path.parent
    ours(lambda: resolve({"output_dir": name}))


@bounded
@given(TEXTS)
def test_folder_names(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """What is let through is one folder right inside, that can be made, and that no shell takes for something else."""
    good = ours(lambda: check_folder_name(name))
    if good is None:
        return
    base = tmp_path_factory.mktemp("names")
    (base / good).mkdir()
    assert [path.name for path in base.iterdir()] == [good]
    assert (base / good).resolve().parent == base.resolve()
    assert not good.startswith(("-", "."))


# --- settings --------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([*fields(), "unknown", "sample-size", "Sample_Size", ""])
YAML_WORDS = st.sampled_from(
    ["5e-5", "0x10", "1_000", "yes", "off", "~", "null", "2026-01-01", ".inf", ".nan", "!!python/object:os.system x", "&a 1", "*a", "<<: *a",
     "[1, 2]", "{a: b}", "|\n  text", "? x", "- 1", "%TAG ! x", "---", "...", "'", '"\\ud800"', "\t", "12:30:45", "0o7", "1e400", "\ufeff", "=", "\x85"]
)  # fmt: skip


@bounded
@given(st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(NAMES, st.one_of(YAML_WORDS, TEXTS)), max_size=5).map(
        lambda pairs: "".join(f"{name}: {value}\n" for name, value in pairs).encode("utf-8", "surrogatepass")),
    st.dictionaries(NAMES, VALUES, max_size=4).map(dumped),
    st.lists(st.one_of(YAML_WORDS, TEXTS), max_size=8).map(lambda words: "\n".join(words).encode("utf-8", "surrogatepass")),
))  # fmt: skip
@example(b"a: " + b"[" * 5000)
@example(b"a: " + b"{b: " * 3000)
@example(b"epochs: " + b"9" * 5000)
@example(b"seed: 2001-99-99")
def test_configuration_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    resolved = ours(lambda: resolve({}, config_file=path))
    if resolved is not None:
        json.dumps(resolved.as_dict(), allow_nan=False)


@bounded
@given(
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.dictionaries(NAMES.map(lambda name: f"DISTILLKIT_{name.upper()}"), TEXTS, max_size=3),
)
def test_values_from_python_and_the_environment(values: dict[str, Any], environment: dict[str, str]) -> None:
    resolved = ours(lambda: resolve(values, environment=environment))
    if resolved is not None:
        json.dumps(resolved.as_dict(), allow_nan=False)


@bounded
@given(st.one_of(TEXTS, st.builds(
    "".join, st.lists(st.sampled_from(["pypi:", "teacher:", "a", "==", "1.0", "/", "x.gguf", "#sha256=", "0" * 64, ",", "3", "@", "main", "..", "~", "./"]), max_size=7)
)))  # fmt: skip
@example("x" * 5000 + ".gguf")
@example("~nobody-here.gguf")
def test_references(text: str) -> None:
    for role in ("teacher", "student"):
        ours(lambda role=role: parse_reference(text, role=role))
        ours(lambda role=role: parse_reference("gpt2", path=text, role=role))
    for settings_ in (Parameters(dataset=text), Parameters(dataset_path=text)):
        if not Path("/").samefile(text) if text in ("/", "//") else True:
            ours(lambda settings_=settings_: _source(settings_))


def _source(settings_: Parameters) -> None:
    # Not the whole disk.
    from distillkit.data.sources import local_path

    path = local_path(settings_)
    if path is None or "\0" in path or not os.path.isdir(os.path.expanduser(path)):  # noqa: PTH111, PTH112
        check_source(settings_)
        source_fingerprint(settings_)


@bounded
@given(
    st.sampled_from(["distill", "prepare-data", "validate", "demo", "plot", "runs", "cache", "params", "presets", "check-env"]),
    st.lists(st.one_of(
        st.sampled_from(["--run", "--output-dir", "--config", "--preset", "--folder-name", "--json", "--dry-run", "--teacher-model-path",
                         "--epochs", "prune", "show", "--lang", "--unused-days", "--prompt", "--force", "--quiet", "--", "-", "--x"]), TEXTS), max_size=4),
)  # fmt: skip
@example("validate", ["--run", "a" * 300])
@example("runs", ["--output-dir", "~nobody-here"])
@example("cache", ["--output-dir", "a" * 300])
def test_command_lines(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    """Words that need no work: nothing is made but refused."""
    if command in ("distill", "prepare-data", "check-env"):
        words = ["--preset", "weak-pc", *words] if command == "check-env" else ["--dataset-path", "absent.txt", *words]
    place = tmp_path_factory.mktemp("words")
    words = [word.replace("\0", "") for word in words]  # no command line can hold it
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        if command == "check-env":
            words = ["--precision", "many", *words]
        code = cli.main([command, *words])
    said = capsys.readouterr().err
    assert code in (0, 2, 3), said
    assert "this is a defect" not in said
    assert "Traceback" not in said
    assert list(place.iterdir()) == []


# --- data ------------------------------------------------------------------------------------------------------------


def _parquet(table: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


WORDS = [f"A text about the number {number}, written down." for number in range(12)]
SOUND: dict[str, bytes] = {
    "txt": "\n\n".join(WORDS).encode(),
    "md": ("# Title\n\n" + "\n".join(WORDS)).encode(),
    "jsonl": "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in WORDS).encode(),
    "json": json.dumps([{"id": 1, "text": text} for text in WORDS]).encode(),
    "csv": ("id,text\n" + "".join(f'1,"{text}"\n' for text in WORDS)).encode(),
    "tsv": ("id\ttext\n" + "".join(f"1\t{text}\n" for text in WORDS)).encode(),
    "parquet": _parquet(pyarrow.table({"id": range(12), "text": WORDS})),
}


@pytest.mark.parametrize("kind", SOUND)
@bounded
@given(st.data())
def test_data_files(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzzed.{kind}"
    content = data.draw(st.one_of(damaged(SOUND[kind]), st.binary(max_size=80)))
    if kind in ("json", "jsonl") and data.draw(st.booleans()):
        rows = data.draw(st.one_of(VALUES, altered([json.loads(line) for line in SOUND["jsonl"].splitlines()])))
        lines = rows if kind == "jsonl" and isinstance(rows, list) else [rows]
        content = b"\n".join(dumped(line) for line in lines)
    path.write_bytes(content)
    column = data.draw(st.one_of(st.none(), st.just("text"), TEXTS))
    said: dict[str, Any] = {}
    if data.draw(st.booleans()):
        said["csv_delimiter"] = data.draw(st.sampled_from([None, ",", ";", "tab", "|", " ", "^"]))
        said["csv_quoting"] = data.draw(st.sampled_from(["auto", "double", "single", "none"]))
        said["csv_header"] = data.draw(st.sampled_from(["auto", "present", "absent"]))
        said["bad_rows"] = data.draw(st.sampled_from(["skip", "skip-all", "stop"]))
    found = ours(lambda: load_documents(Parameters(dataset_path=str(path), text_column=column, **said), QUIET))
    for document in [document for documents in found.splits.values() for document in documents] if found else ():
        document.text.encode("utf-8")
        assert document.text.strip()
        assert "\0" not in document.text


# Prose with all that dialects part or quote by; tables below three rows, or without ids, may be read in two ways.
_PIECES = st.sampled_from(
    ["she measured the lantern", "the heavy wagon", "nobody came;it's late", "he said,", '"No"', "a | b", '5" pipe', "don't", "wait: what?",
     "tab\there", "two\nlines", "(see below)", "'tis", "The end", "naïve café"]
)  # fmt: skip
_CELLS = st.lists(_PIECES, min_size=3, max_size=8).map(
    lambda pieces: f"{'; '.join(pieces[:2])} {' '.join(pieces[2:])}."
)
_DIALECTS = st.sampled_from(
    [{}, {}, {"quoting": csv.QUOTE_ALL}, {"quoting": csv.QUOTE_NONNUMERIC}, {"quoting": csv.QUOTE_ALL, "quotechar": "'"},
     {"doublequote": False, "escapechar": "\\"}, {"quoting": csv.QUOTE_NONE, "quotechar": None}]
)  # fmt: skip


@bounded
@given(
    st.lists(_CELLS, min_size=3, max_size=30, unique=True), _DIALECTS, st.sampled_from(",;\t|"), st.sampled_from(["csv", "tsv"]),
    st.sampled_from([["id", "text"], ["text", "label"], ["id", "text", "label"], ["text"], None]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_tables_of_any_dialect(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], dialect: dict[str, Any], delimiter: str, suffix: str,
    header: list[str] | None, encoding: str, line_end: str,
) -> None:  # fmt: skip
    """What the csv module has written is read back exactly, or refused; never other texts, and no row less."""
    columns = header or ["id", "text"]
    rows = [
        [{"id": str(number), "text": cell, "label": ("good", "bad")[number % 2]}[column] for column in columns]
        for number, cell in enumerate(cells)
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=line_end, **dialect)
    if dialect.get("quoting") == csv.QUOTE_NONE and ("\n" in "".join(cells) or len(columns) == 1):
        return  # Nothing can tell where such a cell ends.
    if header is None and dialect.get("quotechar") == "'":
        return  # Apostrophes and punctuation alike may then be either.
    try:
        writer.writerows([header, *rows] if header else rows)
    except csv.Error:
        return  # This dialect cannot write them.
    path = tmp_path_factory.getbasetemp() / f"dialect.{suffix}"
    path.write_bytes(stream.getvalue().encode(encoding))
    column = None if header else "column2"
    found = ours(lambda: load_documents(Parameters(dataset_path=str(path), text_column=column), QUIET))
    assert found is None or [document.text for document in found.splits["all"]] == cells
    if not dialect and header and "text" in header and len(header) > 1:
        assert found is not None


@bounded
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60),
    st.sampled_from(["cp1252", "cp1251", "koi8-r", "gb18030", "shift_jis", "euc-kr", "big5", "utf-16", "utf-16-be", "utf-32", "utf-8", "iso2022_jp", "hz"]),
    st.one_of(st.none(), st.sampled_from(["cp1252", "gb18030", "shift_jis", "utf-16", "utf-32-le", "utf-8", "ascii", "cp037"])),
    st.binary(max_size=4),
)  # fmt: skip
def test_encodings(
    tmp_path_factory: pytest.TempPathFactory, text: str, written: str, read: str | None, damage: bytes
) -> None:
    """A text is read back by the encoding that it was written in; by any other, it is read or refused in one line."""
    content = f"A text. {text}".encode(written, "ignore")
    path = tmp_path_factory.getbasetemp() / "encoded.txt"
    path.write_bytes(content)
    sound = ours(lambda: load_documents(Parameters(dataset_path=str(path), encoding=written), QUIET))
    assert sound is not None
    assert sound.splits["all"][0].text == clean_text(content.decode(written))
    path.write_bytes(content + damage)
    found = ours(lambda: load_documents(Parameters(dataset_path=str(path), encoding=read), QUIET))
    for document in found.splits["all"] if found else ():
        document.text.encode("utf-8")


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows with one column of prose among others that are none, in any order; some cells are missing."""
    count = draw(st.integers(1, 30))
    chance = random.Random(draw(st.integers(0, 10_000)))
    nouns = ["harbour", "lantern", "wagon", "orchard", "violin", "market"]
    others: dict[str, Callable[[int], Any]] = {
        "id": lambda row: f"conv-{row:04}-{row * 7 % 100:03}", "uuid": lambda row: f"{row:08x}-0000-4000-8000-{row:012x}",
        "url": lambda row: f"https://example.org/{row}", "when": lambda row: f"2021-03-{row % 28 + 1:02}T10:00:00Z",
        "label": lambda row: ("good", "bad")[row % 2], "picture": lambda row: f"img/{row}.jpg", "size": lambda row: row,
        "vector": lambda row: [0.5, row * 1.0], "mail": lambda row: f"a{row}@example.org", "flag": lambda row: row % 2 == 0,
    }  # fmt: skip
    names = draw(st.permutations([*draw(st.sets(st.sampled_from(sorted(others)), max_size=6)), "essay"]))
    rows: list[dict[str, Any]] = []
    for row in range(count):
        cells = {
            name: f"She saw {' '.join(chance.choices(nouns, k=chance.randint(5, 12)))} on day {row}."
            if name == "essay"
            else others[name](row)
            for name in names
        }
        rows.append({name: None if name != "essay" and chance.random() < 0.1 else cell for name, cell in cells.items()})
    return rows


@bounded
@given(tables())
def test_the_prose_among_other_columns_is_found_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    base = tmp_path_factory.getbasetemp()
    contents = {
        "jsonl": b"\n".join(map(dumped, rows)), "json": dumped(rows), "pretty.jsonl": json.dumps(rows, indent=1).encode(),
        "columns.json": dumped({name: {str(number): row[name] for number, row in enumerate(rows)} for name in rows[0]}),
        "split.json": dumped({"columns": list(rows[0]), "index": [], "data": [list(row.values()) for row in rows]}),
        "parquet": _parquet(pyarrow.Table.from_pylist(rows)),
    }  # fmt: skip
    for suffix, content in contents.items():
        path = base / f"table.{suffix}"
        path.write_bytes(content)
        found = load_documents(Parameters(dataset_path=str(path)), QUIET)
        assert [document.text for document in found.splits["all"]] == [row["essay"] for row in rows]
        without = [{name: cell for name, cell in row.items() if name != "essay"} for row in rows]
        if suffix == "jsonl" and without[0]:
            path.write_bytes(b"\n".join(map(dumped, without)))
            with pytest.raises(DistillkitError) as caught:
                load_documents(Parameters(dataset_path=str(path)), QUIET)
            assert caught.value.exit_code == 2


@bounded
@given(st.one_of(VALUES, st.lists(VALUES), st.dictionaries(st.sampled_from(["text", "data", "rows", "columns", "0", "1", "messages", "row", "features"]), VALUES)),
       st.sampled_from(["json", "jsonl", "ndjson"]), st.sampled_from([None, 1]), st.sampled_from([None, "text", "data"]))  # fmt: skip
@example({"columns": [], "data": []}, "json", None, None)
@example({"columns": [["a"]], "data": [["x"]]}, "json", None, None)
@example({"0": {}}, "json", None, "text")
@example([[]], "jsonl", None, None)
@example({"rows": [{"row": {}}], "features": []}, "json", 1, None)
def test_json_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, value: Any, suffix: str, indent: int | None, column: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / f"shape.{suffix}"
    path.write_bytes(json.dumps(value, indent=indent).encode("utf-8", "surrogatepass"))
    for policy in ("skip", "skip-all", "stop"):
        settings_ = Parameters(dataset_path=str(path), text_column=column, bad_rows=policy)
        found = ours(lambda settings_=settings_: load_documents(settings_, QUIET))
        assert found is None or all(document.text.strip() for part in found.splits.values() for document in part)


@bounded
@given(st.one_of(damaged(__import__("gzip").compress(SOUND["txt"], mtime=0)), st.binary(max_size=60)))
def test_packed_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.txt.gz"
    path.write_bytes(content)
    ours(lambda: load_documents(Parameters(dataset_path=str(path)), QUIET))


def _zipped(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("texts.txt", content)
        archive.writestr("more/texts.jsonl", SOUND["jsonl"])
    return sink.getvalue()


PACKED: dict[str, bytes] = {
    "bz2": bz2.compress(SOUND["txt"]),
    "xz": lzma.compress(SOUND["txt"]),
    "zst": pyarrow.Codec("zstd").compress(SOUND["txt"], asbytes=True),
    "zip": _zipped(SOUND["txt"]),
}
# Those whose format has a checksum of the content: what comes out at all is what was put in.
CHECKED = ("bz2", "xz", "zip")


@pytest.mark.parametrize("suffix", PACKED)
@bounded
@given(st.data())
def test_other_packed_files(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject) -> None:
    """Garbled or cut off: refused, or read as what was packed; never another text."""
    path = tmp_path_factory.getbasetemp() / f"fuzzed.txt.{suffix}"
    content = data.draw(st.one_of(damaged(PACKED[suffix]), st.binary(max_size=60)))
    if data.draw(st.booleans()):
        content = PACKED[suffix][: data.draw(st.integers(0, len(PACKED[suffix]) - 1))]
    path.write_bytes(content)
    found = ours(lambda: load_documents(Parameters(dataset_path=str(path)), QUIET))
    if found is not None and suffix in CHECKED:
        for document in found.splits["all"]:
            assert document.text in SOUND["txt"].decode() or document.text in WORDS


def _arrow(make: Any) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"id": range(12), "text": WORDS})
    with make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return sink.getvalue()


@pytest.mark.parametrize("make", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
@bounded
@given(st.data())
def test_arrow_files(tmp_path_factory: pytest.TempPathFactory, make: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.arrow"
    sound = _arrow(make)
    path.write_bytes(data.draw(st.one_of(damaged(sound), st.integers(0, len(sound)).map(lambda size: sound[:size]))))
    found = ours(lambda: load_documents(Parameters(dataset_path=str(path), bad_rows="skip-all"), QUIET))
    for document in [document for documents in found.splits.values() for document in documents] if found else ():
        document.text.encode("utf-8")
        assert "\0" not in document.text


PARTS = st.lists(
    st.sampled_from(["train", "test", "dev", "validation", "eval", "wiki", "a", "Test", "TRAIN", "data", "de", "contest", "00000-of-00002"]),
    min_size=1, max_size=3,
)  # fmt: skip
NAMES_OF_FILES = st.builds(
    lambda folders, parts, mark, suffix: "/".join([*folders, mark.join(parts) + suffix]),
    st.lists(PARTS.map("-".join), max_size=2), PARTS, st.sampled_from([".", "-", "_", " "]),
    st.sampled_from([".txt", ".md", ".jsonl", ".jsonl.gz", ".csv", ".parquet"]),
)  # fmt: skip


@bounded
@given(st.lists(NAMES_OF_FILES, min_size=1, max_size=12, unique=True))
def test_folders_with_names_of_splits(names: list[str]) -> None:
    """Nothing that is called after a held-out split is trained on without a word, and no file disappears without one."""
    found = assign_splits(sorted(names))
    said = " ".join(found.remarks)
    for split in ("train", "all"):
        for name in found.splits.get(split, ()):
            held_out = {"test", "dev", "validation", "eval"} & {*re.split(r"[^a-z]+", name.lower())}
            assert not held_out or name in said or "nothing but" in said or "more" in said
    kept = [name for group in found.splits.values() for name in group]
    assert sorted([*kept, *found.left_out]) == sorted(names)
    assert kept


CARD = {
    "configs": [
        {
            "config_name": "default",
            "default": True,
            "data_dir": "data",
            "data_files": [{"split": "train", "path": ["*.txt"]}],
        }
    ]
}


@bounded
@given(st.one_of(altered(CARD).map(dumped), st.binary(max_size=60), damaged(dumped(CARD))))
@example(b'{"configs": [{"data_files": "' + b"*" * 5000 + b'"}]}')
@example(b'{"configs": [{"data_files": "[[["}]}')
def test_data_cards(tmp_path_factory: pytest.TempPathFactory, front_matter: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-card"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "a.txt").write_bytes(SOUND["txt"])
    (folder / "README.md").write_bytes(b"---\n" + front_matter + b"\n---\nconfigs\n")
    ours(lambda: load_documents(Parameters(dataset_path=str(folder)), QUIET))


# What repeats for long: quadratic time would be minutes, and a pattern that remembers every repeat gigabytes.
REPEATED = ["a", " ", "\t", "\n", "\n ", "\r", "\r\n", ".", ".''", "“", "…)", "。", "。」", "=", "= ", "===\n", "0", "1 ", "_", "-", "<", "[",
            '"', ",", "\\", "hf_", "sk-", "://", "://a:", "\x1b", "\x1b[0", "\x1b]", "\u0301", " \u0301", "👩", "👩\u200d", "🇩🇪", "👍🏽", "ภาษา",
            "\u1100", "क्", "\u0600", "\u200b", "\u2028", "\u3000", "한", "漢"]  # fmt: skip


@st.composite
def long_repeats(draw: st.DrawFn, size: int) -> str:
    """One or two units repeated up to `size` characters each, with something short around them."""
    around = st.sampled_from(["", "x", " ", "\n", "= x", ". ", "é"])
    parts = [draw(around)]
    for _ in range(draw(st.integers(1, 2))):
        unit = draw(st.sampled_from(REPEATED))
        parts += [unit * (draw(st.integers(1, size)) // len(unit) + 1), draw(around)]
    return "".join(parts)


@bounded
@given(long_repeats(200_000))
def test_long_repeats_in_texts(text: str) -> None:
    """All that takes texts apart; nothing but white space is lost in it."""
    clean = clean_text(text)
    sections = cut_sections(text, 8192)
    assert "".join("".join(section.text.split()) for section in sections) == "".join(text.split())
    found = TextBoundaries.of(text)
    assert found.clusters[-1] == len(text.encode())
    heading_depth(clean)
    prose(text)
    text_digest(text)
    sanitize(text)
    assert "".join(decode_lines([text[:1000], text[1000:]], "x")) == text
    reason_to_drop(text[:5000])
    ours(lambda: parse_reference(text))
    ours(lambda: parse_reference(f"pypi:{text}"))
    parse_hub_reference(text)


@bounded
@given(st.sampled_from([".txt", ".md", ".jsonl", ".json"]), long_repeats(100_000))
def test_long_repeats_in_files(tmp_path_factory: pytest.TempPathFactory, suffix: str, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"repeats{suffix}"
    rows = [{"text": text}, {"text": "Another text."}]
    content = {".jsonl": b"\n".join(map(dumped, rows)), ".json": dumped(rows)}.get(suffix, text.encode())
    path.write_bytes(content)
    ours(lambda: load_documents(Parameters(dataset_path=str(path)), QUIET))


@bounded
@given(long_repeats(20_000))
def test_long_repeats_in_examples(model: Path, text: str) -> None:
    tokenizer = loading.load_tokenizer(locating.locate(parse_reference(str(model)), QUIET))
    encoder = make_text_encoder(tokenizer, None, 64, needs_bytes=True)
    builder = ExampleBuilder(encoder, None, align=False, seed=0)
    for made in ours(lambda: list(builder.build([Document(text, "x")], 10_000))) or ():
        assert len(made.student_ids) <= 64
        assert made.bytes == len(made.text.encode())


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_folder(
        tmp_path_factory.mktemp("model") / "sound", tiny_model("gpt2", 384, layers=1, hidden=16), tiny_tokenizer(384)
    )


def _changed_model(model: Path, name: str, content: bytes) -> Path:
    folder = model.parent / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    (folder / name).write_bytes(content)
    return folder


@bounded
@given(st.data())
def test_model_folders(model: Path, data: st.DataObject) -> None:
    """config.json, the weights, an index of weights in parts: located, or refused."""
    name = data.draw(
        st.sampled_from(
            ["config.json", "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer_config.json"]
        )
    )
    if name == "model.safetensors.index.json":
        content = dumped(
            data.draw(altered({"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors"}}))
        )
    elif name.endswith(".json"):
        content = data.draw(
            st.one_of(
                altered(json.loads((model / name).read_bytes())).map(dumped), damaged((model / name).read_bytes())
            )
        )
    else:
        content = data.draw(damaged((model / name).read_bytes()))
    folder = _changed_model(model, name, content)
    if name == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()

    def locate() -> None:
        located = locating.locate(parse_reference(str(folder)), QUIET)
        located.fingerprint()
        context_length(located, 64)
        embedding_rows(located)

    ours(locate)


@bounded
@given(st.data())
def test_tokenizers(model: Path, data: st.DataObject) -> None:
    """Tokenizers of any kind of oddity are loaded and read texts exactly, or they are refused."""
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    sound = json.loads((model / name).read_bytes())
    if name == "tokenizer.json":
        # The vocabulary is most of the file; oddities of the rest say more.
        vocabulary, merges = sound["model"].pop("vocab"), sound["model"].pop("merges")
        value = data.draw(altered(sound))
        if isinstance(value, dict) and isinstance(value.get("model"), dict):
            value["model"].setdefault("vocab", vocabulary)
            value["model"].setdefault("merges", merges)
    else:
        value = data.draw(altered(sound))
    folder = _changed_model(model, name, dumped(value))

    def read() -> None:
        located = locating.locate(parse_reference(str(folder)), QUIET)
        tokenizer = loading.load_tokenizer(located)
        encoder = make_text_encoder(tokenizer, context_length(located, 64), 64, needs_bytes=True)
        for encoding in encoder.encode(["A text.", " naïve 中", "\n\n"]):
            assert encoding is None or len(encoding.ends) == len(encoding.ids)

    ours(read)


def test_a_special_token_that_the_vocabulary_has_not(model: Path) -> None:
    folder = _changed_model(
        model,
        "tokenizer_config.json",
        dumped({**json.loads((model / "tokenizer_config.json").read_bytes()), "bos_token": ""}),
    )
    located = locating.locate(parse_reference(str(folder)), QUIET)
    encoder = make_text_encoder(loading.load_tokenizer(located), context_length(located, 64), 64, needs_bytes=True)
    assert encoder.table is not None
    assert None not in encoder.table.specials
    (encoding,) = encoder.encode(["A text."])
    assert encoding is not None


# --- what the program wrote itself -----------------------------------------------------------------------------------


@bounded
@given(st.one_of(st.binary(max_size=60), VALUES.map(dumped), altered(
    {"step": 5, "fingerprint": "x", "files": [{"path": "a", "size": 1, "sha256": "0"}], "texts": [0, 1], "bytes": 1, "sha256": "0", "width": 4,
     "teacher": "t", "kind": "exact", "tokens": 1, "checksum": ""}).map(dumped)))  # fmt: skip
@example(b"[" * 100_000)
@example(b'{"step": ' + b"1" * 10_000 + b"}")
def test_records(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Records of checkpoints, caches and figures: sound or not, never an exception."""
    base = tmp_path_factory.getbasetemp() / "records"
    folder = base / "step-5"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (checkpoints.COMMIT_FILE, "meta.json", "shard-00000.json", "metrics.jsonl"):
        (folder / name).write_bytes(content)
    checkpoints.read_commit(folder)
    assert checkpoints.problem(folder)
    ours(lambda: checkpoints.newest_valid(base, "x"))
    cache_entries.list_caches(base)
    known_width(folder)
    shard = shards.Shard(0, 0, 1, 1)
    assert shards.ShardFiles(folder, [shard]).missing() == [shard]
    for line in read_metrics(folder / "metrics.jsonl"):
        json.dumps(line, allow_nan=False)
