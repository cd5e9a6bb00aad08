"""`import-logprobs`: rows of two other tools become a teacher without weights; a planted model says what is right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conversation_runs import QUIET, chat_models, distilled, prepared

from distillkit import PreconditionError, UsageError
from distillkit.console import Console
from distillkit.data.examples import load_examples
from distillkit.importing.compression import Compression
from distillkit.importing.import_rows import ImportRequest, import_rows
from distillkit.importing.sequences import BadRowError
from distillkit.teachers.imported_folder import ImportedFolder, Place
from distillkit.teachers.imported_targets import find_texts

Distil = Callable[..., Any]


def planted(folder: Path) -> SimpleNamespace:
    """The model and tokenizer of a folder; `after(ids)` gives [T, V] log-probabilities of what follows each token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def after(ids: list[int]) -> np.ndarray:
        with torch.inference_mode():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1).numpy()[:, : len(tokenizer)]

    return SimpleNamespace(folder=folder, tokenizer=tokenizer, after=after, size=len(tokenizer))


@pytest.fixture(scope="module")
def teacher(pair: SimpleNamespace) -> SimpleNamespace:
    return planted(pair.teacher)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def likeliest(row: np.ndarray, size: int) -> list[int]:
    return np.argsort(-row, kind="stable")[:size].tolist()


def arcee_row(teacher: SimpleNamespace, ids: list[int], size: int, *, shift: int = 0) -> dict[str, Any]:
    """As that tool writes it: entry t belongs to the logits of token t; the last token has none."""
    rows = teacher.after(ids)[: len(ids) - 1]
    rows = np.roll(rows, shift, axis=0)
    chosen = [likeliest(row, size) for row in rows]
    values = [[float(row[index]) for index in those] for row, those in zip(rows, chosen, strict=True)]
    return {"input_ids": list(ids), "token_ids": chosen, "top_values": values}


def axolotl_row(
    teacher: SimpleNamespace, turns: list[dict[str, str]], size: int, *, two_columns: bool
) -> dict[str, Any]:
    """As vLLM tells it of an answer that it has written: of each token what was likely at its place, itself among it."""
    ids = teacher.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    asked = teacher.tokenizer.apply_chat_template(
        turns[:-1], tokenize=True, return_dict=False, add_generation_prompt=True
    )
    end = max(
        index for index, token in enumerate(ids) if token == teacher.tokenizer.convert_tokens_to_ids("<|im_end|>")
    )
    rows = teacher.after(ids)
    places = []
    for place in range(len(asked), end + 1):
        row = rows[place - 1]
        chosen = list(dict.fromkeys([*likeliest(row, size), ids[place]]))
        places.append([(index, float(row[index])) for index in chosen])
    if two_columns:
        return {
            "messages": turns, "logprobs": [[value for _, value in place] for place in places],
            "target_token_ids": [[index for index, _ in place] for place in places],
        }  # fmt: skip
    named = [[{"token": f"token_id:{index}", "logprob": value} for index, value in place] for place in places]
    return {"messages": turns, "logprobs": named}


def imported(rows: Path, form: Any, tokenizer: Path, out: Path, **more: Any) -> ImportedFolder:
    import_rows(ImportRequest(rows, form, str(tokenizer), out, **more), QUIET)
    return ImportedFolder(out)


