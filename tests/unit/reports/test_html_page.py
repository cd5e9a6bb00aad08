"""report.html from made-up facts: what it says, that hostile texts do no harm, that it reads without eyes and without colour."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from distillkit.reports.html.charts import averaged, bins
from distillkit.reports.html.drawing import Scale, log_ticks, tick_words, ticks
from distillkit.reports.html.elements import escaped
from distillkit.reports.html.facts import HeldOutText, ReportFacts, StageFacts
from distillkit.reports.html.page import SECTIONS, report_page
from distillkit.reports.html.style import DARK, LIGHT
from distillkit.reports.html.writer import Writer, looked_up
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters

HOSTILE = "</script></style><img src=x onerror=alert(1)>\x1b[31m\x07\u202e\u2066\ud800 &lt; \"'`${1}{name} %s"
SHOWN = "⟨U+202E⟩⟨U+2066⟩"
MODELS = ("before", "control", "after", "teacher")


def model(bits: float) -> dict[str, Any]:
    return {
        "bits_per_byte": bits, "bits_per_byte_ci95": [bits - 0.1, bits + 0.1], "perplexity": 10.125 * bits,
        "tokens": 5678, "parameters": 12_345_678, "size_bytes": 49_382_712, "teacher_agreement": 0.4321,
        "teacher_kl": 1.5, "generated_tokens_per_second": 54.321,
        "answers": {"asked": 24, "stopped": 13, "share": 0.54, "mean_tokens": 75.4, "limit": 128},
    }  # fmt: skip


def split_bits(factor: float) -> dict[str, Any]:
    return {
        "kind": {name: {"bits": factor * size, "bytes": size} for name, size in
                 (("words", 700), ("digits", 100), ("punctuation", 150), ("space", 0))},
        "rarity": {name: {"bits": factor * 100, "bytes": 100} for name in ("never", "1-9", "10-99", "100+")},
        "position": {name: {"bits": factor * 100, "bytes": 100} for name in ("1-16", "17-64")},
    }  # fmt: skip


def made_facts(**changes: Any) -> ReportFacts:
    documents = list(range(30))
    bits = {name: [factor * (800 + 10 * number) for number in documents] for name, factor in
            (("before", 2.0), ("control", 1.6), ("after", 1.5), ("teacher", 1.0))}  # fmt: skip
    bits["after"][3] = 9000.0
    of_models = {name: split_bits(factor) for name, factor in zip(MODELS, (2.0, 1.6, 1.5, 1.0), strict=True)}
    lost = {division: {name: found[division] for name, found in of_models.items()} for division in split_bits(1.0)}
    config = dataclasses.asdict(Parameters()) | {"epochs": 7, "seed": 43, "dataset": HOSTILE}
    facts: dict[str, Any] = {
        "name": "a-run",
        "version": "1.2.3",
        "created": "2026-01-05T12:00:00+00:00",
        "config": config,
        "sources": dict.fromkeys(config, "default") | {"epochs": "flag", "seed": "preset quick", "dataset": HOSTILE},
        "command": ["distillkit", "distill", "--epochs", "7", "--dataset", HOSTILE.replace("\ud800", "")],
        "config_yaml": "epochs: 7\n",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "device": {"type": "cpu", "name": "Some CPU", "precision": "bf16", "threads": 2, "memory_total": 25_276_510_208},
        "stages": {name: StageFacts("complete", 12.5) for name in
                   ("check-env", "prepare-data", "distill", "control", "validate", "demo", "plot")},
        "stats": {
            "source": HOSTILE, "same_tokenizer": False,
            "splits": {part: {"examples": 240, "documents": 200, "bytes": 43_920, "student_tokens": 21_606,
                              "teacher_tokens": 20_001} for part in ("train", "validation", "test")},
            "dropped": {"inexact": 3, "too_short": 0},
            "alignment": {"positions_aligned": 0.987, "bytes_aligned": 0.991, "positions_on_boundaries": 0.9, "mass_mapped": 0.8},
            "tokens_of_a_text": {"text": "Hé <b>llo", "student": [3, 4, 8, 10], "teacher": [1, 2, 3, 10]},
        },
        "cut": {"way": "greedy", "layers": 4, "kept": [0, 3], "influence": [0.9, 0.03, 0.02, 0.4],
                "removed": [{"layer": 1, "loss": 4.3}, {"layer": 2, "loss": 4.9}],
                "fit": {"layers": [{"layer": 0, "before": 0.2, "after": 0.1}]},
                "width": {"sizes": {"ffn": [1536, 952], "heads": [3, 3]}},
                "bits_per_byte": {"teacher": 3.0, "cut": 5.1, "fitted": 3.6, "tokens": 768}},
        "lines": [{"step": 0, "eval_bits_per_byte": 2.1}, {"step": 500, "eval_bits_per_byte": 1.6}]
        + [{"step": step, "loss": 3 - step / 500, "soft_loss": 1.0 + step / 1000, "hard_loss": 4.0} for step in range(1, 501)],
        "control_lines": [{"step": 0, "eval_bits_per_byte": 2.1}, {"step": 500, "eval_bits_per_byte": 1.7}],
        "metrics": {"train": {"steps": 500, "tokens": 10_016, "tokens_per_second": 163.79, "peak_memory_bytes": 5_454_913_536},
                    "decisions": {"compiled_loss": "off"}},
        "validation": {name: model(value) for name, value in zip(MODELS, (2.0, 1.6, 1.5, 1.0), strict=True)}
        | {"gain": {"bits_per_byte": 0.5, "ci95": [0.4, 0.6]}, "teacher_gain": {"bits_per_byte": 0.1, "ci95": [0.05, 0.15]},
           "gap_closed": 0.5, "verdict": "improved", "documents": 30, "bytes": 12_345},
        "details": {"documents": {"document": documents, "bytes": {name: [500] * 30 for name in MODELS}, "bits": bits},
                    "lost": lost, "texts_left_out": 2},
        "texts": {number: HeldOutText(f"text {number} {HOSTILE}", whole=number % 2 == 0) for number in documents},
        "demo": {"temperature": 0.7, "top_p": 0.9, "seed": 42,
                 "texts": [{"prompt": HOSTILE, "before": HOSTILE, "after": "", "teacher": "שלום"}]},
        "students": ["student/best"],
        "ggufs": {"student.q8_0.gguf": 1_234_567},
    }  # fmt: skip
    return ReportFacts(**facts | changes)


class Page(HTMLParser):
    """What is on a page: its elements in order, and the texts of those that are asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.figures: list[tuple[str, str, str]] = []
        self.headings: list[tuple[int, str]] = []
        self.words: list[str] = []
        self._texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)
            self._texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        text = self._texts.pop()
        if self._texts and tag not in ("style", "svg"):
            self._texts[-1] += text
        attributes = next(found for name, found in reversed(self.elements) if name == tag)
        if tag == "data":
            self.figures.append((attributes["data-of"] or "", attributes["value"] or "", text))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), text))

    def handle_data(self, data: str) -> None:
        if self._texts:
            self._texts[-1] += data
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module", params=["en", "ru"])
def lang(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def text(lang: str) -> str:
    return report_page(made_facts(), lang)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_section_is_there_and_can_be_reached(page: Page, lang: str) -> None:
    anchors = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert anchors == ["#main", *(f"#{name}" for name in SECTIONS)]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {anchor[1:] for anchor in anchors if anchor} <= set(ids)
    assert page.elements[0] == ("html", {"lang": lang})


def test_headings_go_down_one_step_at_a_time(page: Page) -> None:
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(text.strip() for _, text in page.headings)


def test_pictures_tables_and_scrolling_parts_have_names(page: Page) -> None:
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or (
                attributes.get("role") == "img" and attributes["aria-label"]
            )
        if "tabindex" in attributes and tag == "div":
            assert attributes["role"] == "group"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert page.count("table") == page.count("caption") > 4
    assert page.count("figure") == page.count("figcaption") == 8


def test_hostile_texts_are_texts(text: str, page: Page) -> None:
    assert page.count("script") == page.count("img") == page.count("b") == 0
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.count("style") == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    words = "".join(page.words)
    assert words.count(SHOWN) >= 3 + 20  # a parameter, its source, the prompt and samples; documents
    assert "<img src=x onerror=alert(1)>" in words
    assert str(escaped(HOSTILE)) in text


def test_nothing_is_fetched(text: str, page: Page) -> None:
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_figures_are_those_of_the_files(page: Page, lang: str) -> None:
    facts = made_facts()
    named = {path for path, _, _ in page.figures}
    for name in MODELS:
        assert f"validation.{name}.bits_per_byte" in named
        assert {f"validation.{name}.bits_per_byte_ci95.{end}" for end in (0, 1)} <= named
    assert {"validation.gain.bits_per_byte", "validation.teacher_gain.ci95.0", "validation.gap_closed"} <= named
    for path, value, _ in page.figures:
        file, *keys = path.split(".")
        assert float(value) == looked_up(facts.content(file), keys), path
    shown = {path: text for path, _, text in page.figures}
    expected = {
        "validation.after.bits_per_byte": "1.5000", "validation.gap_closed": "50.0 %", "validation.bytes": "12.3 kB",
        "validation.after.perplexity": "15.19", "stats.splits.train.student_tokens": "21,606",
    }  # fmt: skip
    if lang == "ru":
        expected = {
            "validation.after.bits_per_byte": "1,5000", "validation.gap_closed": "50,0 %", "validation.bytes": "12,3 кБ",
            "validation.after.perplexity": "15,19", "stats.splits.train.student_tokens": "21 606",
        }  # fmt: skip
    for path, text in expected.items():
        assert shown[path].replace("\xa0", " ") == text, path


def verdict(**changes: Any) -> str:
    return Page(report_page(made_facts(**changes), "en")).headings[0][1]


def validated(**changes: Any) -> dict[str, Any]:
    return {**made_facts().validation, **changes}


def test_the_verdict_is_one_sentence_with_the_teachers_own_share() -> None:
    assert verdict() == (
        "The student improved from 2.0000 to 1.5000 bits per byte on texts it had not seen, and 0.1000 [0.0500, 0.1500] of "
        "that is the teacher’s own share."
    )
    unsure = {"bits_per_byte": 0.1, "ci95": [-0.05, 0.15]}
    assert verdict(validation=validated(teacher_gain=unsure)).endswith(
        "; the teacher’s own share, 0.1000 [−0.0500, 0.1500], is not shown to be above zero."
    )
    lost = {"bits_per_byte": -0.1, "ci95": [-0.15, -0.05]}
    assert "it lost to the same training without a teacher" in verdict(validation=validated(teacher_gain=lost))
    assert "yet the teacher helped" in verdict(validation=validated(verdict="worse"))
    assert "not shown to have improved" in verdict(validation=validated(verdict="inconclusive"))
    alone = {name: value for name, value in validated().items() if name not in ("control", "teacher_gain")}
    assert verdict(validation=alone).endswith("is not known, for lack of a control.")
    no_part = {**made_facts().config, "alpha": 0.0}
    assert verdict(validation=alone, config=no_part).endswith("the teacher had no part in it.")
    few = {"bits_per_byte": 0.1, "ci95": None}
    assert "share, 0.1000, is not shown" in verdict(validation=validated(teacher_gain=few))


def test_further_from_the_teacher_and_too_few_texts_are_said() -> None:
    def said(**changes: Any) -> str:
        return "".join(Page(report_page(made_facts(validation=validated(**changes)), "en")).words).replace("\xa0", " ")

    after = {**model(1.5), "teacher_agreement": 0.343, "teacher_kl": 1.618}
    assert "the same first choice in 34.3 % of the tokens, before 43.2 %; a divergence of 1.6180 nats" in said(
        after=after
    )
    assert "further from what" not in said()
    assert "Gap to the teacher closed50.0 %" in said()
    few = {"bits_per_byte": 0.1, "ci95": None}
    assert "Gap to the teacher closed–too few documents" in said(gain=few, verdict="inconclusive")


def test_where_the_bits_are_lost(page: Page, lang: str) -> None:
    words = "".join(page.words).replace("\xa0", " ")
    # 700 of 950 bytes are in words; the class without a byte is left out.
    assert {"en": "words73.7 %73.7 %2.00001.60001.50001.0000", "ru": "слова73,7 %73,7 %2,00001,60001,50001,0000"}[
        lang
    ] in words
    assert {"en": "white space", "ru": "пробелы и переводы строк"}[lang] not in words
    assert {"en": "Left out: 2 texts", "ru": "какие байты записывает токен: 2"}[lang] in words


def test_the_best_and_the_worst_documents(page: Page) -> None:
    words = "".join(page.words).replace(",", ".")
    # Document 29 has 1090 units: (2.0 - 1.5) * 1090 / 500 bytes; document 3 was spoilt.
    assert words.index("+1.0900") < words.index("+1.0800") < words.index("−14.6800") < words.index("+0.8000")
    assert words.index("text 29 ") < words.index("text 28 ") < words.index("text 3 ") < words.index("text 0 ")


def test_a_text_token_by_token(text: str) -> None:
    """Three bytes are `Hé`; the teacher has a boundary inside of the é."""
    student, teacher = re.findall('<div class="tokens".*?</div>', text)
    assert re.findall("<span[^>]*>(.*?)</span>", student) == ["Hé", "·", "&lt;b&gt;l", "lo"]
    assert re.findall("<span[^>]*>(.*?)</span>", teacher) == ["H", "\ufffd", "\ufffd", "·&lt;b&gt;llo"]
    assert student.count('class="own"') == 2
    assert teacher.count('class="own"') == 2


def without(*stages: str) -> dict[str, StageFacts]:
    return {name: record for name, record in made_facts().stages.items() if name not in stages}


EMPTY: dict[str, Any] = {
    "stages": {}, "stats": {}, "cut": {}, "lines": [], "control_lines": [], "metrics": {}, "validation": {}, "details": {},
    "texts": {}, "demo": {}, "students": [], "ggufs": {}, "device": {}, "versions": {}, "config_yaml": "", "command": [],
}  # fmt: skip
UNMEASURED: dict[str, Any] = {"validation": {}, "details": {}, "texts": {}, "stages": without("validate")}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (EMPTY, ["The training has not come to its end", "The student has not been trained.", "distillkit distill --run .",
                 "The texts are not prepared yet", "There is no student yet"]),
        (UNMEASURED, ["nothing is known of its quality", "there is no verdict", "distillkit validate --run ."]),
        ({"stages": without("demo"), "demo": {}}, ["There are no samples", "distillkit demo --run ."]),
        ({"stages": {**without("control"), "control": StageFacts("complete", 1.0, why="it takes too long")}},
         ["No control was trained (it takes too long)", "distillkit control --run ."]),
        ({"stages": {**without(), "distill": StageFacts("failed", error=f"disk {HOSTILE}")}}, ["distill failed: ", SHOWN]),
        ({"stages": {**without(), "distill": StageFacts("running")}}, ["distill was cut off before its end"]),
        ({"details": {}, "texts": {}}, ["were not recorded", "distillkit validate --run . --force"]),
        ({"problems": ["data/stats.json is damaged"], "stats": {}}, ["A file of the run cannot be read: data/stats.json"]),
        ({"config": {**made_facts().config, "box_type": "black"}}, ["Black box"]),
        ({"validation": {name: value for name, value in made_facts().validation.items() if name != "teacher"}},
         ["The teacher is behind a server"]),
        ({"command": []}, ["distillkit distill --config config.yaml"]),
    ],
    ids=["nothing", "not measured", "no demo", "no control", "failed", "cut off", "no details", "damaged", "black box",
         "served", "no flags"],
)  # fmt: skip
def test_what_is_missing_is_said(changes: dict[str, Any], told: list[str]) -> None:
    words = "".join(Page(report_page(made_facts(**changes), "en")).words)
    for part in told:
        assert part in words
    Page(report_page(made_facts(**changes), "ru"))


