"""The pictures of a run: what is drawn, from which figures, and that odd figures do no harm."""

from __future__ import annotations

import math
import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from distillkit.reports import bar_plots, curve_plots, drawing, plots
from distillkit.reports.curve_plots import throughput
from distillkit.reports.drawing import dwarfs, is_logarithmic, moving_average
from distillkit.reports.plots import draw_plots

VALIDATION: dict[str, Any] = {
    "teacher": {"bits_per_byte": 0.9812, "perplexity": 12.1},
    "before": {"bits_per_byte": 2.4117, "perplexity": 90.0},
    "after": {"bits_per_byte": 1.4433, "perplexity": 25.0},
    "gap_closed": 0.677,
    "gain": {"bits_per_byte": 0.9684, "ci95": [0.921, 1.0181]},
    "verdict": "improved",
    "documents": 120,
    "bytes": 81_233,
}

DETAILS: dict[str, Any] = {
    "documents": {
        "document": [4, 7, 9, 2], "bytes": {"after": [100, 200, 50, 0]},
        "bits": {"before": [300.0, 300.0, 100.0, 0.0], "after": [200.0, 310.0, 20.0, 0.0]},
    }
}  # fmt: skip

CUT: dict[str, Any] = {"way": "greedy", "kept": [0, 3], "layers": 4, "influence": [0.5, 0.01, None, 0.2]}
PICTURES = ("loss", "score", "learning_rate", "throughput", "comparison", "gains")

RUN_NAME = "SmolLM2-135M-Instruct.Q4_1_to_teacher-layers-10_white_python-docs_20260105-120000"


def training_lines(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "step": step, "epoch": step / count, "loss": 2 + 1 / step, "soft_loss": 1 + 1 / step,
            "hard_loss": 3 + 1 / step, "learning_rate": 4e-4 * (1 - step / count), "grad_norm": 1 + math.sin(step) / 2,
            "tokens": 100 * step, "seconds": 0.5 * step, **changes,
        }
        for step in range(1, count + 1)
    ]  # fmt: skip


def held_out_lines(*scores: float) -> list[dict[str, Any]]:
    return [{"step": 10 * place, "eval_bits_per_byte": score, "epoch": 0.1} for place, score in enumerate(scores)]


@pytest.fixture(autouse=True)
def few_dots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests look at no pixels."""
    if "as_png_and_svg" not in request.node.name:
        monkeypatch.setattr(drawing, "DPI", 50)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures by the name of their picture; they are still written."""
    figures: dict[str, Figure] = {}
    write = plots.write_figure

    def remember(figure: Figure, folder: Path, name: str) -> list[Path]:
        figures[name] = figure
        return write(figure, folder, name)

    monkeypatch.setattr(plots, "write_figure", remember)
    return figures


def as_metrics(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def png_dots_per_inch(content: bytes) -> float:
    place = content.index(b"pHYs") + 4
    return struct.unpack(">I", content[place : place + 4])[0] * 0.0254


def test_everything_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    paths = draw_plots(
        training_lines(12) + held_out_lines(2.4, 1.5), VALIDATION, tmp_path, title="my run", details=DETAILS
    )
    names = [f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
            assert png_dots_per_inch(content) >= 239
        else:
            assert ElementTree.fromstring(content).tag.endswith("svg")


def test_background_is_opaque_and_light(tmp_path: Path) -> None:
    draw_plots(training_lines(3), VALIDATION, tmp_path, title="run")
    for path in tmp_path.glob("*.png"):
        pixels = matplotlib.image.imread(str(path))
        corner = pixels[2, 2]
        assert (corner[:3] > 0.9).all(), path.name
        assert pixels.shape[2] == 3 or (pixels[..., 3] == 1).all(), path.name


def test_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths = draw_plots(training_lines(300) + held_out_lines(2.0, 1.0), VALIDATION, tmp_path / name, title="run")
        contents.append({path.name: path.read_bytes() for path in paths})
    assert contents[0] == contents[1]
    assert b"<dc:date>" not in contents[0]["loss.svg"]


def test_settings_of_others_neither_count_nor_change(tmp_path: Path) -> None:
    for name in ("plain", "foreign"):
        (tmp_path / name).mkdir()
    draw_plots(training_lines(3), None, tmp_path / "plain", title="run")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "svg.hashsalt": "other"}):
        draw_plots(training_lines(3), None, tmp_path / "foreign", title="run")
        assert matplotlib.rcParams["font.size"] == 30
        assert matplotlib.rcParams["axes.facecolor"] == "black"
    for name in ("loss.png", "loss.svg"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "foreign" / name).read_bytes()


