"""How much of an English text the teacher can guide, for GPT-2's tokenizer and the 32 000-token SentencePiece.

    python benchmarks/cross_tokenizer/coverage.py TEXT...

Of the student's predictions: those with a teacher row, those whose row is a shared boundary, and why the rest have none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from pair import gpt2_folder, sentencepiece_folder
from transformers import AutoTokenizer

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.rows import aligned_rows, crossing
from distillkit.data.text_encoder import make_text_encoder

PIECE = 1500  # Characters of text at a time, at paragraphs, about what an example holds.


def pieces(text: str) -> list[str]:
    found, current = [], ""
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        if current and len(current) + len(paragraph) > PIECE:
            found.append(current)
            current = ""
        current = f"{current}\n\n{paragraph}" if current else paragraph
    return [piece for piece in [*found, current] if piece.strip()]


def measure(text: str, student: object, teacher: object) -> dict[str, float]:
    encoders = [make_text_encoder(tokenizer, None, 1 << 20, needs_bytes=True) for tokenizer in (student, teacher)]
    total = {
        "positions": 0,
        "aligned": 0,
        "on_boundaries": 0,
        "crossing": 0,
        "inside": 0,
        "bytes": 0,
        "bytes_aligned": 0,
    }
    texts = pieces(text)
    hits = seen = 0
    prefix_map = BytePrefixMap.build(encoders[1].table, encoders[0].table).student_ids.numpy()
    for piece, own, other in zip(texts, encoders[0].encode(texts), encoders[1].encode(texts), strict=True):
        if own is None or other is None:
            continue
        rows = aligned_rows(
            own,
            other,
            piece.encode(),
            student_start=True,
            teacher_start=True,
            student_has_eos=False,
            teacher_has_eos=False,
        )
        across = crossing(rows.teacher_rows, rows.end_rows, rows.end_skips)
        plain = (rows.skips == 0) & ~across
        hits += int(
            (
                prefix_map[np.array(other.ids)[rows.teacher_rows[plain]]] == np.array(own.ids)[rows.student_rows[plain]]
            ).sum()
        )
        seen += int(plain.sum())
        total["positions"] += rows.positions
        total["aligned"] += rows.positions_aligned
        total["on_boundaries"] += rows.positions_on_boundaries
        total["crossing"] += int(across.sum())
        total["inside"] += int((rows.skips != 0).sum())
        total["bytes"] += rows.bytes
        total["bytes_aligned"] += rows.bytes_aligned
    share = {name: total[name] / total["positions"] for name in ("aligned", "on_boundaries", "crossing", "inside")}
    return share | {
        "bytes_aligned": total["bytes_aligned"] / total["bytes"],
        "positions": total["positions"],
        "true_token_is_phi": hits / max(1, seen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        student = AutoTokenizer.from_pretrained(sentencepiece_folder(Path(folder) / "sentencepiece"))
        teacher = AutoTokenizer.from_pretrained(gpt2_folder(Path(folder) / "gpt2"))
    for path in arguments.texts:
        figures = measure(path.read_text(encoding="utf-8-sig"), student, teacher)
        print(json.dumps({"text": path.name, **{name: round(value, 4) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
