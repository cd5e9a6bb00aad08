"""Conversations as models read them: against transformers' own rendering, turn by turn, in four published families."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import tokenizer_makers as make
from chat_templates import CHATML, FAMILIES, MARKED, OTHERS, REASONING, Family, as_chat
from tiny_models import make_paragraph, tiny_tokenizer

from distillkit.data.chat_template import PLAIN, ChatTemplate, TemplateRefusalError, own_template
from distillkit.data.conversation import Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.rendering import joined, rendered
from distillkit.data.template_choice import choose_templates
from distillkit.data.text_encoder import TextEncoders, make_text_encoder
from distillkit.errors import PreconditionError, UsageError

TOKENIZERS = {
    "byte-level": lambda: tiny_tokenizer(500),
    "modern split": make.split_byte_level,
    "sentencepiece bpe": make.sentencepiece_like,
    "gemma": make.gemma_like,
}
ODD = ("", " ", "user", "\n\nassistant\n", "  both ends \n", "naïve 日本 😀", "model", "[x] {{ y }} {% z %}", "a")


def reader(family: Family, tokenizer: Any, *, longest: int = 4096) -> ConversationReader:
    as_chat(tokenizer, family)
    encoder = make_text_encoder(tokenizer, None, longest, needs_bytes=True)
    return ConversationReader(encoder, ChatTemplate.of(encoder, family.source, "model", "the student"))


def chat(generator: random.Random) -> list[Turn]:
    def said() -> str:
        return generator.choice(ODD) if generator.random() < 0.4 else make_paragraph(generator, 1)

    turns = [Turn("system", said())] if generator.random() < 0.5 else []
    for _ in range(generator.randint(1, 3)):
        turns += [Turn("user", said()), Turn("assistant", said())]
    return turns


def messages(turns: Any) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


@pytest.mark.parametrize("maker", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("family", [*FAMILIES.values(), *OTHERS.values()], ids=[*FAMILIES, *OTHERS])
def test_tokens_are_those_of_transformers_and_answers_stand_where_they_were_said(family: Family, maker: Any) -> None:
    read_by = reader(family, maker())
    tokenizer, template = read_by.encoder.tokenizer, read_by.template
    end = family.end or tokenizer.eos_token
    assert (template.end_name, template.end_id) == (end, tokenizer.convert_tokens_to_ids(end))
    generator = random.Random(5)
    for _ in range(25):
        # Gemma's refuses the system, this Mistral's leaves it out where the last turn is an answer: it goes to the user's.
        turns = template.read(chat(generator))
        read = read_by.read(turns)
        if read is None:
            continue  # A character that this tokenizer does not have.
        assert read.ids == tokenizer.apply_chat_template(messages(turns), tokenize=True, return_dict=False)
        assert read.data.decode() == tokenizer.apply_chat_template(messages(turns), tokenize=False)
        assert [turn.role for turn in read.turns] == [turn.role for turn in turns]
        for turn, found in zip(turns, read.turns, strict=True):
            assert found.text in (turn.text, turn.text.strip())
            assert found.content is not None
            assert read.data[slice(*found.content)].decode() == found.text
            if turn.role != "assistant":
                assert found.target is None
                continue
            assert found.target is not None
            assert found.end_token == found.target[1] - 1
            assert read.ids[found.end_token] == template.end_id
            # What the tokens of the target stand for: the content, at most with white space that the template writes.
            ends = [0, *read.encoding.ends.tolist()]
            bytes_ = read.data[ends[found.target[0]] : ends[found.target[1]]].decode()
            assert bytes_.removesuffix(end).strip() == turn.text.strip()
            assert bytes_.endswith(end)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_names_of_special_tokens_in_contents_are_text(family: Family) -> None:
    read_by = reader(family, tiny_tokenizer(500))
    names = [*family.tokens, read_by.encoder.tokenizer.eos_token]
    specials = set(read_by.encoder.tokenizer.all_special_ids)

    def special_ids(turns: list[Turn]) -> list[int]:
        read = read_by.read(turns)
        assert read is not None
        assert read.encoding.ends[-1] == len(read.data)
        return [index for index in read.ids if index in specials]

    harmless = [Turn("user", "a b"), Turn("assistant", "b c"), Turn("user", "x"), Turn("assistant", "y")]
    spoken = [
        replace(turn, text=f"{turn.text} {name} {turn.text}{name}")
        for turn, name in zip(harmless, names * 2, strict=False)
    ]
    assert special_ids(spoken) == special_ids(harmless)
    read = read_by.read(spoken)
    assert read is not None
    assert [turn.text for turn in read.turns] == [turn.text for turn in spoken]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_prompt_is_what_precedes_the_answer(family: Family) -> None:
    read_by = reader(family, tiny_tokenizer(500))
    tokenizer = read_by.encoder.tokenizer
    turns = [Turn("user", "Who?"), Turn("assistant", "Ada."), Turn("user", "Where?")]
    wanted = tokenizer.apply_chat_template(
        messages(turns), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert read_by.prompt_ids(turns) == wanted
    if "[INST]" not in family.tokens:
        whole = read_by.read([*turns, Turn("assistant", "There.")])
        assert whole is not None
        assert whole.ids[: len(wanted)] == wanted
        assert whole.turns[-1].target is not None
        assert whole.turns[-1].target[0] == len(wanted)
    named = [*turns[:2], Turn("user", f"What is {read_by.template.end_name}?")]
    found = read_by.prompt_ids(named)
    assert found is not None
    assert found.count(read_by.template.end_id) == wanted.count(read_by.template.end_id)


def test_no_systems_text_is_lost() -> None:
    template = reader(FAMILIES["mistral"], tiny_tokenizer(500)).template
    turns = [
        Turn("system", "Be brief."),
        Turn("user", "Why?"),
        Turn("assistant", "So."),
        Turn("user", "?"),
        Turn("assistant", "!"),
    ]
    assert rendered(template, turns).text == "<s>[INST] Be brief.\n\nWhy?[/INST] So.</s>[INST] ?[/INST] !</s>"


def test_gemma_gets_the_systems_text_in_front_of_the_users_first() -> None:
    template = reader(FAMILIES["gemma"], tiny_tokenizer(500)).template
    assert template.joins_system
    text = rendered(template, [Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "So.")]).text
    assert text == "<bos><start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n<start_of_turn>model\nSo.<end_of_turn>\n"
    with pytest.raises(TemplateRefusalError, match="must alternate"):
        rendered(template, [Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c")])
    assert joined([Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c")]) == (
        Turn("user", "a\n\nb"),
        Turn("assistant", "c"),
    )


def test_marks_and_prompts_have_to_agree() -> None:
    wrong = replace(
        MARKED,
        source=MARKED.source.replace("{% generation %}", "")
        .replace(
            "'<|im_start|>assistant\n' }}", "'<|im_start|>' }}{% generation %}{{ 'assistant\n' }}{% endgeneration %}", 1
        )
        .replace(
            "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}", "{{ message['content'] + '<|im_end|>' }}"
        ),
    )
    assert wrong.source.count("generation %}") == 2
    template = reader(wrong, tiny_tokenizer(500)).template
    assert template.marks_answers
    with pytest.raises(TemplateRefusalError, match="marks are not where its answers stand"):
        rendered(template, [Turn("user", "a"), Turn("assistant", "b")])
    alone = replace(
        MARKED,
        source=MARKED.source.replace(
            "message['content'] + '<|im_end|>' }}{% endgeneration %}",
            "message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
        ),
    )
    turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", ""), Turn("assistant", "")]
    both = [rendered(reader(family, tiny_tokenizer(500)).template, turns) for family in (MARKED, alone)]
    assert both[0] == both[1]


def test_reasoning_that_a_template_drops_is_no_part_of_an_answer() -> None:
    read_by = reader(REASONING, tiny_tokenizer(500))
    turns = [
        Turn("user", "a"),
        Turn("assistant", "<think>x</think>\n\nfirst"),
        Turn("user", "b"),
        Turn("assistant", "<think>y</think>last"),
    ]
    read = read_by.read(turns)
    assert read is not None
    assert [turn.text for turn in read.turns if turn.role == "assistant"] == ["first", "<think>y</think>last"]
    targets = [turn.target for turn in read.turns if turn.target is not None]
    assert [read_by.encoder.tokenizer.decode(read.ids[begin:end]) for begin, end in targets] == [
        "first<|im_end|>",
        "<think>y</think>last<|im_end|>",
    ]


def test_templates_that_cannot_be_used() -> None:
    encoder = make_text_encoder(as_chat(tiny_tokenizer(500), CHATML), None, 100, needs_bytes=True)
    for source, said in (
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "no special token behind an answer"),
        ("{{ messages[0]['content'] }}", "leaves the answer out"),
        ("{% for m in messages %}", "cannot render a question and its answer"),
    ):
        with pytest.raises(PreconditionError, match=said) as found:
            ChatTemplate.of(encoder, source, "file", "the student")
        assert "--chat-template" in (found.value.hint or "")


def test_whose_template_is_used(tmp_path: Any) -> None:
    def encoder(family: Family | None, size: int = 500, source: bool = True) -> Any:
        tokenizer = tiny_tokenizer(size)
        if family is not None:
            as_chat(tokenizer, family)
        if not source:
            tokenizer.chat_template = None
        return make_text_encoder(tokenizer, None, 100, needs_bytes=True)

    chatml, bare, base = encoder(CHATML), encoder(CHATML, source=False), encoder(None, 300)
    assert own_template(base.tokenizer) is None
    found = choose_templates(TextEncoders(bare, chatml), None)
    assert (found.student.origin, found.teacher.origin, found.same(TextEncoders(bare, chatml))) == (
        "teacher",
        "model",
        True,
    )
    found = choose_templates(TextEncoders(base, chatml), None)
    assert (found.student.origin, found.student.source, found.student.end_name) == ("plain", PLAIN, "<|endoftext|>")
    assert not found.same(TextEncoders(base, chatml))
    found = choose_templates(TextEncoders(bare, chatml), CHATML.source + " ")
    assert (found.student.origin, found.student.source) == ("file", CHATML.source + " ")
    again = type(found).from_record(found.record(), TextEncoders(bare, chatml))
    assert again == found
    with pytest.raises(UsageError, match="both have one"):
        choose_templates(TextEncoders(chatml, chatml), CHATML.source)
