"""Whatever is read: only errors that a user can act on come out, in one line, and soon.

Random bytes, random values, and sound files in which something was put in the place of something else. More by hand:
FUZZ_EXAMPLES=5000 in the environment.
"""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.cli import app as cli
from distillkit.console import Console
from distillkit.data.sources import check_source, load_documents, source_fingerprint
from distillkit.data.text_encoder import make_text_encoder
from distillkit.errors import DistillkitError
from distillkit.models import loading
from distillkit.models.context import context_length
from distillkit.models.references import parse_reference
from distillkit.models.usable_ids import embedding_rows
from distillkit.run.directory import RunDirectory, find_run, list_runs
from distillkit.run.manifest import save_manifest
from distillkit.run.results import read_result
from distillkit.settings.parameters import Parameters, fields
from distillkit.settings.paths import check_folder_name
from distillkit.settings.resolve import Layer, resolve
from distillkit.teachers import cache_entries, shards
from distillkit.teachers.exact_cache import known_width
from distillkit.training import checkpoints
from distillkit.training.metrics_log import read_metrics

QUIET = Console(quiet=True)
# A deadline catches what does not end soon; the first call of anything imports.
bounded = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")), deadline=60_000, database=None,
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
    found = ours(lambda: load_documents(Parameters(dataset_path=str(path), text_column=column), QUIET))
    for document in [document for documents in found.splits.values() for document in documents] if found else ():
        document.text.encode("utf-8")
        assert document.text.strip()
        assert "\0" not in document.text


@bounded
@given(st.one_of(damaged(__import__("gzip").compress(SOUND["txt"], mtime=0)), st.binary(max_size=60)))
def test_packed_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.txt.gz"
    path.write_bytes(content)
    ours(lambda: load_documents(Parameters(dataset_path=str(path)), QUIET))


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
        located = loading.locate(parse_reference(str(folder)), QUIET)
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
        located = loading.locate(parse_reference(str(folder)), QUIET)
        tokenizer = loading.load_tokenizer(located)
        encoder = make_text_encoder(tokenizer, context_length(located, 64), 64, needs_bytes=True)
        for encoding in encoder.encode(["A text.", " naïve 中", "\n\n"]):
            assert encoding is None or len(encoding.ends) == len(encoding.ids)

    ours(read)


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