def test_a_student_of_its_own_has_no_section_of_layers() -> None:
    assert "layers" not in [
        attributes.get("id") for _, attributes in Page(report_page(made_facts(cut={}), "en")).elements
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "text", 1e300, True])
def test_figures_that_are_none_become_dashes(value: Any) -> None:
    spoilt = {**model(1.5), "bits_per_byte": value, "perplexity": value, "bits_per_byte_ci95": [value, value]}
    lines = [{"step": 1, "loss": value}, {"step": 2, "loss": 1.0}]
    changes: dict[str, Any] = {"validation": validated(after=spoilt, gap_closed=value), "lines": lines}
    for _, shown, _ in Page(report_page(made_facts(**changes), "en")).figures:
        assert abs(float(shown)) < 1e100


def test_a_long_run_stays_small() -> None:
    long = "x" * 100_000
    lines = [
        {"step": step, "loss": 1.0 + step % 7, "hard_loss": 2.0, "eval_bits_per_byte": 1.0} for step in range(20_000)
    ]
    demo = {"texts": [{"prompt": long, "before": long, "after": long, "teacher": long}] * 200}
    count = 5000
    details = {**made_facts().details, "documents": {
        "document": list(range(count)), "bytes": {name: [500] * count for name in MODELS},
        "bits": {name: [500.0 + number for number in range(count)] for name in MODELS},
    }}  # fmt: skip
    facts = made_facts(lines=lines, control_lines=lines, demo=demo, details=details, config_yaml=long,
                       config={**made_facts().config, "system_prompt": long}, command=["distillkit", long])  # fmt: skip
    assert len(report_page(facts, "en").encode()) < 3_000_000