def test_pyplot_is_not_used() -> None:
    for module in (plots, drawing, curve_plots, bar_plots):
        assert "pyplot" not in vars(module)
        assert all(value is not sys.modules.get("matplotlib.pyplot") for value in vars(module).values())


@pytest.mark.parametrize(
    ("metrics", "validation"),
    [
        ([], None),
        ([], {}),
        ([{"step": 1}, {"loss": 2.0}], None),
        ([{"step": 1, "loss": math.nan}], {"teacher": {}}),
        ([{"step": 1, "loss": "2.0"}, {"step": 2, "loss": True}], {"gain": {"bits_per_byte": 0.1, "ci95": None}}),
    ],
)
def test_nothing_to_draw(metrics: list[dict[str, Any]], validation: dict[str, Any] | None, tmp_path: Path) -> None:
    assert draw_plots(metrics, validation, tmp_path, title="run") == []
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_known_is_drawn(tmp_path: Path) -> None:
    def stems(metrics: list[dict[str, Any]], validation: dict[str, Any] | None) -> list[str]:
        return [path.stem for path in draw_plots(metrics, validation, tmp_path, title="run")[::2]]

    assert stems([], VALIDATION) == ["comparison"]
    assert stems([{"step": 1, "loss": 2.0}], None) == ["loss"]
    assert stems(held_out_lines(1.5), None) == ["score"]
    assert stems([{"step": 1, "grad_norm": 0.0}], None) == ["learning_rate"]


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, 1e300, -1.0])
def test_odd_values_are_survived(value: float, tmp_path: Path) -> None:
    changes = dict.fromkeys(("loss", "soft_loss", "hard_loss", "learning_rate", "grad_norm"), value)
    validation = {name: {"bits_per_byte": value} for name in ("before", "after", "teacher")}
    lines = [*training_lines(3), {"step": 4, **changes}, {"step": 0, "eval_bits_per_byte": value}, {"step": 10**400}]
    draw_plots(lines, validation, tmp_path, title="run")
    assert (tmp_path / "learning_rate.png").is_file()


