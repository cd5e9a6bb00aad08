"""The defaults end to end: gpt2-xl, arnir0/Tiny-LLM, wikitext and pokemon from a Hub on this machine.

The repositories have the names, files and tokenizers of the real ones and small random weights. Nothing but
HF_ENDPOINT says that the Hub is another one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import warm_python
from hub_server import HubServer
from pyarrow import parquet
from tiny_models import make_paragraph, tiny_model

pytestmark = pytest.mark.real

PICTURES_BYTES = 4_000_000
POKEMON_ROWS = 130
Environment = Callable[..., dict[str, str]]


def serve_teacher(folder: Path, tokenizer: Path) -> None:
    """As gpt2-xl lies on the Hub: weights without the prefix `transformer.`, with masks among them; other formats too."""
    import torch
    from safetensors.torch import save_file

    model = tiny_model("gpt2", 50257, hidden=32, context=1024, bos_token_id=50256, eos_token_id=50256)
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(folder)
    weights = {f"h.{layer}.attn.bias": torch.ones(1, 1, 1024, 1024).tril() for layer in range(2)}
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            weights[name.removeprefix("transformer.")] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}', encoding="utf-8")
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "onnx/decoder_model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"?" * 100_000)


def serve_student(folder: Path, tokenizer: Path) -> None:
    model = tiny_model("llama", 32000, layers=1, hidden=64, context=1024, bos_token_id=1, eos_token_id=2, seed=1)
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")


def article_rows(generator: random.Random, articles: int) -> list[str]:
    """The lines of articles as WikiText has them: blank rows, titles, headings, paragraphs with spaces around."""
    rows: list[str] = []
    for number in range(articles):
        rows += ["", f" = The {number + 1}th Workshop = \n", ""]
        for heading in ("", " = = History = = \n", " = = = Later years = = = \n"):
            rows += [heading, ""] if heading else []
            rows += [f" {make_paragraph(generator, 5)} \n" for _ in range(2)] + [""]
    return rows


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def serve_wikitext(folder: Path) -> None:
    generator = random.Random(7)
    card = ["---", "license: cc-by-sa-3.0", "configs:"]
    for config in ("wikitext-103-raw-v1", "wikitext-2-raw-v1"):
        card += [f"- config_name: {config}", "  data_files:"]
        for split, articles in (("test", 60), ("train", 150), ("validation", 60)):
            write_parquet(
                folder / config / f"{split}-00000-of-00001.parquet", {"text": article_rows(generator, articles)}
            )
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", "# WikiText"]), encoding="utf-8")


def serve_pokemon(folder: Path) -> None:
    generator = random.Random(8)
    pictures = [
        {"bytes": generator.randbytes(PICTURES_BYTES // POKEMON_ROWS), "path": None} for _ in range(POKEMON_ROWS)
    ]
    columns = {
        "image": pictures,
        "text_en": [make_paragraph(generator, 2) for _ in range(POKEMON_ROWS)],
        "text_zh": ["一只宝可梦。"] * POKEMON_ROWS,
    }
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", columns)


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, gpt2_tokenizer_folder: Path, sentencepiece_32k_tokenizer_folder: Path
) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        serve_teacher(server.folder("gpt2-xl"), gpt2_tokenizer_folder)
        serve_student(server.folder("arnir0/Tiny-LLM"), sentencepiece_32k_tokenizer_folder)
        serve_wikitext(server.folder("Salesforce/wikitext", "datasets"))
        serve_pokemon(server.folder("wanghaofan/pokemon-wiki-captions", "datasets"))
        yield server


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything is run from; HF_HOME and output lie below."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def environment(hub: HubServer, work: Path) -> Environment:
    import distillkit

    def make(**variables: str) -> dict[str, str]:
        package_parent = str(Path(distillkit.__file__).resolve().parents[1])
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(work / "hf_home"), "PYTHONPATH": package_parent}
        return {**os.environ, **own, "NO_COLOR": "1", "NO_PROXY": "127.0.0.1", **variables}

    return make


def finished(
    command: list[str], work: Path, environment: dict[str, str], run: Callable[..., Any] = warm_python.run
) -> subprocess.CompletedProcess[str]:
    done = run(
        command, cwd=work, env=environment, capture_output=True, encoding="utf-8", timeout=400, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def distill(
    work: Path, environment: dict[str, str], folder_name: str, *options: str, run: Callable[..., Any] = warm_python.run
) -> subprocess.CompletedProcess[str]:
    """`distillkit distill --preset weak-pc`, smaller only to save time."""
    command = [sys.executable, "-m", "distillkit", "distill", "--preset", "weak-pc", "--folder-name", folder_name]
    smaller = ["--sample-size", "60", "--epochs", "1", "--max-length", "32", "--held-out-size", "20"]
    smaller += ["--batch-size", "5", "--learning-rate", "6e-4", "--allow-out-of-range"]
    return finished([*command, *smaller, *options], work, environment, run)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def first(hub: HubServer, work: Path, environment: Environment) -> subprocess.CompletedProcess[str]:
    """The first run on a machine that has nothing yet, from the first line of Python on."""
    return distill(work, environment(), "first", run=subprocess.run)


def test_the_default_pair_on_wikitext(first: subprocess.CompletedProcess[str], work: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = work / "output" / "first"
    validation = read(run / "validation.json")
    assert validation["verdict"] == "improved"
    assert validation["after"]["bits_per_byte"] < validation["before"]["bits_per_byte"]
    assert validation["after"]["teacher_kl"] is not None
    stats = read(run / "data" / "stats.json")
    assert stats["same_tokenizer"] is False
    assert "different: the teacher guides" in first.stderr
    assert stats["alignment"]["positions_aligned"] >= 0.8
    assert stats["alignment"]["bytes_aligned"] >= 0.8
    assert stats["alignment"]["mass_mapped"] > 0.99
    assert stats["splits"]["train"]["examples"] == 60
    assert "Traceback" not in first.stderr

    student = run / "student" / "best"
    tokenizer: Any = AutoTokenizer.from_pretrained(student)
    assert (len(tokenizer), tokenizer.bos_token, tokenizer.eos_token) == (32000, "<s>", "</s>")
    assert tokenizer.convert_ids_to_tokens(tokenizer("the harbour", add_special_tokens=False)["input_ids"])[0] == "▁the"
    model: Any = AutoModelForCausalLM.from_pretrained(student)
    assert (model.config.model_type, model.config.vocab_size, model.config.num_hidden_layers) == ("llama", 32000, 1)
    written = model.generate(**tokenizer("In the workshop", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert written.shape == (1, tokenizer("In the workshop", return_tensors="pt")["input_ids"].shape[1] + 4)


def test_articles_became_documents_without_their_headings(first: object, work: Path) -> None:
    from datasets import load_from_disk

    examples = load_from_disk(str(work / "output" / "first" / "data" / "train"))
    texts = examples["text"]
    assert all(text.strip() for text in texts)
    assert not [text for text in texts if " = " in text or "Workshop" in text or "Later years" in text]
    # The official parts: no text of one is in another.
    held_out = {part: set(load_from_disk(str(work / "output" / "first" / "data" / part))["text"]) for part in ("validation", "test")}  # fmt: skip
    assert not set(texts) & (held_out["validation"] | held_out["test"])
    assert not held_out["validation"] & held_out["test"]


def test_nothing_superfluous_was_downloaded(first: object, hub: HubServer) -> None:
    for name in ("pytorch_model.bin", "tf_model.h5", ".msgpack", "rust_model.ot", ".onnx", "103-raw-v1/"):
        asked = [request.path for request in hub.requests if "/resolve/" in request.path and name in request.path]
        assert not asked
    weights = hub.folder("gpt2-xl") / "model.safetensors"
    assert hub.bytes_served("/gpt2-xl/resolve") >= weights.stat().st_size
    # Once, though both prepare-data and the later stages need it.
    assert hub.bytes_served("/gpt2-xl/resolve") < 2 * weights.stat().st_size


def test_pokemon_in_python_without_its_pictures(
    first: object, hub: HubServer, work: Path, environment: Environment
) -> None:
    program = """
