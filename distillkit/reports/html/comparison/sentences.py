"""A comparison in sentences, for the page and for the terminal: who is better, on which texts, what else to know."""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.reports.html.comparison.facts import ComparisonFacts
from distillkit.reports.html.elements import Markup, element
from distillkit.reports.html.writer import PageWriter


@dataclass(frozen=True)
class ComparisonWriter(PageWriter):
    """Writes the parts of a comparison."""

    facts: ComparisonFacts

    def run(self, name: str) -> Markup:
        """The name of a run, which may be of another direction of writing."""
        return element("bdi", name)


def headline(w: ComparisonWriter) -> Markup:
    """Of two runs the difference, of more the best one."""
    if len(w.facts.runs) == 2:
        return differences(w)[0]
    scores = [run["scores"]["after"]["bits_per_byte"] for run in w.facts.runs]
    best = scores.index(min(scores))
    return w(
        "compare.best", name=w.run(w.facts.names[best]), count=w.derived(len(scores), "count"),
        score=w.figure(f"comparison.runs.{best}.scores.after.bits_per_byte", "score"),
    )  # fmt: skip


def differences(w: ComparisonWriter) -> list[Markup]:
    """A sentence for each run but the first, which it is compared with."""
    found: list[Markup] = []
    for place, run in enumerate(w.facts.runs[1:], 1):
        after = run["against_first"]["after"]
        path = f"comparison.runs.{place}.against_first.after"
        decided = "few" if after["ci95"] is None else after["verdict"].replace(" ", "_")
        found.append(
            w(
                f"compare.is.{decided}",
                name=w.run(str(run["name"])),
                first=w.run(w.facts.names[0]),
                gain=w.figure(f"{path}.bits_per_byte", "gain"),
                interval=w.interval(f"{path}.ci95", "gain"),
            )
        )
    return found


def about_texts(w: ComparisonWriter) -> list[Markup]:
    """On which texts the runs are compared, and what was left out."""
    texts, first = w.facts.comparison["texts"], w.run(w.facts.names[0])
    how = "shared" if texts["how"] == "shared" else "first"
    found = [
        w(
            f"compare.texts.{how}",
            first=first,
            documents=w.figure("comparison.texts.documents", "count"),
            bytes=w.figure("comparison.texts.bytes", "bytes"),
            all=w.figure("comparison.texts.of_documents", "count"),
        )
    ]
    found += [
        w("compare.texts.learnt", name=w.run(name), count=w.derived(count, "count"))
        for name, count in texts["learnt_from"].items()
    ]
    if texts["unread"]:
        found.append(w("compare.texts.unread", count=w.figure("comparison.texts.unread", "count")))
    if all(run["scored_again"] for run in w.facts.runs):
        found.append(w("compare.texts.again"))
    return found


def notes(w: ComparisonWriter) -> list[Markup]:
    """What no table tells and yet may matter."""
    first = w.run(w.facts.names[0])
    found = []
    for note in w.facts.comparison["notes"]:
        words = {key: str(value) for key, value in note.items() if key not in ("note", "run")}
        found.append(w(f"compare.note.{note['note']}", run=w.run(str(note["run"])), first=first, **words))
    return found
