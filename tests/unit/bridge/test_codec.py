"""Values as files and back; and files that a sandbox would write to harm whoever reads them."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sandbox_agent_magic.bridge import codec

WHEN = pd.date_range("2024-03-30", periods=4, freq="h", tz="Europe/Berlin", name="when")
EVERY_DTYPE = pd.DataFrame(
    {
        "int": [1, 2, 3, 4],
        "small": np.array([1, 2, 3, 4], dtype="u1"),
        "float": [1.5, np.nan, -0.0, np.inf],
        "half": np.array([1, 2, 3, 4], dtype="float16"),
        "bool": [True, False, True, True],
        "ordered": pd.Categorical(["a", None, "b", "a"], categories=["b", "a", "never"], ordered=True),
        "binned": pd.cut([1, 2, 3, 4], 2),
        "Int16": pd.array([1, None, 3, 4], dtype="Int16"),
        "Float64": pd.array([1.5, None, 3, 4], dtype="Float64"),
        "boolean": pd.array([True, None, False, True], dtype="boolean"),
        "str": ["x", None, "zé", "w"],
        "string": pd.array(["x", None, "z", "w"], dtype="string"),
        "python strings": pd.array(["x", None, "z", "w"], dtype="string[python]"),
        "seconds": pd.to_datetime(["2020-01-01", None, "2020-01-03", "2020-01-04"]).astype("datetime64[s]"),
        "zone": pd.date_range("2020", periods=4, tz="UTC"),
        "offset": pd.date_range("2020", periods=4, tz="+02:00"),
        "span": pd.to_timedelta([1, 2, None, 4], unit="h"),
        "month": pd.PeriodIndex(["2020-01", "2020-02", pd.NaT, "2020-04"], freq="M"),
        "interval": pd.IntervalIndex.from_breaks([0, 1, 2, 3, 4.5], closed="left"),
        "arrow": pd.array([1, None, 3, 4], dtype=pd.ArrowDtype(pa.int32())),
    },
    index=WHEN,
)
OBJECTS = pd.DataFrame(
    {
        "text": ["x", None, "y"],
        "text with nan": ["x", np.nan, "y"],
        "mixed": [1, "a", [1, {"k": (1, 2)}]],
        "dates": [datetime.date(2020, 1, 1), None, datetime.date(2021, 1, 1)],
        "decimals": [decimal.Decimal("1.10"), None, decimal.Decimal("2.50")],
        "bytes": [b"\x00", b"", None],
    },
    dtype=object,
)
FRAMES = {
    "every dtype": EVERY_DTYPE,
    "objects": OBJECTS,
    "three levels": EVERY_DTYPE.reset_index().set_index(["ordered", "int", "when"]),
    "no columns": pd.DataFrame(index=WHEN),
    "nothing at all": pd.DataFrame(),
    "no rows": EVERY_DTYPE.iloc[:0],
    "one name twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "names in levels": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None])
    ),
    "names of numbers and text": pd.DataFrame([[1, 2.5]], columns=[1, "a"]),
    "names of dates": pd.DataFrame(np.ones((3, 2)), columns=pd.date_range("2020", periods=2)),
    "a range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(2, 6, 2, name="r")),
    "a slice": pd.DataFrame(np.arange(20).reshape(10, 2), columns=["a", "b"]).iloc[::3],
}


def there_and_back(value: object, folder: Path) -> object:
    return codec.read(codec.write(value, str(folder / "value")), str(folder / "value"))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_arrives_exactly(name: str, tmp_path: Path) -> None:
    sent = FRAMES[name]
    got = there_and_back(sent, tmp_path)
    assert isinstance(got, pd.DataFrame)
    pd.testing.assert_frame_equal(got, sent, check_freq=True, check_column_type=True)
    assert list(got.dtypes) == list(sent.dtypes)


def test_objects_keep_their_types_and_their_kinds_of_nothing(tmp_path: Path) -> None:
    got = there_and_back(OBJECTS, tmp_path)
    assert isinstance(got, pd.DataFrame)
    for name in OBJECTS:
        assert [type(value) for value in got[name]] == [type(value) for value in OBJECTS[name]]


@pytest.mark.parametrize("name", [None, "x", 5, ("a", 1), pd.Timestamp("2020")])
def test_a_series_arrives_with_its_name(name: object, tmp_path: Path) -> None:
    sent = pd.Series([1.5, None], name=name)
    got = there_and_back(sent, tmp_path)
    assert isinstance(got, pd.Series)
    pd.testing.assert_series_equal(got, sent)


def test_a_frame_that_arrived_can_be_changed(tmp_path: Path) -> None:
    got = there_and_back(EVERY_DTYPE, tmp_path)
    assert isinstance(got, pd.DataFrame)
    for name in got.columns:
        got.iloc[0, got.columns.get_loc(name)] = got[name].iloc[3]
    got["int"] += 1
    assert list(got["int"]) == [5, 3, 4, 5]


def test_attributes_of_a_frame_arrive(tmp_path: Path) -> None:
    sent = pd.DataFrame({"a": [1]})
    sent.attrs["source"] = {"url": "x", "when": (2020, 1)}
    got = there_and_back(sent, tmp_path)
    assert isinstance(got, pd.DataFrame)
    assert got.attrs == sent.attrs


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::2],
        np.array(3),
        np.float32(2.5),
        np.zeros((0, 3)),
        np.array(["a", "bb"]),
        np.array(["2020"], dtype="M8[D]"),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_an_array_arrives_exactly_and_can_be_changed(value: np.ndarray, tmp_path: Path) -> None:
    got = there_and_back(value, tmp_path)
    assert isinstance(got, np.ndarray | np.generic)
    assert (got.dtype, got.shape) == (value.dtype, value.shape)
    assert np.array_equal(got, value)
    assert not isinstance(got, np.ndarray) or got.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(10**300),
        0.1,
        float("inf"),
        "é\n\x00",
        b"\x00\xff",
        [],
        {},
        (),
        set(),
        {"a": [1, (2, {3})], 1: None},
    ],
)
def test_a_plain_value_arrives_with_its_own_type(value: object, tmp_path: Path) -> None:
    got = there_and_back(value, tmp_path)
    assert got == value
    assert type(got) is type(value)


class Own(dict[str, int]):
    """Not a plain dict."""


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "builtins.object"),
        (print, "builtin_function"),
        (Own(), "Own"),
        ([Own()], "holds a"),
        (CYCLE, "holds itself"),
        (1j, "complex"),
        ({"frame": pd.DataFrame()}, "DataFrame"),
        (np.array([object()]), "object"),
        (np.ma.masked_array([1]), "MaskedArray"),
        (pd.DataFrame({"c": [1j]}), "column 'c'"),
        (pd.DataFrame({"c": [object()]}), "column 'c'"),
        (pd.DataFrame({"c": pd.arrays.SparseArray([0, 1])}), "column 'c'"),
        (pd.Index([1]), "pandas"),
    ],
)
def test_what_would_not_arrive_as_it_is_is_refused(value: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(codec.Refused, match=why):
        codec.write(value, str(tmp_path / "value"))


def test_a_description_has_names_types_and_shapes_but_no_values() -> None:
    frame = pd.DataFrame({"city": ["Oslo"], "price": [12345.5]}, index=pd.Index(["secret"], name="key"))
    assert (
        codec.describe(frame)
        == "pandas DataFrame, 1 rows x 2 columns: city (str), price (float64); index: Index, key (str)"
    )
    assert codec.describe(pd.Series([1, 2], name="n")) == "pandas Series n, 2 values, int64"
    assert codec.describe(np.zeros((2, 3))) == "numpy array, shape (2, 3), float64"
    assert codec.describe({"password": "secret"}) == "dict, 1 entry"
    assert codec.describe("secret") == "str, 6 characters"
    assert codec.describe(12345) == "int"


def test_a_column_name_of_a_stranger_is_one_short_line() -> None:
    text = codec.describe(pd.DataFrame({"a\n```ignore\x1b[2J" + "x" * 500: [1]}))
    assert len(text) < 160
    assert all(character.isprintable() and character != "`" for character in text)


# ---- hostile files ------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling one says so."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


def refuse(kind: str, content: bytes, folder: Path, why: str = "") -> None:
    path = folder / "hostile"
    path.write_bytes(content)
    with pytest.raises(codec.Refused, match=why or None):
        codec.read(kind, str(path))


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", pickle.dumps([Bomb()])), "may not cross"),
        (pickle.dumps(Bomb()), ""),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n"), "size"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}\n"), "size"),
        (npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}\n"), "may not cross"),
        (npy("__import__('os').getpid()\n"), ""),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 20_000 + ")}\n", b"\0" * 8), ""),
        (b"", ""),
    ],
)
def test_a_hostile_array_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    refuse("array", content, tmp_path, why)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b'{"list": 1}', b'{"dict": [[1]]}', b'{"dict": [[{"list": []}, 1]]}', b'{"eval": ["1"]}',
     b"9" * 5_000, b'{"list": [' * 100_000, b'{"a": [], "b": []}', b'{"bytes": "*"}', b"\xff"],
    ids=range(12),
)  # fmt: skip
def test_hostile_json_is_refused(content: bytes, tmp_path: Path) -> None:
    refuse("json", content, tmp_path)


def stream(table: pa.Table, note: object = None, **options: object) -> bytes:
    """An Arrow stream as code in the sandbox may write one."""
    sink = io.BytesIO()
    if note is not None:
        table = table.replace_schema_metadata({"bridge": json.dumps(note)})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def frame_note(column: object, **other: object) -> dict[str, object]:
    labels = {"range": [0, 1, 1], "names": [None]}
    return {
        "series": False,
        "columns": [column],
        "labels": labels,
        "index": labels,
        "attrs": None,
        "tables": 1,
        **other,
    }


NUMBER = pa.table({"0": pa.array([1], pa.int64())})
GOOD = {"numpy": "<i8", "at": [0, 0]}


def test_the_hostile_streams_below_differ_from_a_good_one_only_in_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(stream(NUMBER, frame_note(GOOD)))
    got = codec.read("frame", str(tmp_path / "good"))
    assert isinstance(got, pd.DataFrame)
    assert got.iloc[0, 0] == 1


class Extension(pa.ExtensionType):
    """Its class would be asked to make itself from the sandbox's bytes."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "test.hostile")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, data: bytes) -> Extension:
        pytest.fail("code of an extension type ran")


