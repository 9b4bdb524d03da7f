"""Frames and series as Arrow streams.

pyarrow's own conversion keeps most of a frame; this keeps all of it or refuses: each column and index level travels as
a plain Arrow array, with a note of ours that says what it was. Runs on both sides of the bridge, like `codec.py`.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa

from .arrow import as_one, read_table
from .codec import JSON, Refused, pack, unpack

_MASKED = {f"{sign}{bits}" for sign in ("Int", "UInt") for bits in (8, 16, 32, 64)} | {"Float32", "Float64", "boolean"}
_NUMPY = re.compile(r"[<|=]([biuf][1248]|[Mm]8\[(s|ms|us|ns)\])")
_NAME = re.compile(r"[A-Za-z0-9_+\-/:. ]{1,64}")
_MAX_OBJECT_BYTES = 256 << 20
_MAX_SHOWN = 60
_MAX_TABLES = 100_000


def write(value: pd.DataFrame | pd.Series, file: BinaryIO) -> None:
    """Write a frame or a series.

    Raises:
        Refused: a column or an index cannot cross exactly; it is named.
    """
    series = isinstance(value, pd.Series)
    columns = [value] if isinstance(value, pd.Series) else [value.iloc[:, i] for i in range(value.shape[1])]
    labels = pd.Index([value.name]) if isinstance(value, pd.Series) else value.columns
    shelf = Shelf()
    notes = [_column(shelf, each.array, f"column {name!r}"[:80]) for name, each in zip(labels, columns, strict=True)]
    note: dict[str, JSON] = {
        "series": series,
        "columns": notes,
        "labels": _index(shelf, labels, "the column labels"),
        "index": _index(shelf, value.index, "the index"),
        "attrs": None,
    }
    with contextlib.suppress(Refused):  # plots and readers leave strange things there
        note["attrs"] = pack(dict(value.attrs), 0)
    shelf.write(note, file)


def read(path: str) -> pd.DataFrame | pd.Series:
    """Read what `write` wrote, into memory of its own. The file must not change meanwhile."""
    with pa.memory_map(path) as source:
        note, shelf = Shelf.read(source)
        labels = _read_index(shelf, note["labels"])
        index = _read_index(shelf, note["index"])
        if not isinstance(note["columns"], list):
            raise Refused("its notes are broken")
        arrays = [_read_column(shelf, each) for each in note["columns"]]
        attributes = unpack(note["attrs"])
    # The dtype is said again, or pandas would look for text among objects.
    columns = [pd.Series(array, index=index, dtype=array.dtype, copy=False) for array in arrays]
    made: pd.DataFrame | pd.Series
    if note["series"] is True:
        made = columns[0].rename(labels[0])
    else:
        made = pd.DataFrame(dict(enumerate(columns)), index=index, copy=False)
        made.columns = labels
    if isinstance(attributes, dict):
        made.attrs.update(attributes)
    return made


def describe(value: pd.DataFrame | pd.Series) -> str:
    """Type, shape, columns with dtypes, index; no value but the labels."""
    index = ", ".join(
        f"{_shown(name)} ({dtype})" if name is not None else str(dtype)
        for name, dtype in (
            zip(value.index.names, value.index.dtypes, strict=True)
            if isinstance(value.index, pd.MultiIndex)
            else [(value.index.name, value.index.dtype)]
        )
    )
    plain = isinstance(value.index, pd.RangeIndex) and value.index.name is None
    tail = "" if plain else f"; index: {type(value.index).__name__}, {index}"
    if isinstance(value, pd.Series):
        name = f" {_shown(value.name)}" if value.name is not None else ""
        return f"pandas Series{name}, {len(value):,} values, {value.dtype}{tail}"
    columns = [f"{_shown(label)} ({dtype})" for label, dtype in zip(value.columns, value.dtypes, strict=True)]
    more = f", and {len(columns) - _MAX_SHOWN} more" if len(columns) > _MAX_SHOWN else ""
    shape = f"{value.shape[0]:,} rows x {value.shape[1]} columns"
    return f"pandas DataFrame, {shape}: {', '.join(columns[:_MAX_SHOWN])}{more}{tail}"


def _shown(label: object) -> str:
    """A label may be a stranger's text: one short line."""
    return " ".join("".join(c for c in str(label) if c.isprintable() and c != "`").split())[:60]


# ---- the file -----------------------------------------------------------------------------------------------------


