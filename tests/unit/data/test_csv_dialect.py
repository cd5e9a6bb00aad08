"""How a delimited file is to be read is found from its rows, or the file is refused."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pytest

from distillkit.data.csv_dialect import Table, find_table
from distillkit.data.csv_records import NO_DELIMITER
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError

PROSE = [
    "She measured the lantern and the heavy wagon on the third day.",
    "Nobody counted a window near the orchard before noon.",
    "He came, saw, and left.",
    "It rained all night long in the harbour town.",
    "A kettle sang, and we waited for the guests.",
    "The bakery stayed hollow for years; nobody cared.",
]
IDS = [(str(number), text) for number, text in enumerate(PROSE)]
ONE_COMMA = [f"It rained in town {number}, and we stayed at home." for number in range(20)]


def written(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None, **dialect: object) -> str:
    """A table as the csv module writes it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", **dialect)  # type: ignore[arg-type]
    writer.writerows([header, *rows] if header else rows)
    return stream.getvalue()


def table(text: str, name: str = "a.csv", **options: object) -> Table:
    found = find_table(text.splitlines(keepends=True), ReadingOptions(**options), name, complete=True)  # type: ignore[arg-type]
    assert found is not None
    return found


def refused(text: str, name: str = "a.csv", **options: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        table(text, name, **options)
    assert caught.value.message.startswith(name)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_the_delimiter_is_the_one_by_which_rows_agree(name: str, delimiter: str, quoting: int) -> None:
    found = table(written(IDS, ["id", "text"], delimiter=delimiter, quoting=quoting), name)
    assert (found.dialect.delimiter, found.dialect.quoting, found.columns) == (delimiter, "double", ["id", "text"])
    usual = delimiter == ("\t" if name == "a.tsv" else ",")
    assert (found.remark is None) == usual


def test_what_is_unusual_is_said() -> None:
    found = table(written(IDS, ["id", "text"], delimiter="|"))
    assert found.remark == "CSV, delimiter |, double quotes, first row names the columns"
    assert table(written(IDS, delimiter="\t"), "a.tsv").remark == (
        "TSV, delimiter tab, double quotes, no row names the columns (column1, column2)"
    )


def test_semicolons_with_decimal_commas() -> None:
    rows = [(str(number), f"{number},5", text.replace(",", "")) for number, text in IDS]
    assert table(written(rows, ["nr", "preis", "text"], delimiter=";")).dialect.delimiter == ";"
    # Every row has one comma too: the columns of numbers decide.
    found = table(written([(*row[:2], "ein Satz") for row in rows], delimiter=";"))
    assert (found.dialect.delimiter, found.width) == (";", 3)


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\n", "\nsep=;\n"])
def test_the_line_that_tells_a_spreadsheet_the_delimiter_is_no_row(first: str) -> None:
    found = table(first + written(IDS, ["id", "text"], delimiter=";"))
    assert (found.dialect.delimiter, found.skipped_lines) == (";", first.count("\n"))
    assert found.columns == ["id", "text"]
    found = table("sep=^\n" + written(IDS, ["id", "text"], delimiter="^"))
    assert found.dialect.delimiter == "^"


def test_comments_over_a_table_are_no_rows() -> None:
    body = written(IDS, ["id", "text"])
    assert table("# made by hand, today\n# second\n" + body).skipped_lines == 2
    assert table(body.replace("id,", "#id,", 1)).columns == ["#id", "text"]
    assert table("# Title.\nSome text that is long.\n# Another\nMore of the text.\n").skipped_lines == 0


def test_one_column_of_prose_is_not_parted() -> None:
    for text in ("text\n" + "\n".join(PROSE), "text\n" + "\n".join(ONE_COMMA), "\n".join(PROSE), "text\nYes, I am.\n"):
        found = table(text)
        assert found.dialect.delimiter == NO_DELIMITER
        assert found.has_header == text.startswith("text")
    assert table(written([[text] for text in PROSE], ["text"])).columns == ["text"]


def test_sentences_with_a_comma_each_are_refused() -> None:
    error = refused("\n".join(ONE_COMMA))
    assert "whether ',' parts cells or belongs to the texts" in error.message
    assert "--csv-delimiter" in (error.hint or "")
    assert table("\n".join(ONE_COMMA), csv_delimiter="tab").width == 1
    assert table("\n".join(ONE_COMMA), csv_delimiter=",").width == 2
    # With names, or ids, it is a table.
    assert table("source,target\n" + "\n".join(ONE_COMMA)).width == 2
    assert table(written([(str(n), text) for n, text in enumerate(PROSE)]).replace(",", ", ", 1)).width == 2


def test_rows_that_do_not_fit_together_are_refused() -> None:
    bare = "".join(f"{number},{text}\n" for number, text in IDS)
    assert "every row holds ','" in refused(bare).message
    assert "every row holds 'tab'" in refused("text\n" + written(IDS, delimiter="\t")).message
    header_of_another_width = refused("a,b,c\n" + written(IDS), csv_delimiter=",")
    assert "the first row has 3 cells (a, b, c), but the rows below have 2" in header_of_another_width.message
    # Names over rows of which some are damaged: those are bad rows.
    assert table("id,text\n" + bare).columns == ["id", "text"]


def test_a_delimiter_that_no_row_holds_is_refused_in_a_table() -> None:
    error = refused(written(IDS, ["id", "text"]), csv_delimiter="|")
    assert "no row holds the delimiter '|', but ',' parts all of them" in error.message


def test_needless_delimiters_at_the_ends_of_rows() -> None:
    for header in ("id,text,\n", "id,text\n"):
        found = table(header + "".join(f'{number},"{text}",\n' for number, text in IDS))
        assert found.columns[:2] == ["id", "text"]
        assert found.trailing == (header == "id,text\n")


def test_blanks_behind_delimiters() -> None:
    found = table("id, text\n" + "".join(f'{number}, "{text}"\n' for number, text in IDS))
    assert found.columns == ["id", "text"]
    assert found.dialect.skip_space


# --- quotes -----------------------------------------------------------------------------------------------------------

STRAY = [
    "id\ttext", '1\t"Hello," he said to her.', '2\tShe said "no" to him.', '3\tA pipe of 5" or more.', '4\tAnd so on.',
]  # fmt: skip
SWALLOWING = [
    "id,text",
    "1,A good text here.",
    '2,"I came and saw.',
    "3,I saw the sea.",
    '4,I won the day."',
    "5,An end.",
]


def test_stray_quotation_marks_are_text() -> None:
    assert table("\n".join(STRAY), "a.tsv").dialect.quoting == "none"
    assert table("\n".join(STRAY), "a.tsv").remark == "TSV, delimiter tab, no quotes, first row names the columns"
    assert table("\n".join(SWALLOWING)).dialect.quoting == "none"
    assert table("\n".join(SWALLOWING).replace(",", "\t"), "a.tsv").dialect.quoting == "none"


def test_rows_that_a_quotation_mark_swallows_are_refused_where_quotes_are_needed() -> None:
    rows = "\n".join([*SWALLOWING, '6,"Quoted, as it has to be."'])
    error = refused(rows)
    assert "a.csv, line 3: a quotation mark opens a cell of 3 lines that look like rows" in error.message
    assert table(rows, csv_quoting="double").dialect.quoting == "double"


def test_cells_of_several_lines_are_no_swallowed_rows() -> None:
    rows = [(label, f"{text}\nA second line, of {text}\n\nA third, too.") for label, text in IDS]
    for delimiter in (",", ";", "\t", "|"):
        assert table(written(rows, ["label", "text"], delimiter=delimiter)).dialect.quoting == "double"
        assert table(written(rows, ["label", "text"], delimiter=delimiter)).width == 2
    poem = written([("A", "Roses are red,\nviolets are blue,\nand so,\nare you")] * 3, ["title", "poem"])
    assert table(poem).dialect.quoting == "double"


def test_tabs_in_quoted_cells() -> None:
    rows = [(number, f"{text}\n\tindented") for number, text in IDS]
    found = table(written(rows, ["id", "text"], delimiter="\t"), "a.tsv")
    assert found.dialect.quoting == "double"


def test_quotes_around_the_header_only() -> None:
    for delimiter in (",", "\t"):
        text = f'"id"{delimiter}"text"\n' + written(IDS, delimiter=delimiter)
        assert table(text).columns == ["id", "text"]
        assert table(text).dialect.quoting == "double"


def test_single_quotes_and_backslashes() -> None:
    apostrophes = [(number, f"it's so, {text}") for number, text in IDS]
    assert table(written(apostrophes, ["id", "text"], quotechar="'")).dialect.quoting == "single"
    said = [(number, f'he said "no", {text}') for number, text in IDS]
    found = table(written(said, ["id", "text"], doublequote=False, escapechar="\\"))
    assert (found.dialect.quoting, found.dialect.backslash) == ("double", True)
    # An apostrophe at the start of a text is none.
    assert table("text\n'Tis the season of rain.\nA text that ends in rain'\nMore.\n").dialect.quoting == "double"


def test_marks_that_may_quote_or_not_are_refused() -> None:
    text = 'id,text\n1,He said \\"no\\" to it.\n2,A second text.\n'
    assert "line 2 can be read with" in refused(text).message
    assert "--csv-quoting" in (refused(text).hint or "")
    assert table(text, csv_quoting="none").dialect.quoting == "none"


# --- the first row ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "present"),
    [
        (["text", *PROSE], True), (["review", *PROSE], True), (["Review Text", *PROSE], True), (["Kommentar", *PROSE], True),
        (["full_plot", *PROSE], True), (PROSE, False), (["A short one.", *PROSE], False), (["The only sentence."], False),
        (["text"], True), (["Really?", *PROSE], False),
    ],
)  # fmt: skip
def test_the_first_row_of_one_column(rows: list[str], present: bool) -> None:
    assert table("\n".join(rows)).has_header is present


