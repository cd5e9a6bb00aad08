"""Compressed log-probabilities of arcee's DistillKit, unpacked.

https://github.com/arcee-ai/DistillKit, its `compression/`: the likeliest k tokens in descending order, ids packed bit by bit,
the first log-probabilities as they are, the others as a polynomial of their rank, with quantised residuals if there are any.
How a data set was compressed is in its compression_config.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillkit.errors import UsageError
from distillkit.importing.sequences import BadRowError
from distillkit.settings.strict_yaml import read_yaml_mapping

# Their names, and how many bytes a number has.
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
_KNOWN = frozenset(
    {
        "d", "k", "exact_k", "exact_dtype", "polynomial_terms", "term_dtype", "residual_bins", "delta_encoding",
        "error_diffusion", "normalize_t",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Bin:
    """Quantised residuals of consecutive ranks: `numbers` of them, `bits` each, times a scale of the format `scale`."""

    scale: str
    bits: int
    numbers: int


@dataclass(frozen=True)
class Compression:
    """How a data set was compressed.

    Attributes:
        vocabulary: `d`, which decides how many bits an id has.
        size: `k`, tokens at each place; exact: `exact_k`, those whose log-probabilities are kept as they are.
        exact_format, term_format: number formats of these and of the polynomial's coefficients.
        terms: exponents of the rank, "sqrt" or "exp"; the rank counts from 0, or with `unit_ranks` from 0 to 1.
        bins: of residuals.
        deltas: all numbers but the first are differences to the one before.
    """

    vocabulary: int
    size: int
    exact: int
    exact_format: str
    terms: tuple[int | str, ...]
    term_format: str
    bins: tuple[Bin, ...]
    deltas: bool
    unit_ranks: bool

    @classmethod
    def read(cls, path: Path) -> Compression:
        """Of a compression_config.yaml.

        Raises:
            UsageError: it cannot be read, or says something that is not known here.
        """
        content = read_yaml_mapping(path, "compression file")
        try:
            return cls.of(content)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UsageError(
                f"{path}: {reason}", hint="give the compression_config.yaml that was written with the rows"
            ) from error

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Compression:
        """Of its content.

        Raises:
            KeyError, TypeError, ValueError: it says too little, or something that is not known here.
        """
        if unknown := sorted(content.keys() - _KNOWN):
            raise ValueError(f"{unknown[0]!r} is not known")
        bins = tuple(
            Bin(_format(one["scale_dtype"]), int(one["element_bits"]), int(one["num_elements"]))
            for one in content.get("residual_bins") or []
        )
        made = cls(
            int(content["d"]), int(content["k"]), int(content["exact_k"]), _format(content.get("exact_dtype", "float32")),
            tuple(content.get("polynomial_terms") or ()), _format(content.get("term_dtype", "float32")), bins,
            # Where it is not said, it is on: so does the tool that wrote it.
            bool(content.get("delta_encoding", True)), bool(content.get("normalize_t", False)),
        )  # fmt: skip
        if not 0 <= made.exact <= made.size <= made.vocabulary or made.size < 1:
            raise ValueError(f"exact_k {made.exact}, k {made.size} and d {made.vocabulary} do not ascend")
        if any(not (isinstance(term, int) or term in ("sqrt", "exp")) for term in made.terms):
            raise ValueError(f"polynomial_terms {list(made.terms)} are not all known")
        if any(not 1 <= one.bits <= 63 or one.numbers < 1 for one in bins):
            raise ValueError("a residual bin has no bits, or too many")
        if sum(one.numbers for one in bins) > made.size - made.exact:
            raise ValueError("there are more residuals than approximated values")
        return made

    @property
    def id_bits(self) -> int:
        """Of an id."""
        return math.ceil(math.log2(self.vocabulary))

    def unpacked(self, packed_ids: Any, packed_values: Any) -> tuple[np.ndarray, np.ndarray]:
        """([T, k] ids, [T, k] log-probabilities in float64) of T places.

        Args:
            packed_ids: [T, bytes] `bytepacked_indices`.
            packed_values: [T, bytes] `compressed_logprobs`.

        Raises:
            BadRowError: there are too few bytes, or too many.
        """
        ids = _bytes(packed_ids, math.ceil(self.size * self.id_bits / 8), "bytepacked_indices")
        values = _bytes(packed_values, self._value_bytes, "compressed_logprobs")
        if len(ids) != len(values):
            raise BadRowError(f"{len(ids)} places of ids and {len(values)} of log-probabilities")
        return _integers(ids, self.id_bits, self.size), self._logarithms(values)

    @property
    def _value_bytes(self) -> int:
        fixed = self.exact * _BYTES[self.exact_format] + len(self.terms) * _BYTES[self.term_format]
        return fixed + sum(_BYTES[one.scale] + math.ceil(one.bits * one.numbers / 8) for one in self.bins)

    def _logarithms(self, packed: np.ndarray) -> np.ndarray:
        place = 0

        def taken(count: int) -> np.ndarray:
            nonlocal place
            place += count
            return packed[:, place - count : place]

        exact = _numbers(taken(self.exact * _BYTES[self.exact_format]), self.exact_format)
        rest = np.zeros((len(packed), self.size - self.exact))
        if self.terms:
            coefficients = _numbers(taken(len(self.terms) * _BYTES[self.term_format]), self.term_format)
            rest = coefficients @ self._powers().T
        first = 0
        for one in self.bins:
            scale = _numbers(taken(_BYTES[one.scale]), one.scale)
            steps = _integers(taken(math.ceil(one.bits * one.numbers / 8)), one.bits, one.numbers).astype(np.float64)
            # One bit is a sign; of more the lowest number stands for the most negative step.
            residuals = 2 * steps - 1 if one.bits == 1 else steps - 2 ** (one.bits - 1)
            rest[:, first : first + one.numbers] += residuals * scale
            first += one.numbers
        found = np.concatenate([exact, rest], axis=1)
        return np.cumsum(found, axis=1) if self.deltas else found

    def _powers(self) -> np.ndarray:
        """[k - exact_k, terms]"""
        count = self.size - self.exact
        ranks = np.linspace(0, 1, count) if self.unit_ranks else np.arange(count, dtype=np.float64)
        special = {"sqrt": np.sqrt, "exp": np.exp}
        columns = [special[term](ranks) if isinstance(term, str) else ranks**term for term in self.terms]
        return np.stack(columns, axis=1)


def _format(name: Any) -> str:
    if name not in _BYTES:
        raise ValueError(f"{name!r} is no number format: {', '.join(_BYTES)}")
    return name


def _bytes(values: Any, each: int, name: str) -> np.ndarray:
    """[T, each] uint8"""
    try:
        rows = np.asarray(values, dtype=np.uint8)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRowError(
            f"{name}: the places have not all the same number of bytes, or hold something else"
        ) from error
    if rows.ndim != 2 or rows.shape[1] != each:
        found = rows.shape[1] if rows.ndim == 2 else 0
        raise BadRowError(
            f"{name}: {found} bytes at a place, and this compression takes {each}: another configuration?"
        )
    return rows


def _integers(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """[T, count] int64 of a stream of bits, the highest first."""
    stream = np.unpackbits(packed, axis=1)[:, : bits * count].reshape(len(packed), count, bits).astype(np.int64)
    return stream @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))


def _numbers(packed: np.ndarray, name: str) -> np.ndarray:
    """[T, numbers] float64 of little-endian numbers."""
    packed = np.ascontiguousarray(packed)
    if name == "bfloat16":
        return (packed.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return packed.view({"float16": "<f2", "float32": "<f4", "float64": "<f8"}[name]).astype(np.float64)
