"""The section of a model card that says how a student was trained."""

from __future__ import annotations

from distillkit.reports.card import markdown
from distillkit.reports.card.facts import CardFacts

_BLACK_BOX = (
    "Black box: the student learned from texts that the teacher wrote (weight alpha) beside the texts of the data set "
    "(weight beta); the teacher's probabilities were not used."
)
_FINE_TUNING = "Fine-tuning on the true tokens only: alpha is 0, so the teacher had no part in the training."
_MIXED = (
    "with several teachers, whose distributions were mixed: the weighted mean of their probabilities in the student's tokens, at "
    "each token over those that say something there."
)
_HARD_TARGETS = "every true token was learned as well (hard targets)."
# White box: the end of a sentence that begins with "White box …:". An alignment that is not here is described by the code
# that computes it.
_SOFT_TARGETS = {
    "same": "at every token the student learned from the teacher's whole distribution (soft targets) and from the true "
    "token (hard targets).",
    "bpm": "the teacher's distribution was carried over to the student's vocabulary by byte-prefix marginalisation (soft "
    f"targets); {_HARD_TARGETS}",
    "strict": "where teacher and student write the same token next, the teacher's distribution over the tokens that both "
    f"have (soft targets); {_HARD_TARGETS}",
    "alm": "the teacher's likelihood of every stretch of text between two shared token boundaries (approximate likelihood "
    f"matching); {_HARD_TARGETS}",
    "uld": f"the teacher's sorted probabilities (universal logit distillation); {_HARD_TARGETS}",
}


def method(facts: CardFacts) -> list[str]:
    """What the student was trained on, and a list of what differs from the plain method."""
    settings = "\n".join(f"- {markdown.plain(name)}: {markdown.value(value)}" for name, value in facts.settings.items())
    return [_method_paragraph(facts), *([settings] if settings else [])]


def _method_paragraph(facts: CardFacts) -> str:
    if facts.parameters.get("alpha") == 0:
        return _FINE_TUNING
    if facts.box_type == "black":
        return _BLACK_BOX
    plain = "same" if facts.same_tokenizer else "bpm"
    targets = _SOFT_TARGETS.get(plain if facts.alignment == "auto" else facts.alignment)
    if targets is None:
        summary = markdown.plain(facts.alignment_summary or "", markdown.LONGEST_PARAGRAPH)
        targets = " ".join(word for word in (f"the alignment {markdown.code(facts.alignment)}.", summary) if word)
    how = "with one tokenizer" if facts.same_tokenizer or facts.one_tokenizer else "across tokenizers"
    how += " and two chat templates" if facts.one_tokenizer and not facts.same_tokenizer else ""
    if facts.further_teachers:
        return f"White box {_MIXED} {_tokenizers(facts)}: {targets}"
    return f"White box {how}: {targets}"


def _tokenizers(facts: CardFacts) -> str:
    same = [facts.same_tokenizer, *(told["same_tokenizer"] for told in facts.further_teachers)]
    if all(same):
        return "All teachers read the student's tokens"
    return f"{sum(same)} of {len(same)} teachers read the student's tokens, the others were carried over to them"