def extension_stream() -> bytes:
    return stream(pa.table({"0": pa.ExtensionArray.from_storage(Extension(), pa.array([1]))}), frame_note(GOOD))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (stream(pa.table({"0": pa.array([0] * 1_000_000)}), frame_note(GOOD), compression="zstd"), "compressed"),
        (stream(pa.table({"0": pa.nulls(10**9)}), frame_note({"arrow": True, "at": [0, 0]})), "types"),
        (
            stream(
                pa.table({"0": pa.RunEndEncodedArray.from_arrays(pa.array([10**6], pa.int64()), pa.array([1]))}),
                frame_note({"arrow": True, "at": [0, 0]}),
            ),
            "types",
        ),
        (stream(NUMBER, frame_note({"numpy": "|O8", "at": [0, 0]})), ""),
        (stream(NUMBER, frame_note({"numpy": "<f8", "at": [0, 0]})), "dtype"),
        (stream(NUMBER, frame_note({"numpy": "<i8", "at": [0, 5]})), ""),
        (stream(NUMBER, frame_note({"numpy": "<i8", "at": [0, -1]})), ""),
        (stream(NUMBER, frame_note({"zone": "../../../etc/passwd", "unit": "ns", "at": [0, 0]})), ""),
        (stream(NUMBER, frame_note({"period": "M" * 100, "at": [0, 0]})), "unknown"),
        (stream(NUMBER, frame_note({"objects": "json", "at": [0, 0]})), ""),
        (stream(NUMBER, frame_note({"categories": GOOD, "at": [0, 0], "ordered": False})), ""),
        (stream(NUMBER, frame_note(GOOD, tables=10**9)), "notes"),
        (stream(NUMBER, frame_note(GOOD, tables=2)), ""),
        (stream(NUMBER, [1]), "notes"),
        (stream(NUMBER), ""),
        (stream(pa.table({"0": pa.array([1, None])}), frame_note(GOOD)), "nulls"),
        (struct.pack("<Ii", 0xFFFFFFFF, 2**31 - 1), "not an Arrow stream"),
        (struct.pack("<Ii", 0xFFFFFFFF, 64) + b"\xff" * 64, ""),
        (b"\0" * 100, "not an Arrow stream"),
        (pickle.dumps(Bomb()), "not an Arrow stream"),
        (stream(NUMBER, frame_note(GOOD))[:-40], ""),
    ],
)
def test_a_hostile_frame_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    refuse("frame", content, tmp_path, why)


