"""Black-box generation: a prompt in a batch gets what it gets alone, and every text comes out as it was written."""

from __future__ import annotations

import collections
import io
import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_sentencepiece_tokenizer, tiny_tokenizer
from tokenizer_makers import slow_sentencepiece
from torch import nn

from distillkit import interrupts
from distillkit.alignment.token_bytes import TokenBytes, token_bytes
from distillkit.console import Console
from distillkit.errors import DistillkitError, Interrupted, PreconditionError
from distillkit.models import decoding
from distillkit.models.decoding import Decoding, choose_tokens
from distillkit.teachers.cache_entries import list_caches
from distillkit.teachers.generated_file import Continuation, Prompt
from distillkit.teachers.generation import Sampling, generate_continuations
from distillkit.teachers.generation_cache import GenerationCache

CPU = torch.device("cpu")
TEXTS = (
    "The quick brown fox jumps over the lazy dog",
    "In the morning",
    "He carried the little lamp to the harbour because the road was closed, and then",
    "Café",
    "There is nothing in the whole world that",
)


def prompts_of(tokenizer: Any, texts: Sequence[str] = TEXTS) -> list[Prompt]:
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [
        Prompt(100 + index, text, start + tokenizer(text, add_special_tokens=False)["input_ids"], len(text.encode()))
        for index, text in enumerate(texts)
    ]


def generate(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], output: Path, **settings: Any
) -> list[Continuation]:
    return generate_with(lambda: model, tokenizer, prompts, output=output, **settings)


def generate_with(
    load: Any, tokenizer: Any, prompts: Sequence[Prompt], *, output: Path, max_new_tokens: int | Sequence[int] = 12,
    temperature: float = 1.0, top_p: float = 0.95, seed: int = 1, batch_size: int = 2, model_fingerprint: str = "m",
    accumulation: int = 1, console: Console | None = None, cache: GenerationCache | None = None, parse: bool = False,
    table: TokenBytes | None = None,
) -> list[Continuation]:  # fmt: skip
    room = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    return generate_continuations(
        load, tokenizer, prompts, room, Sampling(temperature, top_p, seed, batch_size, accumulation), output=output, device=CPU,
        console=console or Console(quiet=True), model_fingerprint=model_fingerprint, cache=cache,
        parse=parse, table=table,
    )  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


class Scripted(nn.Module):
    """A model that writes given tokens after every prompt, whatever it reads; it has no cache."""

    def __init__(self, script: Sequence[int], columns: int, prompt_lengths: Sequence[int]) -> None:
        super().__init__()
        self.script, self.columns = script, columns
        self.width = max(prompt_lengths)
        self.config = type("Config", (), {"eos_token_id": None})()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        step = input_ids.shape[1] - self.width
        logits = torch.full((len(input_ids), input_ids.shape[1], self.columns), -50.0)
        logits[:, -1, self.script[step]] = 50.0
        return collections.namedtuple("Output", "logits")(logits)


def write_script(tokenizer: Any, prompt: Prompt, script: Sequence[int], output: Path, **settings: Any) -> Continuation:
    model = Scripted(script, len(tokenizer) + 3, [len(prompt.ids)])
    settings = {"max_new_tokens": len(script), "batch_size": 1} | settings
    return generate(model, tokenizer, [prompt], output, **settings)[0]


# --- decoding --------------------------------------------------------------------------------------------------------


