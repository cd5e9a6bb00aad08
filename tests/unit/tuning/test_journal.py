"""The journal: nothing that was written is lost, nothing that was cut off or changed is believed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from distillkit.tuning.halving import Amount
from distillkit.tuning.journal import Journal, Rung, Trial

SETTINGS = {"learning_rate": 1e-4, "alpha": 0.7}
OTHER = {"learning_rate": 1e-2, "alpha": 0.7}


def filled(path: Path) -> Journal:
    journal = Journal.open(path, "one")
    journal.note(start=4.5, minutes=20.0, trials=None)
    journal.begin_rung(Rung(0, 0, Amount(8), (SETTINGS, OTHER), (2,)))
    journal.add_trial(Trial(SETTINGS, Amount(8), 3.25, None, 2.5, 1.5, 0.5))
    journal.add_trial(Trial(OTHER, Amount(8), math.inf, "the loss became nan", 1.25))
    return journal


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tune" / "journal.jsonl"
    written, read = filled(path), Journal.open(path, "one")
    assert (read.facts, read.rungs, read.trials) == (written.facts, written.rungs, written.trials)
    assert read.facts == {"start": 4.5, "minutes": 20.0, "trials": None}
    # In whatever order the settings stand.
    found = read.trial(dict(reversed(SETTINGS.items())), Amount(8))
    assert found is not None
    assert (found.score, found.fixed_seconds, found.trained_to_its_end) == (3.25, 0.5, True)
    assert read.score(OTHER, Amount(8)) == math.inf
    assert not read.trials[1].trained_to_its_end
    assert read.trial(SETTINGS, Amount(8, 2)) is None
    assert (read.seconds, read.counted, read.dropped) == (3.75, 2, 0)


def test_a_trial_outside_the_rungs_is_not_counted(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    journal.add_trial(Trial(SETTINGS, Amount(4), 4.0, None, 1.0, 0.5))
    assert journal.counted == 2
    assert journal.seconds == 4.75


@pytest.mark.parametrize("cut", range(1, 300, 7))
def test_cut_off_anywhere_the_whole_lines_hold_and_writing_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    lines = whole[:-cut].count(b"\n")
    journal = Journal.open(path, "one")
    assert len(journal.trials) == max(0, lines - 3)
    assert len(journal.rungs) == (lines >= 3)
    journal.add_trial(Trial(OTHER, Amount(9), 2.0))
    again = Journal.open(path, "one")
    assert again.trials == journal.trials
    assert again.dropped == 0


def test_a_changed_digit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    path.write_bytes(path.read_bytes().replace(b"3.25", b"1.25"))
    journal = Journal.open(path, "one")
    assert (journal.dropped, len(journal.trials)) == (1, 1)
    assert journal.trial(SETTINGS, Amount(8)) is None


def test_another_fingerprint_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert Journal.belongs(path, "two")
    filled(path)
    assert Journal.belongs(path, "one")
    assert not Journal.belongs(path, "two")
    assert Journal.open(path, "two").trials == []
    assert not Journal.belongs(path, "one")


def test_a_fact_is_written_once(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    before = journal.path.read_bytes()
    journal.note(start=4.5)
    assert journal.path.read_bytes() == before
    journal.note(minutes=40.0)
    assert Journal.open(journal.path, "one").facts["minutes"] == 40.0
