"""Which files of a repository are fetched."""

from __future__ import annotations

from huggingface_hub.utils import filter_repo_objects

from distillkit.models.hub import IGNORED_PATTERNS, OTHER_PATTERNS, WEIGHT_PATTERNS


def test_what_authors_lay_beside_their_weights_is_fetched() -> None:
    wanted = ["LICENSE", "LICENCE.md", "license.pdf", "NOTICE", "USE_POLICY.md", "chat_template.jinja", "config.json"]
    wanted += ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model", "README.md"]
    others = ["pytorch_model.bin", "adapter_config.json", "adapter_model.safetensors", "onnx/model.onnx", "picture.png"]
    patterns = [*WEIGHT_PATTERNS, *OTHER_PATTERNS]
    found = filter_repo_objects(wanted + others, allow_patterns=patterns, ignore_patterns=IGNORED_PATTERNS)
    assert list(found) == wanted