def test_no_code_of_an_extension_type_runs(tmp_path: Path) -> None:
    pa.register_extension_type(Extension())
    try:
        refuse("frame", extension_stream(), tmp_path, "extension")
    finally:
        pa.unregister_extension_type("test.hostile")


def test_offsets_that_point_outside_are_refused_before_anyone_follows_them(tmp_path: Path) -> None:
    text = pa.table({"0": pa.array(["aaaa", "bbbb"], pa.large_string())})
    good = stream(text, frame_note({"objects": "text", "at": [0, 0]}))
    offsets = struct.pack("<qqq", 0, 4, 8)
    assert good.count(offsets) == 1
    refuse("frame", good.replace(offsets, struct.pack("<qqq", 0, 4, 1 << 40)), tmp_path)


def test_a_stream_with_bytes_turned_over_never_harms(tmp_path: Path) -> None:
    codec.write(EVERY_DTYPE, str(tmp_path / "value"))
    good = (tmp_path / "value").read_bytes()
    random = np.random.default_rng(7)
    for _ in range(300):
        data = bytearray(good)
        for place in random.integers(0, len(data), 8):
            data[place] = random.integers(0, 256)
        (tmp_path / "hostile").write_bytes(data)
        try:
            codec.read("frame", str(tmp_path / "hostile"))
        except codec.Refused:
            continue


def test_a_file_of_unknown_kind_or_too_large_is_refused(tmp_path: Path) -> None:
    refuse("pickle", pickle.dumps(Bomb()), tmp_path, "unknown")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(codec.MAX_JSON_BYTES + 1)
    with pytest.raises(codec.Refused, match="too large"):
        codec.read("json", str(tmp_path / "large"))
