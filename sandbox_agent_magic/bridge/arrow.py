"""Arrow streams from a stranger: each message's header is looked at before pyarrow acts on it.

Refused are extension types (their classes may run code), compressed bodies and types that take no space (a few bytes
can stand for any amount of memory), and offsets that point outside. Runs on both sides of the bridge, like `codec.py`.
"""

from __future__ import annotations

import struct

import pyarrow as pa
import pyarrow.ipc
import pyarrow.types as kinds

from .codec import MAX_HEADER_BYTES, Refused

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_MAX_MESSAGES = 100_000
_LEAVES = (
    kinds.is_boolean,
    kinds.is_integer,
    kinds.is_floating,
    kinds.is_decimal,
    kinds.is_temporal,
    kinds.is_string,
    kinds.is_large_string,
    kinds.is_string_view,
    kinds.is_binary,
    kinds.is_large_binary,
)


def read_table(source: pa.NativeFile) -> tuple[dict[bytes, bytes], list[pa.Array]]:
    """The metadata and the columns of the stream that starts here; `source` then stands behind it.

    Raises:
        Refused: there is something in it that may not cross.
    """
    start = source.tell()
    _look_through(source)
    source.seek(start)
    with pa.ipc.open_stream(source) as stream:
        if not all(_is_plain(field.type) for field in stream.schema):
            raise Refused("it holds types that may not cross")
        table = stream.read_all()
    table.validate(full=True)
    return dict(table.schema.metadata or {}), [as_one(column) for column in table.columns]


def as_one(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array; copied only if it is in several pieces."""
    if not isinstance(array, pa.ChunkedArray):
        return array
    return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()


def _is_plain(kind: pa.DataType) -> bool:
    if kinds.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        return _is_plain(kind.value_type)
    if kinds.is_struct(kind):
        return kind.num_fields > 0 and all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in _LEAVES)


def _look_through(source: pa.NativeFile) -> None:
    """Check the headers of all messages of a stream; their form: https://arrow.apache.org/docs/format/Columnar.html"""
    total = source.size()
    for _ in range(_MAX_MESSAGES):
        mark, length = struct.unpack("<Ii", source.read(8))
        if mark != 0xFFFFFFFF or not 0 <= length <= MAX_HEADER_BYTES:
            raise Refused("it is not an Arrow stream")
        if length == 0:
            return
        header = source.read(length)
        body = _check(header)
        if not 0 <= body <= total - source.tell():
            raise Refused("a message is longer than the file")
        source.seek(source.tell() + body)
    raise Refused("it has too many messages")


def _check(header: bytes) -> int:
    """Length of the message's body."""
    message = struct.unpack_from("<I", header)[0]
    kind = _field(header, message, 1)
    at = _field(header, message, 2)
    length = _field(header, message, 3)
    if not kind or not at:
        raise Refused("a message has no header")
    what = header[kind]
    table = at + struct.unpack_from("<I", header, at)[0]
    if what == _SCHEMA:
        if b"ARROW:extension" in header:
            raise Refused("it holds extension types")
    elif what in (_DICTIONARY, _BATCH):
        if what == _DICTIONARY:
            data = _field(header, table, 1)
            table = data + struct.unpack_from("<I", header, data)[0]
        if _field(header, table, 3):
            raise Refused("it is compressed")
    else:
        raise Refused("it holds messages of an unknown kind")
    return int(struct.unpack_from("<q", header, length)[0]) if length else 0


def _field(data: bytes, table: int, number: int) -> int:
    """Where a FlatBuffers table has its field of this number; 0 if it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise Refused("a header is broken")
    size = struct.unpack_from("<H", data, vtable)[0]
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
    return table + offset if offset else 0