def test_parameters_that_differ_come_first_with_their_sources(page: Page, lang: str) -> None:
    words = "".join(page.words)
    first, folded = words.split({"en": "All other parameters", "ru": "Остальные параметры"}[lang])
    assert "epochs" in first
    assert {"en": "command line", "ru": "командная строка"}[lang] in first
    assert {"en": "preset quick", "ru": "пресет quick"}[lang] in first
    assert "batch_size" not in first
    assert "batch_size" in folded
    for name in declared.location_names():
        assert f">{name}<" not in words


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough_for_everybody(scheme: dict[str, str]) -> None:
    """WCAG 2.1, AA: 4.5 for text, 3 for marks."""
    for colour in ("ink", "soft", "accent", "warn", "mark"):
        for paper in ("paper", "raised", "wash"):
            pair = sorted((luminance(scheme[colour]), luminance(scheme[paper])))
            least = 3.0 if colour == "mark" else 4.5
            if not (colour == "mark" and paper == "wash"):
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (colour, paper)


def test_numbers_of_either_language() -> None:
    english, russian = (Writer(made_facts(), lang) for lang in ("en", "ru"))

    def shown(w: Writer) -> list[str]:
        return [
            w.shown(-0.01234, "gain"), w.shown(1234567, "count"), w.shown(3700, "seconds"), w.shown(1.2e9, "millions"),
            w.shown(999, "bytes"), w.shown(1.26e12, "bytes"),
        ]  # fmt: skip

    assert shown(english) == ["−0.0123", "1,234,567", "1:01:40", "1.2 billion", "999\xa0B", "1.3\xa0TB"]
    assert shown(russian) == ["−0,0123", "1\xa0234\xa0567", "1:01:40", "1,2 млрд", "999\xa0Б", "1,3\xa0ТБ"]