class Shelf:
    """Arrays of several lengths, each length a table; a place on the shelf is the table's and the column's number."""

    def __init__(self, tables: list[list[pa.Array]] | None = None) -> None:
        self._tables = tables or []

    def put(self, array: pa.Array) -> JSON:
        """Its place."""
        for number, table in enumerate(self._tables):
            if len(table[0]) == len(array):
                table.append(array)
                return [number, len(table) - 1]
        self._tables.append([array])
        return [len(self._tables) - 1, 0]

    def get(self, place: JSON) -> pa.Array:
        """What was put there."""
        if not isinstance(place, list):
            raise Refused("a place is broken")
        table, column = (each for each in place if isinstance(each, int) and each >= 0)
        return self._tables[table][column]

    def write(self, note: dict[str, JSON], file: BinaryIO) -> None:
        """Write all tables; the first has the note."""
        metadata = {"bridge": json.dumps({**note, "tables": len(self._tables)})}
        for arrays in self._tables or [[]]:
            schema = pa.schema([(str(i), array.type) for i, array in enumerate(arrays)], metadata=metadata)
            with pa.ipc.new_stream(file, schema) as stream:
                stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            metadata = {}

    @classmethod
    def read(cls, source: pa.NativeFile) -> tuple[dict[str, JSON], Shelf]:
        """The note, and the shelf."""
        metadata, first = read_table(source)
        note = json.loads(metadata[b"bridge"])
        if not isinstance(note, dict) or not isinstance(note["tables"], int) or note["tables"] > _MAX_TABLES:
            raise Refused("its notes are broken")
        return note, cls([first, *(read_table(source)[1] for _ in range(1, note["tables"]))])


# ---- index --------------------------------------------------------------------------------------------------------


def _index(shelf: Shelf, index: pd.Index, where: str) -> JSON:
    try:
        names: list[JSON] = [pack(name, 0) for name in index.names]
    except Refused as error:
        raise Refused(f"the name of {where} cannot cross: {error}") from None
    if type(index) is pd.RangeIndex:
        return {"range": [index.start, index.stop, index.step], "names": names}
    if isinstance(index, pd.MultiIndex):
        levels = [_column(shelf, level.array, where) for level in index.levels]
        return {"levels": levels, "codes": [shelf.put(pa.array(np.asarray(c))) for c in index.codes], "names": names}
    frequency = index.freqstr if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) else None
    return {"plain": _column(shelf, index.array, where), "freq": frequency, "names": names}


def _read_index(shelf: Shelf, note: JSON) -> pd.Index:
    if not isinstance(note, dict) or not isinstance(note["names"], list):
        raise Refused("the note of its index is broken")
    names = [unpack(name) for name in note["names"]]
    if isinstance(bounds := note.get("range"), list):
        start, stop, step = (each for each in bounds if isinstance(each, int))
        return pd.RangeIndex(start, stop, step, name=names[0])
    if isinstance(notes := note.get("levels"), list) and isinstance(places := note["codes"], list):
        levels = [_plain_index(shelf, each) for each in notes]
        return pd.MultiIndex(levels=levels, codes=[_numbers(shelf.get(each)) for each in places], names=names)
    index = _plain_index(shelf, note["plain"])
    index.name = names[0]
    frequency = note["freq"]
    if isinstance(frequency, str) and _NAME.fullmatch(frequency):
        index.freq = frequency  # pandas checks that the values have it
    return index


def _plain_index(shelf: Shelf, note: JSON) -> pd.Index:
    values = _read_column(shelf, note)
    return pd.Index(values, dtype=values.dtype, copy=False)


# ---- columns ------------------------------------------------------------------------------------------------------


