"""The words of results, plans and samples in Russian."""

from __future__ import annotations

WORDS = {
    # --- the models of a run ---
    "model.before": "student before",
    "model.control": "control (no teacher)",
    "model.after": "student after",
    "model.teacher": "teacher",
    "model.tuned_teacher": "tuned teacher",
    # --- demo ---
    "demo.title": "Demo",
    "demo.who": "who",
    "demo.text": "text",
    "demo.prompt": "prompt",
    "demo.how": "How they wrote",
    "demo.tokens": "tokens",
    "demo.speed": "tokens/s",
    "demo.ended": "ended",
    "demo.repeated": "repeated",
    "demo.of": "{part} of {whole}",
    "demo.drawn": (
        "the same for all: temperature {temperature}, top-p {top_p}, top-k {top_k}, repetition penalty {repetition_penalty}, "
        "seed {seed}, at most {new_tokens} tokens"
    ),
    "demo.fault.empty": "writes nothing",
    "demo.fault.not_text": "signs that are no text",
    "demo.fault.repetition": "repeats itself: {share} % of it was there before",
    "demo.left_out.asked": "the teacher is left out, as --no-teacher says",
    "demo.left_out.served": (
        "the teacher's weights are not here: it does not take part; teacher/generated.jsonl shows how it writes"
    ),
    "demo.left_out.imported": "the teacher's weights are not here: it does not take part",
    "demo.left_out.streamed": (
        "the teacher is left out: it runs block by block (--teacher-streaming on), which would take very long for every token; "
        "--teacher loads it as a whole"
    ),
    "demo.left_out.memory": (
        "the teacher is left out: its weights take {needed}, {free} of memory are free; --teacher tries all the same"
    ),
    "demo.typing": "a line is a text to continue; /quit, /exit or Ctrl-D: end",
    "demo.summary": "{prompts} texts continued by {models} models",
}