def soft(result: Any) -> float:
    lines = (result.run_directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return next(line["soft_loss"] for line in map(json.loads, lines) if "soft_loss" in line)


@pytest.fixture(scope="module")
def exact(distil: Distil) -> Any:
    """A run with the teacher's weights, at temperature 1."""
    return distil(temperature=1.0, teacher_cache="exact")


def read_texts(result: Any) -> list[list[int]]:
    return [list(row["student_ids"]) for row in load_examples(result.run_directory / "data" / "train")]


# --- what a run learns -----------------------------------------------------------------------------------------------


def test_the_whole_vocabulary_is_the_teacher(
    distil: Distil, exact: Any, teacher: SimpleNamespace, pair: SimpleNamespace, tmp_path: Path
) -> None:
    rows = [arcee_row(teacher, ids, teacher.size) for ids in read_texts(exact)]
    folder = imported(write_rows(tmp_path / "rows.jsonl", rows), "arcee", pair.teacher, tmp_path / "teacher")
    assert folder.record["tail"] == pytest.approx(0, abs=1e-6)
    found = distil(teacher_model=f"logprobs:{tmp_path / 'teacher'}", temperature=1.0, skip_validation=False)
    assert soft(found) == pytest.approx(soft(exact), abs=1e-3)
    assert found.teacher is None
    assert "log-probabilities that were imported" in (found.student_path / "README.md").read_text(encoding="utf-8")


def test_a_few_tokens_of_some_texts(
    distil: Distil, exact: Any, teacher: SimpleNamespace, pair: SimpleNamespace, tmp_path: Path, capsys: Any
) -> None:
    """Texts that are not found have no targets, and it is said; a piece of a longer text is found inside it."""
    texts = read_texts(exact)
    rows = [arcee_row(teacher, texts[0] + ids if index == 1 else ids, 8) for index, ids in enumerate(texts[:8])]
    # As if the tokens of its first word were others inside the longer text: of these two nothing is known then.
    texts[2][1:3] = [texts[2][2], texts[2][2] + 1]
    rows[2] = arcee_row(teacher, texts[2], 8)
    folder = write_rows(tmp_path / "rows.jsonl", rows)
    imported(folder, "arcee", pair.teacher, tmp_path / "teacher")
    found = distil(teacher_model=f"logprobs:{tmp_path / 'teacher'}", temperature=1.0, quiet=False)
    assert 0 < soft(found) < soft(exact) * 2
    told = " ".join(capsys.readouterr().err.split())
    share = (sum(len(ids) - 1 for ids in texts[:8]) - 2) / sum(len(ids) - 1 for ids in texts)
    assert f"are known of {100 * share:.1f} % of the targets" in told


def test_conversations_are_learnt_where_they_answer(tmp_path: Path) -> None:
    """All of a conversation's tokens known: the loss is that of the teacher, on the answers alone."""
    models = chat_models(tmp_path / "models")
    local = prepared(tmp_path / "local", models, "same", temperature=1.0, teacher_cache="exact")
    exact = distilled(local)
    teacher = planted(models.teacher)
    rows = [
        arcee_row(teacher, list(row["student_ids"]), teacher.size) for row in load_examples(local.run.data / "train")
    ]
    imported(write_rows(tmp_path / "rows.jsonl", rows), "arcee", models.teacher, tmp_path / "teacher")
    made = prepared(
        tmp_path / "imported", models, "same", temperature=1.0, teacher_cache="auto", teacher_model_path=None,
        teacher_model=f"logprobs:{tmp_path / 'teacher'}",
    )  # fmt: skip
    found = distilled(made)
    assert found["soft_loss"] == pytest.approx(exact["soft_loss"], abs=1e-3)
    assert found["hard_loss"] == pytest.approx(exact["hard_loss"], abs=1e-6)


# --- which token a log-probability is about ---------------------------------------------------------------------------


def known_places(folder: ImportedFolder, teacher: SimpleNamespace) -> int:
    """Checks that what is known at each place is what the planted model says of the token there; counts the places."""
    places = 0
    for part, starts, ids in folder.tokens():
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            own = ids[first:last].tolist()
            rows = teacher.after(own)
            counts, entries, chances = folder.distributions(Place(part, first, last), last - first)
            ends = np.cumsum(counts)
            for place, (count, end) in enumerate(zip(counts.tolist(), ends.tolist(), strict=True)):
                if count:
                    expected = np.exp(rows[place - 1][entries[end - count : end]])
                    np.testing.assert_allclose(chances[end - count : end], expected, rtol=1e-5)
                    places += 1
    return places


def test_arcee_rows_are_about_the_token_that_follows(exact: Any, teacher: SimpleNamespace, tmp_path: Path) -> None:
    texts = read_texts(exact)[:4]
    rows = [arcee_row(teacher, ids, 5) for ids in texts]
    # One row in which two texts are packed, each without its last token, whose log-probabilities nobody has.
    packed = {name: [*rows[0][name][: len(texts[0]) - 1], *rows[1][name][: len(texts[1]) - 1]] for name in rows[0]}
    packed["attention_mask"] = [1] * (len(texts[0]) - 1) + [2] * (len(texts[1]) - 1)
    folder = imported(write_rows(tmp_path / "r.jsonl", [*rows[2:], packed]), "arcee", teacher.folder, tmp_path / "out")
    whole = sum(len(ids) - 1 for ids in texts[2:])
    assert known_places(folder, teacher) == whole + sum(len(ids) - 2 for ids in texts[:2]) == folder.record["places"]
    lines = [json.loads(line)["text"] for line in (tmp_path / "out" / "texts.jsonl").read_text("utf-8").splitlines()]
    assert lines[0] == teacher.tokenizer.decode(texts[2], skip_special_tokens=True)


@pytest.mark.parametrize("two_columns", [False, True])
def test_axolotl_rows_are_about_their_own_token(tmp_path: Path, two_columns: bool) -> None:
    models = chat_models(tmp_path / "models")
    teacher = planted(models.teacher)
    turns = [{"role": "user", "content": "the lamp"}, {"role": "assistant", "content": "is by the river"}]
    rows = [axolotl_row(teacher, turns, 3, two_columns=two_columns)]
    # The template writes a line end behind the last turn, which no answer has.
    folder = imported(write_rows(tmp_path / "r.jsonl", rows), "axolotl", models.teacher, tmp_path / "out")
    assert known_places(folder, teacher) == len(rows[0]["logprobs"])
    assert json.loads((tmp_path / "out" / "texts.jsonl").read_text("utf-8")) == {"messages": turns}
    rows[0]["logprobs"] = rows[0]["logprobs"][1:] + rows[0]["logprobs"][:1]
    if two_columns:
        rows[0]["target_token_ids"] = rows[0]["target_token_ids"][1:] + rows[0]["target_token_ids"][:1]
    with pytest.raises(UsageError, match=r"r\.jsonl, row 1: .*not those of the conversation's last tokens"):
        imported(write_rows(tmp_path / "r.jsonl", rows), "axolotl", models.teacher, tmp_path / "shifted")


def test_shifted_rows_are_noticed(teacher: SimpleNamespace, tmp_path: Path) -> None:
    """A teacher that knows what follows: each token is nearly sure, and with shifted rows another one is."""
    ids = [(7 * index) % 90 + 5 for index in range(150)]
    sure = SimpleNamespace(after=lambda own: np.log(np.full((len(own), 100), 1e-4) + 0.99 * np.eye(100)[[*own[1:], 0]]))
    imported(write_rows(tmp_path / "r.jsonl", [arcee_row(sure, ids, 4)]), "arcee", teacher.folder, tmp_path / "right")
    for shift in (-1, 1):
        rows = write_rows(tmp_path / "r.jsonl", [arcee_row(sure, ids, 4, shift=shift)])
        with pytest.raises(UsageError, match="the rows are shifted"):
            imported(rows, "arcee", teacher.folder, tmp_path / "shifted")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda row: row.update(top_values=row["top_values"][:-3], token_ids=row["token_ids"][:-3]),
            "places of log-prob",
        ),
        (lambda row: row["token_ids"][2].__setitem__(0, 10**6), "token 3: id 1000000 is beyond the vocabulary"),
        (lambda row: row["input_ids"].__setitem__(2, -1), "input_ids: id -1 is beyond"),
        (lambda row: row["top_values"][1].__setitem__(0, math.nan), "token 2: a log-probability is nan"),
        (lambda row: row["top_values"][1].__setitem__(0, 3.0), "token 2: the probabilities sum to 20"),
        (lambda row: row["token_ids"][1].__setitem__(0, row["token_ids"][1][1]), "token 2: an id is there twice"),
        (lambda row: row["top_values"][1].pop(), "token 2: 3 ids and 2 log-probabilities"),
        (lambda row: row.pop("top_values"), "neither token_ids and top_values nor"),
        (lambda row: row.update(packed_indices=[[1]], token_ids=None), "of the older form"),
        (
            lambda row: row.update(compressed_logprobs=[[1]], bytepacked_indices=[[1]], token_ids=None),
            "nothing says how",
        ),
        (lambda row: row.update(input_ids=[0.5] * len(row["input_ids"])), "whole numbers"),
    ],
)
def test_bad_rows_are_refused_by_their_number(
    teacher: SimpleNamespace, tmp_path: Path, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    ids = teacher.tokenizer.encode("the lamp is by the river")
    rows = [arcee_row(teacher, ids, 3) for _ in range(3)]
    change(rows[1])
    with pytest.raises(UsageError, match=rf"r\.jsonl, row 2: .*{why}"):
        imported(write_rows(tmp_path / "r.jsonl", rows), "arcee", teacher.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_import_and_what_does_not_fit(
    distil: Distil, teacher: SimpleNamespace, pair: SimpleNamespace, tmp_path: Path
) -> None:
    ids = teacher.tokenizer.encode("a text that nobody trains on")
    rows = write_rows(tmp_path / "r.jsonl", [arcee_row(teacher, ids, 3)])
    imported(rows, "arcee", pair.teacher, tmp_path / "out")
    with pytest.raises(PreconditionError, match=r"out exists"):
        imported(rows, "arcee", pair.teacher, tmp_path / "out")
    imported(rows, "arcee", pair.teacher, tmp_path / "out", overwrite=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_text(rows.read_text(encoding="utf-8") + '{"input_ids": [1,', encoding="utf-8")
    with pytest.raises(UsageError, match=r"cut\.jsonl, after row 1: a line is not JSON at its character 18$"):
        imported(cut, "arcee", pair.teacher, tmp_path / "cut")
    with pytest.raises(UsageError, match="has no chat template"):
        imported(rows, "axolotl", pair.teacher, tmp_path / "chat")
    named = f"logprobs:{tmp_path / 'out'}"
    with pytest.raises(PreconditionError, match="none of the training texts is among those"):
        distil(teacher_model=named, temperature=1.0)
    with pytest.raises(PreconditionError, match="has another vocabulary"):
        distil(teacher_model=named, temperature=1.0, student_model_path=pair.foreign_student)
    for settings, why in (
        ({"temperature": 2.0}, "at temperature 1"),
        ({"box_type": "black"}, "write no texts"),
        ({"temperature": 1.0, "teacher_cache": "exact"}, "weights, which are not here"),
    ):
        with pytest.raises(UsageError, match=why):
            distil(teacher_model=named, **settings)
    part = tmp_path / "out" / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(PreconditionError, match="is missing or damaged"):
        find_texts(ImportedFolder(tmp_path / "out"), [np.array(ids)])
    (tmp_path / "out" / "logprobs.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PreconditionError, match="holds no imported log-probabilities"):
        distil(teacher_model=named, temperature=1.0)
    with pytest.raises(UsageError, match="does not exist"):
        distil(teacher_model="logprobs:./absent", temperature=1.0)


# --- looking up and unpacking, against plain computations ---------------------------------------------------------------


def test_texts_are_found_wherever_they_stand(teacher: SimpleNamespace, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    # Few different tokens, so that beginnings are shared and short texts stand at many places.
    stored = [generator.integers(5, 8, size=length).tolist() for length in (40, 3, 25, 1000)]
    known = [arcee_row(SimpleNamespace(after=lambda own: np.full((len(own), 9), -9.0)), ids, 1) for ids in stored]
    folder = imported(write_rows(tmp_path / "r.jsonl", known), "arcee", teacher.folder, tmp_path / "out")
    texts = [np.array(stored[3][100:130]), np.array(stored[0][-4:]), np.array(stored[2]), np.array([5, 6, 7, 9])]
    texts += [np.array([*stored[0][-2:], *stored[1][:2]] + [5] * 9), np.zeros(0, dtype=np.int64)]
    joined = [(number, place, ids) for number, ids in enumerate(stored) for place in range(len(ids))]
    starts = np.cumsum([0, *map(len, stored)])
    for text, found in zip(texts, find_texts(folder, texts), strict=True):
        naive = [
            starts[number] + place for number, place, ids in joined if len(text) and ids[place : place + len(text)] == text.tolist()
        ]  # fmt: skip
        assert (found.first if found is not None else None) == (naive[0] if naive else None)


def test_compressed_values_are_unpacked() -> None:
    """Three places packed here bit by bit, as the format says."""
    compression = Compression.of(
        {"d": 300, "k": 9, "exact_k": 2, "exact_dtype": "bfloat16", "polynomial_terms": [0, 1, "sqrt"], "delta_encoding": True,
         "residual_bins": [{"scale_dtype": "float16", "element_bits": 3, "num_elements": 4},
                           {"scale_dtype": "float32", "element_bits": 1, "num_elements": 2}]}
    )  # fmt: skip
    generator = np.random.default_rng(3)
    for _ in range(3):
        ids = generator.choice(300, size=9, replace=False)
        exact, terms = np.array([-0.5, -0.25], dtype="<f4"), np.array([-0.5, 0.125, -0.25], dtype="<f4")
        steps, signs, scales = generator.integers(0, 8, size=4), generator.integers(0, 2, size=2), (0.5, 0.25)

        def bits(numbers: Any, width: int) -> bytes:
            text = "".join(f"{number:0{width}b}" for number in numbers)
            text += "0" * (-len(text) % 8)
            return bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))

        upper_half = exact.tobytes()[2:4] + exact.tobytes()[6:8]
        values = upper_half + terms.tobytes()
        values += np.array([scales[0]], dtype="<f2").tobytes() + bits(steps, 3)
        values += np.array([scales[1]], dtype="<f4").tobytes() + bits(signs, 1)
        expected = [*exact.tolist(), *(terms[0] + terms[1] * rank + terms[2] * math.sqrt(rank) for rank in range(7))]
        for rank, step in enumerate(steps):
            expected[2 + rank] += (step - 4) * scales[0]
        for rank, sign in enumerate(signs):
            expected[6 + rank] += (1 if sign else -1) * scales[1]
        found, logarithms = compression.unpacked([list(bits(ids, 9))], [list(values)])
        assert found.tolist() == [ids.tolist()]
        np.testing.assert_allclose(logarithms[0], np.cumsum(expected), atol=1e-6)
        with pytest.raises(BadRowError, match="bytes at a place"):
            compression.unpacked([list(bits(ids, 9))], [list(values[:-1])])
    with pytest.raises(ValueError, match="'layers' is not known"):
        Compression.of({"d": 9, "k": 1, "exact_k": 1, "layers": 1})


def test_the_command_and_a_compressed_file(
    exact: Any, teacher: SimpleNamespace, pair: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from distillkit.cli.import_commands import Given, run_import

    ids = read_texts(exact)[0]
    rows = teacher.after(ids)[:-1]
    width = math.ceil(math.log2(teacher.size))
    chosen = np.array([likeliest(row, 6) for row in rows])
    values = np.take_along_axis(rows, chosen, 1).astype("<f4")
    stream = [
        np.unpackbits(np.array(those, dtype=">u4").view(np.uint8).reshape(6, 4), axis=1)[:, -width:] for those in chosen
    ]
    packed = [np.packbits(one.ravel()).tolist() for one in stream]
    data = tmp_path / "data"
    data.mkdir()
    table = {
        "input_ids": [ids],
        "compressed_logprobs": [[list(row.tobytes()) for row in values]],
        "bytepacked_indices": [packed],
    }
    pq.write_table(pa.table(table), data / "data_0.parquet")
    settings = f"d: {teacher.size}\nk: 6\nexact_k: 6\ndelta_encoding: false\nresidual_bins: []\n"
    (data / "compression_config.yaml").write_text(settings, encoding="utf-8")
    out = tmp_path / "out"
    given = Given(str(data), "arcee", str(pair.teacher), str(out), None, "logprobs", "messages", False, False)
    run_import(given, Console(json_output=True))
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["texts"], told["places"]) == ("complete", 1, len(ids) - 1)
    assert f"--dataset-path {out / 'texts.jsonl'}" in told["next"]
    assert known_places(ImportedFolder(out), teacher) == len(ids) - 1
