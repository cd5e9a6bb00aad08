"""What is noted while reading."""

from __future__ import annotations

from distillkit.data.notes import ReadingNotes


def test_what_is_true_of_many_files_is_said_once() -> None:
    notes = ReadingNotes()
    for number in range(300):
        notes.remark_of(f"{number}.txt", "line ends changed to LF")
    notes.remark("files by split: train: 300 files")
    notes.remark_of("a.csv", "CSV, delimiter ;")
    assert notes.lines() == [
        "0.txt, 1.txt and 298 more files: line ends changed to LF",
        "files by split: train: 300 files",
        "a.csv: CSV, delimiter ;",
    ]


def test_files_left_out_are_named_and_counted() -> None:
    notes = ReadingNotes()
    notes.left_out("no data", ["a", "b", "c", "d", "e"])
    assert notes.lines() == ["no data, left out: a, b, c and 2 more"]
    assert notes.record()["files_left_out"] == {"no data": 5}