def test_axes() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(1.38, 1.65) == pytest.approx([1.4, 1.45, 1.5, 1.55, 1.6, 1.65])
    assert ticks(3, 3) == [3]
    assert all(mark == int(mark) for mark in ticks(0, 3, 6, whole=True))
    assert log_ticks(0.5, 2000) == [1, 3, 10, 30, 100, 300, 1000]
    assert log_ticks(1e-6, 1e6) == pytest.approx(
        [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1e3, 1e4, 1e5, 1e6][::1]
    )
    assert tick_words([0.5, 1.0, 1.25]) == ["0.50", "1.00", "1.25"]
    assert tick_words([-1.5, 0.0], ",") == ["−1,5", "0,0"]
    scale = Scale(1, 100, 0, 10, log=True)
    assert [scale(value) for value in (1, 10, 100, 1e9, -5)] == pytest.approx([0, 5, 10, 10, 0])


def test_many_points_are_averaged_and_few_are_not() -> None:
    points = [(float(step), float(step % 2)) for step in range(1000)]
    found, size = averaged(points, 100)
    assert size == 10
    assert found[0] == (4.5, 0.5)
    assert averaged(points[:5], 100) == (points[:5], 1)


@pytest.mark.parametrize(
    "values", [[-1.0, 2.0], [0.0], [5.0] * 9, [-3.0, -2.0], [1e-9, 2e-9], [-1.0, *[0.1] * 500, 90.0]]
)
def test_bins_have_an_edge_at_zero(values: list[float]) -> None:
    low, high, size = bins(values)
    assert size > 0
    assert low <= 0 <= high
    assert low / size == pytest.approx(round(low / size), abs=1e-6)
    assert 1 <= round((high - low) / size) <= 60
