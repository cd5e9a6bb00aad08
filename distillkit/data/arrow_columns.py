"""What is read of what Arrow describes: Parquet files, Feather files, sets that `datasets` has prepared.

The types say most. Values are read only of the columns that may hold text, so that pictures and sounds stay where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from distillkit.data.column_looks import Look, are_turn_fields, is_text
from distillkit.data.columns import SAMPLE_ROWS
from distillkit.data.conversation_columns import TEXT, may_hold_conversations
from distillkit.data.layouts import Layout, choose_layout
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError

# Fewer rows are looked at where they are long.
_SAMPLE_BYTES = 64 << 20
_BATCH_ROWS = 50
_BUFFER_BYTES = 1 << 18
_NOT_UTF8 = "bytes that are not UTF-8"


def choose_arrow_layout(
    schema: Any, read_first: Callable[[list[str]], Mapping[str, Sequence[Any]]], options: ReadingOptions, where: str
) -> Layout:
    """What the rows of a table are.

    Args:
        schema: its `pyarrow.Schema`.
        read_first: gives the first values of some columns by name, such as `first_values` of a Parquet file.
        options: what the user said of them: `data_format`, `text_column`, `box_type`.
        where: the file or data set, for the message.

    Raises:
        UsageError: it is not clear what is to be read, or there is no such column.
    """
    wanted = options.text_column
    _refuse_doubles(schema, wanted, where)
    doubles = {name for name, count in Counter(schema.names).items() if count > 1}
    known = {field.name: _look_at_type(field.type) for field in schema if field.name not in doubles}
    columns: dict[str, Sequence[Any] | Look] = {name: look or _ANY_TEXT for name, look in known.items()}
    open_questions = [name for name, look in known.items() if look is None]
    if wanted is not None and options.data_format in ("auto", TEXT):
        if wanted in known and not is_text_type(schema.field(wanted).type) and open_questions:
            # For the message, which says what the others are.
            columns.update(read_first(open_questions))
        return choose_layout(columns, options, where)
    # Where a column is called so, and nothing else can be meant, the others need not be fetched.
    called = [name for name in open_questions if name.strip().lower() == TEXT]
    is_text_meant = options.data_format == TEXT or (
        options.data_format == "auto" and not may_hold_conversations(list(known), known)
    )
    if called and is_text_meant:
        found = read_first(called)
        if len(called) == 1 and is_text(found[called[0]]):
            return choose_layout(found, options, where)
    if open_questions:
        columns.update(read_first(open_questions))
    return choose_layout(columns, options, where)


def _refuse_doubles(schema: Any, wanted: str | None, where: str) -> None:
    """Refuse several columns of one name, where one of them may be meant."""
    for name, count in Counter(schema.names).items():
        is_meant = name == wanted or (wanted is None and any(is_text_type(f.type) for f in schema if f.name == name))
        if count > 1 and is_meant:
            raise UsageError(f"{where}: {count} columns are called '{name}'", hint="give them names of their own")


def first_values(source: Any, names: list[str]) -> dict[str, list[Any]]:
    """The first values of some columns of a Parquet file, a path or a stream, of which little more is read."""
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    return values_of_batches(file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False), names)


def values_of_batches(batches: Iterable[Any], names: list[str]) -> dict[str, list[Any]]:
    """The first values of some columns of record batches or tables; what cannot be decoded counts as missing."""
    values: dict[str, list[Any]] = {name: [] for name in names}
    rows = size = 0
    for batch in batches:
        for name in names:
            values[name].extend(value if error is None else None for value, error in decoded(batch.column(name)))
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= SAMPLE_ROWS or size >= _SAMPLE_BYTES:
            break
    return values


def decoded(array: Any) -> Iterator[tuple[Any, str | None]]:
    """The values of an Arrow array, each with None, or with what is wrong with its bytes."""
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        for scalar in array:
            try:
                yield scalar.as_py(), None
            except UnicodeDecodeError:
                yield None, _NOT_UTF8
        return
    for value in values:
        yield value, None


def decoded_rows(arrays: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The rows of some columns: their cells, and what is wrong with the bytes of some."""
    for values in zip(*map(decoded, arrays.values()), strict=True):
        row = dict(zip(arrays, values, strict=True))
        yield (
            {name: value for name, (value, _) in row.items()},
            {name: error for name, (_, error) in row.items() if error is not None},
        )


def is_text_type(kind: Any) -> bool:
    """Whether an Arrow type is one of strings, also where they are kept in a dictionary."""
    from pyarrow import types

    kind = _plain(kind)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


_ANY_TEXT = Look("prose", "text", is_text=True)


def _look_at_type(kind: Any) -> Look | None:
    """What a column of this type looks like; None where its values have to be seen."""
    from pyarrow import types

    kind = _plain(kind)
    if is_text_type(kind):
        return None
    if types.is_null(kind):
        return Look("nothing", "nothing")
    if types.is_boolean(kind):
        return Look("other", "true or false")
    if types.is_temporal(kind):
        return Look("other", "dates or times")
    if _is_bytes(kind):
        return Look("other", "bytes")
    if not types.is_nested(kind):
        return Look("other", "numbers")
    if _holds_turns(kind):
        return Look("chat", "chat turns")
    inner = list(_inner_types(kind))
    label = "objects" if types.is_struct(kind) or types.is_map(kind) else "lists"
    if any(map(_is_bytes, inner)):
        return Look("other", f"{label} with bytes in them")
    return None if any(map(is_text_type, inner)) else Look("other", label)


def _plain(kind: Any) -> Any:
    """The type of the values themselves, below extensions, dictionaries and runs."""
    from pyarrow import types

    while True:
        if hasattr(kind, "storage_type"):
            kind = kind.storage_type
        elif types.is_dictionary(kind) or types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    kind = _plain(kind)
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _inner_types(kind: Any) -> Iterator[Any]:
    """The types of what stands in lists and structs, at any depth."""
    from pyarrow import types

    kind = _plain(kind)
    if not types.is_nested(kind):
        yield kind
        return
    for number in range(kind.num_fields):
        yield from _inner_types(kind.field(number).type)


def _holds_turns(kind: Any) -> bool:
    from pyarrow import types

    kind = _plain(kind)
    if types.is_struct(kind):
        return are_turn_fields([kind.field(number).name for number in range(kind.num_fields)])
    is_list = not types.is_map(kind) and kind.num_fields == 1
    return is_list and types.is_struct(_plain(kind.field(0).type)) and _holds_turns(kind.field(0).type)