def greedy_alone(model: nn.Module, ids: Sequence[int], count: int) -> list[int]:
    """Without cache, padding or mask: the whole text is read for every token."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(ids) - count :]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_prompt_gets_in_a_batch_what_it_gets_alone(family: str, attention: str) -> None:
    model = tiny_model(family, vocab_size=97, seed=3)
    model.set_attn_implementation(attention)
    prompts = [[5, 9, 2, 0, 0, 7, 3, 3], [0], [8, 1, 6, 4], [96] * 20]
    texts = Decoding(model, prompts, CPU)
    written: list[list[int]] = []
    with torch.inference_mode():
        for _ in range(10):
            chosen = choose_tokens(texts.logits(), 0, 1, None)
            written.append(chosen.tolist())
            texts.append(chosen, torch.ones(4, dtype=torch.bool))
    found = [list(row) for row in zip(*written, strict=True)]
    assert found == [greedy_alone(model, prompt, 10) for prompt in prompts]
    assert len({tuple(row) for row in found}) > 1


def test_logits_of_padded_prompts_are_the_same_numbers() -> None:
    for family in ("gpt2", "llama"):
        model = tiny_model(family, vocab_size=97, seed=3)
        with torch.inference_mode():
            together = Decoding(model, [[5, 9, 2, 0, 7], [8, 1]], CPU).logits()
            alone = Decoding(model, [[8, 1]], CPU).logits()
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


def test_a_finished_text_does_not_leave_the_context() -> None:
    # 12 positions: the first text stops after 2 tokens while the second writes 9.
    model = tiny_model("gpt2", vocab_size=97, context=12)
    texts = Decoding(model, [[1] * 10, [2, 3]], CPU)
    with torch.inference_mode():
        for step in range(9):
            texts.append(texts.logits().argmax(-1), torch.tensor([step < 2, True]))
        assert bool(torch.isfinite(texts.logits()).all())


@pytest.mark.parametrize("candidates", [1, 3, 4096])
def test_sampling_follows_temperature_and_nucleus(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_LIKELY_CANDIDATES", candidates)
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = probabilities.log().repeat(40_000, 1)
    logits = torch.cat([logits, torch.full((40_000, 1), -math.inf)], dim=1)

    def shares(temperature: float, top_p: float) -> list[float]:
        drawn = choose_tokens(logits, temperature, top_p, torch.Generator().manual_seed(0))
        return (torch.bincount(drawn, minlength=4) / len(drawn)).tolist()  # Never the fifth.

    assert shares(1.0, 1.0) == pytest.approx(probabilities.tolist(), abs=0.01)
    # 0.5 + 0.3 is the first sum that reaches 0.7.
    assert shares(1.0, 0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=0.01)
    assert shares(1.0, 0.81) == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.01)
    assert shares(1.0, 1e-9) == [1, 0, 0, 0]
    squared = probabilities**2 / (probabilities**2).sum()
    assert shares(0.5, 1.0) == pytest.approx(squared.tolist(), abs=0.01)
    assert shares(0, 0.95) == [1, 0, 0, 0]


def test_nothing_cannot_be_continued() -> None:
    for prompts in ([], [[1], []]):
        with pytest.raises(ValueError, match="nothing"):
            Decoding(tiny_model("gpt2", vocab_size=97), prompts, CPU)


# --- texts -----------------------------------------------------------------------------------------------------------


def test_every_prompt_is_continued_in_order(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300)
    model = tiny_model("gpt2", vocab_size=304)  # Padded: four columns are no tokens.
    prompts = prompts_of(tokenizer)
    room = [3, 12, 5, 7, 1]
    output = tmp_path / "generated.jsonl"
    found = generate(model, tokenizer, prompts, output, max_new_tokens=room)
    assert [done.index for done in found] == [prompt.index for prompt in prompts]
    for done, tokens in zip(found, room, strict=True):
        assert done.finish in ("eos", "length")
        assert done.tokens == tokens if done.finish == "length" else done.tokens < tokens
        assert done.kept == (done.reason is None)
    lines = {line["index"]: line for line in read(output)}
    assert len(read(output)) == len(lines) == len(prompts)
    for prompt, done in zip(prompts, found, strict=True):
        assert len(lines[prompt.index].pop("check")) == 16
        assert lines[prompt.index] == {
            "index": done.index, "prompt": prompt.text, "continuation": done.text, "tokens": done.tokens,
            "finish": done.finish, "kept": done.kept, "reason": done.reason,
        }  # fmt: skip


def test_greedy_continuations_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300)
    for family in ("gpt2", "llama"):
        model = tiny_model(family, vocab_size=300, seed=5)
        prompts = prompts_of(tokenizer)
        results = [
            generate(model, tokenizer, prompts, tmp_path / f"{family}-{size}.jsonl", batch_size=size, temperature=0)
            for size in (1, 2, 5)
        ]
        texts = [[(done.text, done.tokens, done.finish) for done in found] for found in results]
        assert texts[0] == texts[1] == texts[2]
        expected = tokenizer.decode(greedy_alone(model, prompts[1].ids, 12))
        assert texts[0][1][0] == expected.split("<|endoftext|>")[0].rstrip("\ufffd")


def test_the_seed_decides(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300)
    model = tiny_model("llama", vocab_size=300)
    first, again, other = (
        generate(model, tokenizer, prompts_of(tokenizer), tmp_path / f"{name}.jsonl", seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_what_is_written_depends_on_the_step_alone(tmp_path: Path) -> None:
    """However a batch is split into parts: 4, 2 × 2 and 1 × 4, of five prompts; also where one split goes on from another."""
    tokenizer = tiny_tokenizer(vocab_size=300)
    model, prompts = tiny_model("llama", vocab_size=300), prompts_of(tokenizer)
    assert len(prompts) % 4 == 1
    whole = generate(model, tokenizer, prompts, tmp_path / "4x1.jsonl", batch_size=4)
    for batch, parts in ((2, 2), (1, 4)):
        path = tmp_path / f"{batch}x{parts}.jsonl"
        assert generate(model, tokenizer, prompts, path, batch_size=batch, accumulation=parts) == whole
        assert path.read_bytes() == (tmp_path / "4x1.jsonl").read_bytes()
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2]))
        assert generate(model, tokenizer, prompts, path, batch_size=batch, accumulation=parts) == whole
    assert generate(model, tokenizer, prompts, tmp_path / "2x1.jsonl", batch_size=2) != whole


@pytest.mark.parametrize("bos", [None, "<s>", "<|endoftext|>"])
def test_text_goes_on_exactly_where_the_prompt_ends(tmp_path: Path, bos: str | None) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300, bos=bos)
    for number, (beginning, rest) in enumerate(
        [("In the", " morning, ‘café’"), ("In the ", "morning"), (" a", "\n\n  b ")]
    ):
        script = tokenizer(rest, add_special_tokens=False)["input_ids"]
        done = write_script(tokenizer, prompts_of(tokenizer, [beginning])[0], script, tmp_path / f"{number}.jsonl")
        assert (done.text, done.tokens, done.finish) == (rest, len(script), "length")


@pytest.mark.parametrize("beginning", ["In the", "In the morning", " In", "Café"])
@pytest.mark.parametrize("rest", [" morning there", "s and more", " Привет 👩", "\n  x"])
def test_sentencepiece_keeps_the_space(tmp_path: Path, beginning: str, rest: str) -> None:
    pytest.importorskip("sentencepiece")
    tokenizer = tiny_sentencepiece_tokenizer(tmp_path / "tokenizer")
    prompt = prompts_of(tokenizer, [beginning])[0]
    whole = tokenizer(beginning + rest, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt.ids) - 1] != prompt.ids[1:]:
        whole = [*prompt.ids[1:], *tokenizer(rest, add_special_tokens=False)["input_ids"]]
        rest = tokenizer.decode(whole)[len(beginning) :]
    done = write_script(tokenizer, prompt, whole[len(prompt.ids) - 1 :], tmp_path / "generated.jsonl")
    assert done.text == rest


@pytest.mark.parametrize("beginning", ["In the", "In the ", "東", " the cat"])
@pytest.mark.parametrize("rest", [" mat 東京 🐻", "é fin ", "京", "  \n log  "])
def test_slow_sentencepiece_writes_what_its_tokens_mean(tmp_path: Path, beginning: str, rest: str) -> None:
    tokenizer = slow_sentencepiece(tmp_path)
    whole = tokenizer(beginning + rest, add_special_tokens=False)["input_ids"]
    prompt = Prompt(0, beginning, tokenizer(beginning, add_special_tokens=False)["input_ids"], len(beginning.encode()))
    assert whole[: len(prompt.ids)] == list(prompt.ids)
    done = write_script(
        tokenizer, prompt, whole[len(prompt.ids) :], tmp_path / "generated.jsonl", table=token_bytes(tokenizer)
    )
    assert done.text == rest


def test_a_character_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=257)  # Bytes only.
    script = tokenizer(" naïve 👩", add_special_tokens=False)["input_ids"]
    prompt = prompts_of(tokenizer, ["A"])[0]
    for missing in (1, 2, 3):
        done = write_script(tokenizer, prompt, script[:-missing], tmp_path / f"{missing}.jsonl")
        assert done.text == " naïve "


def test_a_token_that_ends_the_text_is_no_part_of_it(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300, bos="<s>", eos="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    words = tokenizer(" and that was all", add_special_tokens=False)["input_ids"]
    prompt = prompts_of(tokenizer, ["A"])[0]
    for name in ("</s>", "<|im_end|>", "<s>"):
        ending = tokenizer.convert_tokens_to_ids(name)
        done = write_script(tokenizer, prompt, [*words, ending, *words], tmp_path / f"{ending}.jsonl")
        assert (done.text, done.tokens, done.finish) == (" and that was all", len(words), "eos")


def test_special_tokens_stand_in_the_text_where_they_are_parsed(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300, bos="<s>", eos="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|im_start|>"]})
    written = "yes<|im_end|>\n<|im_start|>user"
    script = [*tokenizer(written, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id, 5]
    prompt = prompts_of(tokenizer, ["<|im_start|>A<|im_end|> "])[0]
    done = write_script(tokenizer, prompt, script, tmp_path / "parsed.jsonl", parse=True)
    assert (done.text, done.tokens, done.finish) == (written, len(script) - 2, "eos")
    assert json.loads((tmp_path / "parsed.settings.json").read_text())["special_tokens"] == "parse"
    done = write_script(tokenizer, prompt, script, tmp_path / "text.jsonl")
    assert (done.text, done.finish) == ("yes", "eos")
    assert "special_tokens" not in json.loads((tmp_path / "text.settings.json").read_text())


def test_the_models_own_ending_counts_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300, eos=None)
    words = tokenizer(" and that was all", add_special_tokens=False)["input_ids"]
    ending = tokenizer("z", add_special_tokens=False)["input_ids"][0]
    prompt = prompts_of(tokenizer, ["A"])[0]
    assert write_script(tokenizer, prompt, [*words, ending], tmp_path / "none.jsonl").finish == "length"
    model = Scripted([*words, ending], len(tokenizer), [len(prompt.ids)])
    model.generation_config = type("GenerationConfig", (), {"eos_token_id": [ending, 4]})()
    done = generate(model, tokenizer, [prompt], tmp_path / "own.jsonl", max_new_tokens=50)[0]
    assert (done.text, done.finish) == (" and that was all", "eos")


def test_columns_that_are_no_tokens_are_never_written(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300)
    padded, exact = (tiny_model("gpt2", vocab_size=size, tie_word_embeddings=False) for size in (310, 300))
    with torch.no_grad():  # The padded head prefers what is no token.
        padded.lm_head.weight[300:] *= 100
    narrow = {"transformer.wte.weight", "lm_head.weight"}
    exact.load_state_dict(
        {name: value[:300] if name in narrow else value for name, value in padded.state_dict().items()}
    )
    with_padding, without = (
        generate(model, tokenizer, prompts_of(tokenizer), tmp_path / f"{name}.jsonl", temperature=0)
        for name, model in (("padded", padded), ("exact", exact))
    )
    assert with_padding == without
    logits = padded(input_ids=torch.tensor([prompts_of(tokenizer)[0].ids])).logits[0, -1]
    assert int(logits.argmax()) >= 300


def test_unusable_continuations_stay_in_the_file_with_the_reason(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300)
    words = tokenizer(" over and over again" * 8, add_special_tokens=False)["input_ids"]
    prompts = prompts_of(tokenizer, ["A", "B"])
    model = Scripted(words, len(tokenizer), [1])
    found = generate(model, tokenizer, prompts, tmp_path / "loop.jsonl", max_new_tokens=len(words))
    assert [(done.kept, done.reason) for done in found] == [(False, "repetition")] * 2
    model = Scripted(words[:8], len(tokenizer), [1])
    found = generate(model, tokenizer, prompts, tmp_path / "same.jsonl", max_new_tokens=8)
    assert [(done.kept, done.reason) for done in found] == [(True, None), (False, "duplicate")]
    assert [line["reason"] for line in read(tmp_path / "same.jsonl")] == [None, "duplicate"]


def test_what_an_earlier_attempt_kept_makes_later_ones_duplicates(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(vocab_size=300)
    words = tokenizer(" and that was all", add_special_tokens=False)["input_ids"]
    model = Scripted(words, len(tokenizer), [1])
    settings = {"max_new_tokens": len(words), "batch_size": 1}
    output = tmp_path / "generated.jsonl"
    generate(model, tokenizer, prompts_of(tokenizer, ["A", "B"]), output, **settings)
    content = output.read_bytes()
    assert [line["reason"] for line in read(output)] == [None, "duplicate"]
    output.write_bytes(content[: content.index(b"\n") + 1])
    generate(model, tokenizer, prompts_of(tokenizer, ["A", "B"]), output, **settings)
    assert output.read_bytes() == content


def test_no_prompts_no_texts(tmp_path: Path) -> None:
    output = tmp_path / "generated.jsonl"
    assert generate(tiny_model("gpt2", vocab_size=300), tiny_tokenizer(vocab_size=300), [], output) == []
    assert output.read_bytes() == b""


# --- what can go wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.7}, "temperature 1.0 instead of 0.7"),
        ({"top_p": 1.0}, "top_p 0.95 instead of 1.0"),
        ({"seed": 2}, "seed 1 instead of 2"),
        ({"batch_size": 4}, "batch_size 2 instead of 4"),
        ({"model_fingerprint": "other"}, "model"),
        ({"max_new_tokens": 13}, "prompts"),
    ],
)
def test_a_file_from_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("gpt2", vocab_size=300)
    prompts = prompts_of(tokenizer)
    output = tmp_path / "generated.jsonl"
    generate(model, tokenizer, prompts, output)
    before = output.read_bytes()
    with pytest.raises(PreconditionError, match=f"other settings: {words}$") as caught:
        generate(model, tokenizer, prompts, output, **change)
    assert "--force" in str(caught.value.hint)
    assert output.read_bytes() == before


def test_other_prompts_are_refused_and_so_is_a_file_without_settings(tmp_path: Path) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("gpt2", vocab_size=300)
    prompts = prompts_of(tokenizer)
    output = tmp_path / "generated.jsonl"
    generate(model, tokenizer, prompts, output)
    with pytest.raises(PreconditionError, match=r"other settings: prompts$"):
        generate(model, tokenizer, prompts[:4], output)
    for damage in (lambda path: path.write_text("[1", encoding="utf-8"), lambda path: path.unlink()):
        damage(tmp_path / "generated.settings.json")
        with pytest.raises(PreconditionError, match="settings"):
            generate(model, tokenizer, prompts, output)


def test_out_of_memory_names_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("gpt2", vocab_size=300)
    output = tmp_path / "generated.jsonl"
    errors = (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    )
    for error in errors:

        def fail(*args: Any, error: BaseException = error, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(model, "forward", fail)
        with pytest.raises(DistillkitError, match="out of memory while the teacher wrote 2 texts") as caught:
            generate(model, tokenizer, prompts_of(tokenizer), output)
        assert "--batch-size" in str(caught.value.hint)

    def defect(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(model, "forward", defect)
    with pytest.raises(RuntimeError, match="shapes"):
        generate(model, tokenizer, prompts_of(tokenizer), output)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_reported(tmp_path: Path, value: float) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("gpt2", vocab_size=300)

    def spoil(module: nn.Module, args: Any, output: Any) -> None:
        output.logits.fill_(value)

    model.register_forward_hook(spoil)
    with pytest.raises(DistillkitError, match="not numbers") as caught:
        generate(model, tokenizer, prompts_of(tokenizer), tmp_path / "generated.jsonl")
    assert "--precision" in str(caught.value.hint)


def test_a_signal_stops_within_a_batch_and_keeps_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("gpt2", vocab_size=300)
    prompts = prompts_of(tokenizer)
    whole, output = tmp_path / "whole.jsonl", tmp_path / "generated.jsonl"
    generate(model, tokenizer, prompts, whole)
    calls = 0

    def note(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 15:  # In the second batch of 12 tokens.
            monkeypatch.setattr(interrupts, "_received", signal.SIGINT)

    hook = model.register_forward_pre_hook(note)
    with pytest.raises(Interrupted) as caught:
        generate(model, tokenizer, prompts, output)
    assert (caught.value.exit_code, calls) == (130, 15)
    assert len(read(output)) == 2
    hook.remove()
    monkeypatch.setattr(interrupts, "_received", None)
    generate(model, tokenizer, prompts, output)
    assert output.read_bytes() == whole.read_bytes()


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("gpt2", vocab_size=300)
    for settings in (
        {"max_new_tokens": [1]},
        {"max_new_tokens": 0},
        {"top_p": 0},
        {"temperature": -1},
        {"batch_size": 0},
    ):
        with pytest.raises(ValueError):
            generate(model, tokenizer, prompts_of(tokenizer), tmp_path / "generated.jsonl", **settings)
    assert list(tmp_path.iterdir()) == []


# --- shared between runs ---------------------------------------------------------------------------------------------


def cache_in(folder: Path, said: io.StringIO | None = None, precision: str = "float32") -> GenerationCache:
    return GenerationCache(
        folder / ".teacher-cache", "t", {"precision": precision, "device": "cpu"}, Console(err=said or io.StringIO())
    )


def never() -> nn.Module:
    raise AssertionError("the teacher is not needed")


def test_finished_texts_are_shared_and_the_teacher_stays_unloaded(tmp_path: Path) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("llama", vocab_size=300, seed=4)
    prompts = prompts_of(tokenizer)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    written = generate(model, tokenizer, prompts, first, cache=cache_in(tmp_path))
    said = io.StringIO()
    again = generate_with(never, tokenizer, prompts, output=second, cache=cache_in(tmp_path, said))
    assert again == written
    assert second.read_bytes() == first.read_bytes()
    assert "those of an earlier run" in said.getvalue()
    (entry,) = list_caches(tmp_path / ".teacher-cache")
    assert (entry.kind, entry.teacher, entry.tokens) == ("written", "t", sum(one.tokens for one in written))
    # Of nothing else: another seed, another format.
    for changes, precision in (({"seed": 2}, "float32"), ({}, "bfloat16")):
        output = tmp_path / f"other-{precision}.jsonl"
        with pytest.raises(AssertionError, match="not needed"):
            generate_with(
                never, tokenizer, prompts, output=output, cache=cache_in(tmp_path, precision=precision), **changes
            )


@pytest.mark.parametrize("name", ["generated.jsonl", "meta.json"])
def test_damaged_shared_texts_are_written_anew(tmp_path: Path, name: str) -> None:
    tokenizer, model = tiny_tokenizer(vocab_size=300), tiny_model("llama", vocab_size=300, seed=4)
    prompts = prompts_of(tokenizer)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    generate(model, tokenizer, prompts, first, cache=cache_in(tmp_path))
    (folder,) = (path for path in (tmp_path / ".teacher-cache").iterdir() if path.is_dir())
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    said = io.StringIO()
    generate(model, tokenizer, prompts, second, cache=cache_in(tmp_path, said))
    assert "damaged; the texts are written anew" in said.getvalue()
    assert second.read_bytes() == first.read_bytes()
    generate(model, tokenizer, prompts, tmp_path / "third.jsonl", cache=cache_in(tmp_path, said))
    assert "those of an earlier run" in said.getvalue()
