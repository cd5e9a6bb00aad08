"""A teacher of which one block at a time is in memory.

The model is built without weights; it runs its own forward pass, embeddings, masks and positions included, but only one
of its blocks computes, on hidden states that were kept from the block before. So nothing of an architecture is written
again here, and every block gets exactly the arguments that the whole model would give it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.errors import PreconditionError, UsageError
from distillkit.models.empty_model import empty_model
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import read_config, weight_files
from distillkit.models.plain_folder import plain_folder
from distillkit.models.pruning import decoder_blocks, keep_layers
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.silence_libraries import silence_transformers

# Architectures whose blocks are a chain of hidden states, and whose head is a linear layer on the last of them; each is
# compared with the whole model in tests/unit/teachers/test_streaming.py.
CHAINS = ("gpt2", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3")
# GPT-NeoX's head has another name in its files than in the model.
_SAME_NAME = {"lm_head.weight": "embed_out.weight", "embed_out.weight": "lm_head.weight"}


def streaming_problem(config: Mapping[str, Any]) -> str | None:
    """Why a teacher cannot run block by block; None if it can.

    Args:
        config: the content of its config.json.
    """
    kind = config.get("model_type")
    if "auto_map" in config:
        return "it brings its own code"
    if config.get("quantization_config") is not None:
        return "its weights are quantised"
    if kind not in CHAINS:
        return f"its architecture ({kind}) is none of {', '.join(CHAINS)}"
    return None


class BlockwiseTeacher:
    """The teacher's blocks, one by one.

    Args:
        dtype: of the weights.
        device: where a block computes.
        prepare_block: called with each block when its weights are there; returns what undoes it.

    Raises:
        UsageError: the architecture is not known to be a chain of blocks.
        PreconditionError: weights are missing or of the wrong shape.
    """

    def __init__(
        self,
        located: LocatedModel,
        dtype: torch.dtype,
        device: torch.device,
        prepare_block: Callable[[nn.Module], Callable[[], None]] | None = None,
    ) -> None:
        problem = streaming_problem(read_config(located.folder))
        if problem is not None:
            raise UsageError(
                f"{located.reference.text} cannot run block by block: {problem}", hint="use --teacher-streaming off"
            )
        self.name, self.dtype, self.device = located.reference.text, dtype, device
        self.stored = StoredWeights(list(weight_files(located.folder)))
        self.model = empty_model(transformers_config(located), dtype)
        _, _, self.blocks = decoder_blocks(self.model)
        self._prepare_block = prepare_block
        self._names = {module: name for name, module in self.model.named_modules()}
        self._empty = [dict(block.state_dict()) for block in self.blocks]
        self._current = -1
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        for module in self.model.modules():  # What is computed rather than stored: the frequencies of positions.
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        self._own = [block.forward for block in self.blocks]
        for index, block in enumerate(self.blocks):
            block.forward = functools.partial(self._forward, index)

    @property
    def inner_width(self) -> int:
        """d, numbers per token between blocks."""
        return int(self._any.config.get_text_config().hidden_size)

    @property
    def width(self) -> int:
        """D, numbers per token that the head reads."""
        return int(self._head().in_features)

    # --- weights ---

    def head_layer(self) -> nn.Linear:
        """The head, on the CPU."""
        head = self._head()
        self._load(head)
        return head

    def forget_head(self) -> None:
        self._head().to_empty(device="meta")

    @property
    def embedding(self) -> nn.Module:
        return self._any.get_input_embeddings()

    def load_frame(self, *, embedding: bool) -> None:
        """What is around the blocks: norms and positions, and with `embedding` the table of the tokens; without it
        hidden states of the right shape and no meaning stand in."""
        inside = {module for block in self.blocks for module in block.modules()} | {self._head()}
        for module in self._any.base_model.modules():
            if module in inside or module is self.embedding or not any(True for _ in module.parameters(recurse=False)):
                continue
            self._load(module, recurse=False)
        if embedding:
            vars(self.embedding).pop("forward", None)
            self._load(self.embedding)
        else:
            self.forget_embedding()

    def forget_embedding(self) -> None:
        """From now on, tokens only say how many they are."""
        width, dtype, device = int(self.embedding.weight.shape[1]), self.dtype, self.device  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue]
        self.embedding.forward = lambda ids: torch.zeros(*ids.shape, width, dtype=dtype, device=device)
        self.embedding.to_empty(device="meta")

    def whole_model(self) -> nn.Module:
        """A causal language model as any other, which reads each block from the disk whenever it gets there: slow, but
        no larger than a block. This object is used up by it."""
        self._load_surroundings()
        for index, block in enumerate(self.blocks):
            block.forward = functools.partial(self._read_and_run, index)
        return self.model

    def cut(self, kept: Sequence[int]) -> nn.Module:
        """A student made of some of the blocks (`pruning.keep_layers`); only these are read. This object is used up by it."""
        self._load_surroundings()
        for index in kept:
            self.load_block(index)
        return keep_layers(self.model, kept)

    def _load_surroundings(self) -> None:
        """All that is no block."""
        self.load_frame(embedding=True)
        head, table = (self._stored_name(f"{self._names[module]}.weight") for module in (self._head(), self.embedding))
        if head == table:
            self._head().weight = self._any.get_input_embeddings().weight
        else:
            self._load(self._head())

    def _read_and_run(self, index: int, *values: Any, **named: Any) -> Any:
        self.load_block(index)
        try:
            return self._own[index](*values, **named)
        finally:
            self.forget_block(index)

    def load_block(self, index: int) -> None:
        """Read the weights of a block."""
        self._load(self.blocks[index])
        self._undo = self._prepare_block(self.blocks[index]) if self._prepare_block else None

    def forget_block(self, index: int) -> None:
        if self._undo is not None:
            self._undo()
        self.blocks[index].load_state_dict(self._empty[index], assign=True)

    def _load(self, module: nn.Module, *, recurse: bool = True) -> None:
        prefix = self._names[module]
        tensors = {}
        wanted = module.state_dict() if recurse else dict(module.named_parameters(recurse=False))
        for name, value in wanted.items():
            stored = self._stored_name(f"{prefix}.{name}")
            if self.stored.shape(stored) != tuple(value.shape):
                raise PreconditionError(
                    f"{self.name}: weights of the wrong shape: {stored}", hint="get the model again"
                )
            tensors[name] = self.stored.read(stored, self.dtype).to(self.device)
        module.load_state_dict(tensors, assign=True, strict=recurse)

    def _stored_name(self, name: str) -> str:
        """As the file has it: with or without the name of the inner model in front; tied weights are stored once."""
        prefix = f"{self._any.base_model_prefix}."
        names = [name, _SAME_NAME[name]] if name in _SAME_NAME else [name]
        pair = [f"{self._names[self._head()]}.weight", f"{self._names[self.embedding]}.weight"]
        if name in pair and self._any.config.get_text_config().tie_word_embeddings:
            names.append(pair[1 - pair.index(name)])
        for candidate in names:
            for spelled in (candidate, candidate.removeprefix(prefix), prefix + candidate):
                if spelled in self.stored:
                    return spelled
        raise PreconditionError(
            f"{self.name} lacks weights (such as {name}): they would be random", hint="get the model again"
        )

    # --- computing ---

    def run(self, index: int, ids_BT: Tensor, mask_BT: Tensor, hidden_BTd: Tensor | None) -> Tensor:
        """What comes out of block `index`.

        Args:
            hidden_BTd: [B, T, d], what came out of the block before; None for the first block, which takes what the
                embeddings give.

        Returns:
            [B, T, d]; of the last block [B, T, D], as the head reads it.
        """
        _, output, last = self._pass(index, ids_BT, mask_BT, hidden_BTd)
        return last if index == len(self.blocks) - 1 else output

    def around(self, index: int, ids_BT: Tensor, hidden_BTd: Tensor | None) -> tuple[Tensor, Tensor]:
        """The hidden states in front of block `index` and behind it, [B, T, d] each, of texts without padding.

        Args:
            hidden_BTd: as `run` takes it.
        """
        before, after, _ = self._pass(index, ids_BT, torch.ones_like(ids_BT), hidden_BTd)
        return before, after

    def _pass(
        self, index: int, ids_BT: Tensor, mask_BT: Tensor, hidden_BTd: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What goes into a block, what comes out of it, and what the model makes of that for its head."""
        self._current, self._input, self._output = index, hidden_BTd, None
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            last = self._any.base_model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        given, output, self._input, self._output = self._input, self._output, None, None
        if given is None or output is None:
            raise RuntimeError(f"{type(self.model).__name__} did not run its block {index}")
        return given, output, last

    def _forward(self, index: int, hidden: Tensor, *values: Any, **named: Any) -> Tensor:
        if index != self._current:
            return hidden
        self._input = hidden if self._input is None else self._input
        output = self._own[index](self._input, *values, **named)
        if not isinstance(output, Tensor) or output.dtype != self.dtype:
            raise UsageError(
                f"{self.name} cannot run block by block: its blocks give something else than hidden states",
                hint="use --teacher-streaming off",
            )
        self._output = output
        return output

    @property
    def _any(self) -> Any:
        return self.model

    def _head(self) -> nn.Linear:
        return self._any.get_output_embeddings()


def transformers_config(located: LocatedModel) -> Any:
    """The configuration of a model as transformers reads it, with what was asked to be changed in it."""
    from transformers import AutoConfig

    with silence_transformers(), plain_folder(located.folder) as folder:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, **located.options)