import json, sys
from distillkit import distill_models
result = distill_models(dataset="pokemon", sample_size=100, max_length=64, held_out_size=20, epochs=1, control=False, batch_size=10, no_cuda=True,
                        save_plot=False, folder_name="pokemon")
print(json.dumps(result.as_dict()))
"""
    done = finished([sys.executable, "-c", program], work, environment())
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["verdict"] in ("improved", "inconclusive")
    assert (work / result["student_path"] / "model.safetensors").is_file()
    stats = read(work / "output" / "pokemon" / "data" / "stats.json")
    found = stats["splits"]["train"]["examples"]
    assert 0 < found < 100
    assert f"gives {found} training examples, fewer than sample_size 100: all are used" in done.stderr
    file = next(hub.folder("wanghaofan/pokemon-wiki-captions", "datasets").rglob("*.parquet"))
    assert file.stat().st_size > PICTURES_BYTES
    assert 0 < hub.bytes_served("pokemon-wiki-captions/resolve") < PICTURES_BYTES / 20


def test_afterwards_no_hub_is_needed(first: object, hub: HubServer, work: Path, environment: Environment) -> None:
    asked = len(hub.requests)
    done = distill(
        work, environment(HF_HUB_OFFLINE="1"), "offline", "--skip-validation", "--no-save-plot", "--no-control"
    )
    assert len(hub.requests) == asked
    assert "the copy in the cache is used" in done.stderr
    # The same models, texts and training, to the last bit.
    for name in ("data/models.json", "student/best/model.safetensors"):
        again, before = (work / "output" / folder / name for folder in ("offline", "first"))
        assert again.read_bytes() == before.read_bytes()
    again, before = (read(work / "output" / folder / "data" / "stats.json") for folder in ("offline", "first"))
    assert again["splits"] == before["splits"]
    assert "offline mode is on" in " ".join(again["notes"])


def test_black_box_on_the_same_pair(first: object, work: Path, environment: Environment) -> None:
    smaller = [
        "--sample-size",
        "20",
        "--allow-out-of-range",
        "--batch-size",
        "10",
        "--skip-validation",
        "--no-save-plot",
    ]
    done = distill(work, environment(), "black", "--box-type", "black", *smaller)
    run = work / "output" / "black"
    stats = read(run / "data" / "stats.json")
    assert stats["same_tokenizer"] is False
    assert "alignment" not in stats
    generated = [json.loads(line) for line in (run / "teacher" / "generated.jsonl").read_text("utf-8").splitlines()]
    assert generated
    assert "Traceback" not in done.stderr
    assert (run / "student" / "best" / "model.safetensors").is_file()
    assert not (run / "validation.json").exists()