def test_one_line_is_enough(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots([*training_lines(1), {"step": 1, "eval_bits_per_byte": 1.5}], None, tmp_path, title="run")
    assert set(drawn) == {"loss", "score", "learning_rate", "throughput"}
    for line in drawn["loss"].axes[0].get_lines():
        assert line.get_marker() not in ("None", None, "")


def test_lines_that_are_not_finite_are_left_out(drawn: dict[str, Figure], tmp_path: Path) -> None:
    lines = training_lines(6)
    lines[2]["loss"], lines[3]["loss"], lines[4]["loss"] = math.nan, math.inf, None
    draw_plots(lines, None, tmp_path, title="run")
    total = next(line for line in drawn["loss"].axes[0].get_lines() if line.get_label() == "total")
    assert list(np.asarray(total.get_xdata())) == [1, 2, 6]


@pytest.mark.parametrize("missing", [True, False])
def test_without_a_soft_term(missing: bool, drawn: dict[str, Figure], tmp_path: Path) -> None:
    lines = training_lines(5, soft_loss=0.0)
    for line in lines if missing else []:
        del line["soft_loss"]
    draw_plots(lines, None, tmp_path, title="run")
    assert len(drawn["loss"].axes[0].get_lines()) == 2
    assert "soft" not in as_metrics(drawn["loss"])


def test_terms_differ_without_colour(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots(training_lines(5), VALIDATION, tmp_path, title="run")
    lines = drawn["loss"].axes[0].get_lines()
    assert len({line.get_linestyle() for line in lines}) == len({line.get_marker() for line in lines}) == 3
    assert len({bar.get_hatch() for bar in drawn["comparison"].axes[0].patches}) == 3


def test_thousands_of_steps_are_smoothed(drawn: dict[str, Figure], tmp_path: Path) -> None:
    lines = training_lines(3000)
    for line in lines:
        line["loss"] = 2 + (-1) ** line["step"]
    draw_plots(lines, None, tmp_path, title="run")
    axes = drawn["loss"].axes[0]
    assert len(axes.get_lines()) == 6
    faint, total = axes.get_lines()[:2]
    assert (faint.get_alpha() or 1) < 0.5
    assert np.ptp(np.asarray(faint.get_ydata())) == 2
    assert np.ptp(np.asarray(total.get_ydata())) < 0.2
    assert "moving average" in as_metrics(drawn["loss"])
    draw_plots(lines[:200], None, tmp_path, title="run")
    assert len(drawn["loss"].axes[0].get_lines()) == 3
    assert "moving average" not in as_metrics(drawn["loss"])


def test_moving_average() -> None:
    assert moving_average(np.array([1.0, 2.0, 3.0, 4.0, 8.0]), 3).tolist() == [1.5, 2.0, 3.0, 5.0, 6.0]
    assert moving_average(np.full(7, 2.5), 5).tolist() == [2.5] * 7
    assert moving_average(np.array([]), 5).tolist() == []
    assert moving_average(np.array([1.0, 9.0]), 1).tolist() == [1.0, 9.0]


def test_score_marks_the_best_step_and_the_references(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots(held_out_lines(2.4, 1.5, 1.7), VALIDATION, tmp_path, title="run")
    words = as_metrics(drawn["score"])
    assert "best: 1.5000, step 10" in words
    assert "before (test): 2.4117" in words
    assert "teacher (test): 0.9812" in words
    assert "level lines: test texts" in words
    assert "bits per byte, lower is better" in words
    draw_plots(held_out_lines(2.4, 1.5), None, tmp_path, title="run")
    assert "teacher" not in as_metrics(drawn["score"])


def test_comparison_says_the_figures(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots([], VALIDATION, tmp_path, title="run")
    words = as_metrics(drawn["comparison"])
    for expected in (
        "2.4117", "1.4433", "0.9812", "student\nbefore", "student\nafter", "gain 0.9684 bits per byte, 95% [0.9210, 1.0181]",
        "68% of the gap closed", "verdict: improved", "120 documents", "81,233 bytes",
        "bits per byte, lower is better",
    ):  # fmt: skip
        assert expected in words
    assert [bar.get_height() for bar in drawn["comparison"].axes[0].patches] == [2.4117, 1.4433, 0.9812]


def test_comparison_without_interval_and_gap(drawn: dict[str, Figure], tmp_path: Path) -> None:
    gain = {"bits_per_byte": -0.01, "ci95": None}
    draw_plots([], {**VALIDATION, "gap_closed": 0.86, "gain": gain, "documents": 1}, tmp_path, title="run")
    words = as_metrics(drawn["comparison"])
    assert "gain -0.0100 bits per byte\n" in words
    assert "95%" not in words
    assert "closed" not in words
    assert "1 document," in words


@pytest.mark.parametrize(("count", "letter"), [(5, "W"), (40, "i"), (3000, "w")])
def test_legends_and_small_print_cover_nothing(
    count: int, letter: str, drawn: dict[str, Figure], tmp_path: Path
) -> None:
    """Everything lies on the card; legends, small print and panels with their labels do not touch each other."""
    lines = training_lines(count) + held_out_lines(2.4, 1.5)
    draw_plots(lines, VALIDATION, tmp_path, title=letter * 200, control=lines, details=DETAILS, cut=CUT)
    assert set(drawn) == {*PICTURES, "layers"}
    for name, figure in drawn.items():
        renderer = drawing.FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        below = [legend.get_window_extent(renderer) for legend in figure.legends]
        below += [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
        assert len(below) == (0 if name == "learning_rate" else 1)
        for axes in figure.axes:
            box = axes.get_tightbbox(renderer)
            assert box is not None
            assert not any(box.overlaps(other) for other in below), name
            below.append(box)
        for box in below:
            assert box.x0 >= 0, name
            assert box.y0 >= 0, name
            assert box.x1 <= figure.bbox.x1, name
            assert box.y1 <= figure.bbox.y1, name


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("cost $x^2$ and $\\frac", "cost $x^2$ and $\\frac"),
        ("red \x1b[31malert\x1b[0m\x07", "red alert"),
        ("two\nlines\tand   blanks", "two lines and blanks"),
        ("token hf_abcdefghijklmnop", "token [secret]"),
        ("опыт 漢字", "опыт □□"),
        (RUN_NAME, "SmolLM2-135M-Instruct.Q4_…hon-docs_20260105-120000"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_titles_of_strangers(title: str, shown: str, drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots([], {**VALIDATION, "verdict": "im$proved$"}, tmp_path, title=title)
    assert shown in as_metrics(drawn["comparison"]).split("\n")
    ElementTree.fromstring((tmp_path / "comparison.svg").read_bytes())


@pytest.mark.parametrize("letter", ["W", "i", "ж"])
def test_a_long_title_keeps_both_ends(letter: str, drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots([], VALIDATION, tmp_path, title=f"teacher{letter * 20_000}20260105-120000")
    found = [line for line in as_metrics(drawn["comparison"]).split("\n") if "…" in line]
    assert len(found) == 1
    assert found[0].startswith(f"teacher{letter}")
    assert found[0].endswith(f"{letter}20260105-120000")


def test_letters_are_six_points_high_in_a_column_of_a_paper(drawn: dict[str, Figure], tmp_path: Path) -> None:
    lines = training_lines(40) + held_out_lines(20.0, 1.5, 1.4)
    draw_plots(lines, VALIDATION, tmp_path, title="run", control=lines, details=DETAILS, cut=CUT)
    assert set(drawn) == {*PICTURES, "layers"}
    for name, figure in drawn.items():
        shrunk = (80 / 25.4) / figure.get_figwidth()
        sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_visible() and text.get_text()}  # type: ignore[attr-defined]
        assert min(sizes) * shrunk >= 6, name


def test_the_control_is_in_the_curves_and_the_bars(drawn: dict[str, Figure], tmp_path: Path) -> None:
    control = [*training_lines(6, hard_loss=3.5), *held_out_lines(2.4, 1.9)]
    measured = {**VALIDATION, "control": {"bits_per_byte": 1.6}, "teacher_gain": {"bits_per_byte": 0.1567}}
    draw_plots(training_lines(6) + held_out_lines(2.4, 1.5), measured, tmp_path, title="run", control=control)
    untaught = next(line for line in drawn["loss"].axes[0].get_lines() if "no teacher" in str(line.get_label()))
    assert list(np.asarray(untaught.get_ydata())) == [3.5] * 6
    for name in ("loss", "score", "throughput"):
        assert "no teacher" in as_metrics(drawn[name])
    assert [bar.get_height() for bar in drawn["comparison"].axes[0].patches] == [2.4117, 1.6, 1.4433, 0.9812]
    assert "the teacher's part 0.1567" in as_metrics(drawn["comparison"])


def test_throughput_is_that_between_two_lines(drawn: dict[str, Figure], tmp_path: Path) -> None:
    lines = [
        {"step": 2, "tokens": 300, "seconds": 3.0},
        {"step": 3, "eval_bits_per_byte": 1.0},
        {"step": 4, "tokens": 900, "seconds": 5.0},
        {"step": 6, "tokens": 900, "seconds": 6.0},  # nothing was trained
        {"step": 8, "tokens": 1000, "seconds": 6.0},  # no time passed
        {"step": 9, "tokens": None, "seconds": 7.0},
        {"step": 10, "tokens": 1100, "seconds": 8.0},
    ]
    steps, speeds = throughput(lines)
    assert (steps.tolist(), speeds.tolist()) == ([2, 4, 10], [100.0, 300.0, 50.0])
    draw_plots(lines, None, tmp_path, title="run", control=[{"step": 2, "tokens": 500, "seconds": 1.0}])
    assert {"student, median 100", "no teacher, median 500"} <= set(as_metrics(drawn["throughput"]).split("\n"))


def test_gains_of_documents(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots([], None, tmp_path, title="run", details=DETAILS)
    words = as_metrics(drawn["gains"]).split("\n")
    # (300 - 200) / 100, (300 - 310) / 200, (100 - 20) / 50; the last document has no bytes.
    assert {"better: 2", "not better: 1", "median: +1.0000"} <= set(words)
    assert drawn["gains"].axes[0].get_yscale() == "linear"
    odd = {
        "document": [*range(9)],
        "bytes": {"after": [10] * 9},
        "bits": {"before": [500.0, *[2.0] * 8], "after": [1.0] * 8 + [3.0]},
    }
    draw_plots([], None, tmp_path, title="run", details={"documents": odd})
    assert drawn["gains"].axes[0].get_yscale() == "symlog"
    assert "log scale" in drawn["gains"].axes[0].get_ylabel()


def test_a_first_value_that_dwarfs_the_rest(drawn: dict[str, Figure], tmp_path: Path) -> None:
    assert dwarfs([100.0, 3.0, 2.0, 3.0])
    assert not dwarfs([6.0, 3.0, 2.0, 3.0])
    assert not dwarfs([100.0, 1.0])
    assert not dwarfs([100.0, 0.0, 0.0, 0.0])
    assert not is_logarithmic([np.array([100.0, 3.0, 2.0, 3.0]), np.array([0.0, 1.0])])
    lines = training_lines(6)
    draw_plots(lines, None, tmp_path, title="run")
    assert drawn["loss"].axes[0].get_yscale() == "linear"
    lines[0]["loss"] = lines[0]["hard_loss"] = 60.0
    draw_plots([*lines, *held_out_lines(9.0, 1.3, 1.2, 1.1)], None, tmp_path, title="run")
    for name in ("loss", "score"):
        assert drawn[name].axes[0].get_yscale() == "log"
        assert "log scale" in drawn[name].axes[0].get_ylabel()


def test_the_terms_of_a_black_box(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_plots(training_lines(3), None, tmp_path, title="run", black_box=True)
    assert "the teacher's texts" in as_metrics(drawn["loss"])
    assert "soft" not in as_metrics(drawn["loss"])


def test_ticks_are_readable(drawn: dict[str, Figure], tmp_path: Path) -> None:
    lines = training_lines(40)
    for line in lines:
        line["grad_norm"] = 10.0 ** (line["step"] / 10 - 2)
    draw_plots(lines, None, tmp_path, title="run")
    rate, norm = drawn["learning_rate"].axes
    assert norm.get_yscale() == "log"
    assert {"0", "2e-4", "4e-4"} <= {label.get_text() for label in rate.get_yticklabels()}
    assert {"0.1", "1", "10"} <= {label.get_text() for label in norm.get_yticklabels()}
    steps = [label.get_text() for label in norm.get_xticklabels()]
    assert [step for step in steps if 0 <= float(step) <= 40] == ["0", "10", "20", "30", "40"]


def test_the_layers_of_a_cut_student(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_plots([], None, tmp_path, title="run", cut=CUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.png", "layers.svg"]
    (axes,) = drawn["layers"].axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar for bar in axes.patches}
    assert {layer: bar.get_height() for layer, bar in bars.items()} == {0: 0.5, 1: 0.01, 3: 0.2}
    filled = {layer: bar.get_facecolor()[:3] for layer, bar in bars.items()}
    assert filled[0] == filled[3] != filled[1]
    assert "chosen by: greedy" in axes.get_xlabel()
    assert "cosine" in axes.get_ylabel()
    assert "log" not in axes.get_ylabel()
    assert {text.get_text() for text in drawn["layers"].legends[0].get_texts()} == {"kept: 2", "left out: 1"}
    # The losses decided, so they are what is shown.
    draw_plots([], None, tmp_path, title="run", cut={**CUT, "losses_without": [9.0, 3.1, 3.0, 200.0]})
    assert "loss without it" in drawn["layers"].axes[0].get_ylabel()
    assert drawn["layers"].axes[0].get_yscale() == "log"


@pytest.mark.parametrize("cut", [None, {}, {"way": "even", "kept": [0, 1], "layers": 4}, {"influence": [None]}])
def test_layers_that_were_not_measured(tmp_path: Path, cut: Any) -> None:
    assert draw_plots([], None, tmp_path, title="run", cut=cut) == []