def test_an_unclear_first_row_is_refused() -> None:
    rows = "\n".join(["Chapter One", *PROSE])
    error = refused(rows)
    assert "it is not clear whether the first row (Chapter One) names the columns" in error.message
    assert error.hint == "say it with --csv-header present or absent"
    assert table(rows, csv_header="present").columns == ["Chapter One"]
    assert table(rows, csv_header="absent").columns == ["column1"]
    # A column that is asked for by its name says it.
    assert table(rows, text_column="Chapter One").has_header


def test_the_first_row_of_tables() -> None:
    assert not table(written(IDS)).has_header
    assert not table(written([("pos", text) for text in PROSE])).has_header
    assert table(written(IDS, ["foo", "bar"])).has_header
    assert table(written(IDS, ["", "review"])).columns == ["column1", "review"]
    assert table("id,text\n1,ok\n").has_header
    assert not table("2019-01-02,Nobody counted the windows here.\n2019-01-03,A kettle sang for us.\n").has_header


def test_files_without_rows() -> None:
    for text in ("", "\n \n", "sep=;\n"):
        assert find_table(text.splitlines(keepends=True), ReadingOptions(), "a.csv", complete=True) is None


def test_a_sample_that_ends_inside_a_cell() -> None:
    lines = [*written(IDS, ["id", "text"]).splitlines(keepends=True), '7,"An open\n', "cell, with a comma\n"]
    found = find_table(lines, ReadingOptions(), "a.csv", complete=False)
    assert found is not None
    assert found.dialect.quoting == "double"
    with pytest.raises(UsageError, match="not valid CSV"):
        find_table(lines, ReadingOptions(), "a.csv", complete=True)