def _column(shelf: Shelf, values: pd.api.extensions.ExtensionArray, where: str) -> JSON:
    """Put an array of pandas on the shelf as plain Arrow; the note makes it one of pandas again."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = _column(shelf, dtype.categories.array, where)
        codes = shelf.put(pa.array(np.asarray(values.codes)))
        return {"categories": categories, "at": codes, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.IntervalDtype):
        left, right = (_column(shelf, each.array, where) for each in (values.left, values.right))
        return {"left": left, "right": right, "closed": dtype.closed}
    note, array = _flat_column(values, where)
    return {**note, "at": shelf.put(array)}


def _flat_column(values: pd.api.extensions.ExtensionArray, where: str) -> tuple[dict[str, JSON], pa.Array]:
    dtype = values.dtype
    if type(values) is pd.arrays.NumpyExtensionArray or isinstance(dtype, np.dtype):
        return _numpy(values.to_numpy(), where)
    if isinstance(dtype, pd.DatetimeTZDtype):
        zone = str(dtype.tz)
        if not _NAME.fullmatch(zone) or _with_zone(dtype.unit, zone) != dtype:
            raise Refused(f"{where} has a time zone without a common name ({zone})")
        return {"zone": zone, "unit": dtype.unit}, pa.array(pd.DatetimeIndex(values).asi8)
    if isinstance(dtype, pd.PeriodDtype):
        return {"period": str(dtype)[7:-1]}, pa.array(pd.PeriodIndex(values).asi8)
    if isinstance(dtype, pd.StringDtype):
        plain = pa.array(values, type=pa.large_string())
        return {"string": dtype.storage, "nan": dtype.na_value is not pd.NA}, as_one(plain)
    if str(dtype) in _MASKED:
        return {"masked": str(dtype)}, as_one(pa.array(values))
    if isinstance(dtype, pd.ArrowDtype):
        return {"arrow": True}, as_one(pa.array(values))
    raise Refused(f"{where} has the dtype {dtype}, which cannot cross: convert it with .astype")


def _numpy(data: np.ndarray, where: str) -> tuple[dict[str, JSON], pa.Array]:
    name = data.dtype.str
    if data.dtype.kind == "O":
        return _objects(data, where)
    if not _NUMPY.fullmatch(name):
        raise Refused(f"{where} has the dtype {data.dtype}, which cannot cross: convert it with .astype")
    plain = data.view("int64") if data.dtype.kind in "mM" else data
    return {"numpy": name}, pa.array(plain, from_pandas=False)


def _objects(data: np.ndarray, where: str) -> tuple[dict[str, JSON], pa.Array]:
    """Python objects: text as such; dates, decimals and bytes as Arrow has them; else what JSON can say."""
    kinds = {type(value) for value in data}
    if kinds <= {str, type(None)}:
        return {"objects": "text"}, pa.array(data, pa.large_string(), from_pandas=False)
    missing = np.fromiter((isinstance(value, float) and math.isnan(value) for value in data), bool, len(data))
    if kinds == {str, float} and all(type(value) is str for value in data[~missing]):
        return {"objects": "text", "nan": True}, pa.array(data, pa.large_string(), mask=missing)
    if len(kinds - {type(None)}) == 1:
        array = pa.array(data, from_pandas=False) if (kinds - {type(None)}).pop().__name__ in _PLAIN else None
        if array is not None and array.to_pylist() == list(data):
            return {"objects": "arrow"}, array
    try:
        texts = [json.dumps(pack(value, 0)) for value in data]
    except (Refused, UnicodeEncodeError) as error:
        raise Refused(f"{where} holds objects that cannot cross: {error}") from None
    return {"objects": "json"}, pa.array(texts, pa.large_string())


_PLAIN = ("date", "Decimal", "bytes", "time")


def _with_zone(unit: str, zone: str) -> object:
    try:
        return pd.DatetimeTZDtype(unit, zone)
    except Exception:  # pandas raises what zoneinfo, pytz or its own parser do
        return None


def _read_column(shelf: Shelf, note: JSON) -> pd.api.extensions.ExtensionArray | np.ndarray:
    """The inverse of `_column`, in memory of its own where it can be written to."""
    if not isinstance(note, dict):
        raise Refused("the note of a column is broken")
    if "left" in note:
        left, right = (_plain_index(shelf, note[side]) for side in ("left", "right"))
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=str(note["closed"]))
    array = shelf.get(note["at"])
    if "categories" in note:
        kind = pd.CategoricalDtype(_plain_index(shelf, note["categories"]), ordered=note["ordered"] is True)
        return pd.Categorical.from_codes(_numbers(array), dtype=kind)
    if isinstance(name := note.get("numpy"), str) and _NUMPY.fullmatch(name):
        data = _numbers(array)
        data = data.view(name) if name[1] in "mM" else data
        if data.dtype != np.dtype(name):
            raise Refused("a column is not of the dtype that its note says")
        return data
    if isinstance(zone := note.get("zone"), str) and _NAME.fullmatch(zone):
        moments = _numbers(array).view(f"M8[{note['unit']}]")
        return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(zone).array
    if isinstance(frequency := note.get("period"), str) and _NAME.fullmatch(frequency):
        return pd.PeriodIndex.from_ordinals(_numbers(array), freq=frequency).array
    if isinstance(kind := note.get("objects"), str):
        return _read_objects(kind, array, nan=note.get("nan") is True)
    if (storage := note.get("string")) in ("python", "pyarrow"):
        dtype = pd.StringDtype(storage, na_value=np.nan) if note["nan"] is True else pd.StringDtype(storage)
    elif (name := note.get("masked")) in _MASKED:
        dtype = pd.api.types.pandas_dtype(name)
    elif note.get("arrow") is True:
        dtype = pd.ArrowDtype(array.type)
    else:
        raise Refused("the note of a column is unknown")
    return dtype.__from_arrow__(pa.chunked_array([array]))


def _numbers(array: pa.Array) -> np.ndarray:
    """Numbers without nulls, writable."""
    if array.null_count:
        raise Refused("a column has nulls where none may be")
    data: np.ndarray = array.to_numpy(zero_copy_only=False)
    return data if data.flags.writeable else data.copy()


def _read_objects(kind: str, array: pa.Array, *, nan: bool) -> np.ndarray:
    if array.nbytes > _MAX_OBJECT_BYTES:
        raise Refused(f"a column of objects has more than {_MAX_OBJECT_BYTES >> 20} MiB")
    values = array.to_pylist()
    if kind == "json":
        values = [unpack(json.loads(text)) for text in values]
    elif nan:
        values = [math.nan if value is None else value for value in values]
    data = np.empty(len(values), dtype=object)
    data[:] = values
    return data