@pytest.mark.parametrize(
    "titles", ["Feedback of the year,,\n,,\n", "Feedback of the year\n\n", "Feedback\nexported on 2021-03-04\n\n"]
)
def test_titles_over_the_names_are_no_rows(titles: str) -> None:
    rows = written([(number, text, "5") for number, text in IDS], ["id", "comment", "stars"])
    found = table(titles + rows)
    assert (found.columns, found.has_header) == (["id", "comment", "stars"], True)
    assert found.skipped_lines == titles.count("\n") - titles.endswith("\n\n") or found.skipped_lines == titles.count(
        "\n"
    )
    assert "title lines above it left out" in (found.remark or "")


def test_a_text_above_others_is_no_title() -> None:
    """One column of texts with commas, the second of which could name columns."""
    found = table(
        "A first text of some length\n" + "".join(f"{text}\n" for text in ["A text, a title", *PROSE]),
        csv_header="absent",
    )
    assert found.skipped_lines == 0


@pytest.mark.parametrize("delimiter", ["\t", ",", " "])
def test_row_names_of_r(delimiter: str) -> None:
    """`write.table`: no name for the first column, quotes behind backslashes, spaces between cells."""
    texts = ['He said "no", and left.', *PROSE]
    lines = [
        f'"{number}"{delimiter}"{text}"{delimiter}0.5'
        for number, text in enumerate((text.replace('"', '\\"') for text in texts), 1)
    ]
    found = table("\n".join([f'"text"{delimiter}"score"', *lines]) + "\n")
    assert found.columns == ["column1", "text", "score"]
    assert (found.dialect.delimiter, found.dialect.backslash) == (delimiter, True)


def test_cells_broken_by_backslashes_are_not_one_column() -> None:
    rows = [f"{number}\t{text}\tde" for number, text in IDS]
    rows[2] = rows[2].replace("saw, and ", "saw\\\nand\\\n")
    assert "as MySQL writes line ends" in refused("\n".join(rows) + "\n", "a.tsv").message
    # Tabs inside quoted cells of one column are no table.
    code = "code\n" + "".join(f'"func f{number}() {{\n\treturn {number}\n\t// done\n}}"\n' for number in range(6))
    assert table(code).columns == ["code"]


def test_names_beside_columns_of_next_to_nothing() -> None:
    rows = [["ham" if int(number) % 3 else "spam", text, "", ""] for number, text in IDS]
    found = table(written(rows, ["v1", "v2", "", ""]))
    assert (found.has_header, found.columns) == (True, ["v1", "v2", "column3", "column4"])


def test_a_last_row_of_another_width_is_judged_later() -> None:
    rows = written([(number, text, "5") for number, text in IDS] * 40, ["id", "comment", "stars"]) + "Total: 240 rows\n"
    assert table(rows).columns == ["id", "comment", "stars"]


@pytest.mark.parametrize(
    ("mark", "hint"),
    [("^", "--csv-delimiter '^'"), ("\x01", "--csv-delimiter $'\\x01'"), ("::", "with tabs between its cells")],
)
def test_unusual_delimiters_are_not_part_of_texts(mark: str, hint: str) -> None:
    text = f"id{mark}text\n" + "".join(f"{number}{mark}{text}\n" for number, text in IDS)
    assert hint in (refused(text).hint or "")
    assert table(text, csv_delimiter="tab").width == 1
    if len(mark) == 1:
        assert table(text, csv_delimiter=mark).columns == ["id", "text"]
