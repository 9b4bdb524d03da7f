"""A value as a file and back: the same code on both sides of the bridge.

The host reads this file and runs it in the sandbox too, where the package is not visible: so it imports the standard
library, and numpy, pandas and pyarrow where a value needs them. What it reads may be hostile. So there is no pickle,
Arrow carries plain types only (our own notes say what becomes of them), and each size is checked before it is used.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

WORKS = (
    "pandas DataFrame and Series, numpy arrays and scalars without objects, and None, bool, int, float, str, bytes, "
    "list, tuple, set and dict of these"
)
MAX_JSON_BYTES = 64 << 20
MAX_HEADER_BYTES = 16 << 20
MAX_BYTES = 4 << 30
_MAX_DEPTH = 100


class Refused(Exception):
    """A value cannot cross; the text says why, in one line."""


def write(value: object, path: str) -> str:
    """Write `value` to the new file `path`; returns its kind, which `read` needs.

    Raises:
        Refused: it cannot cross.
        ImportError: pyarrow, which a frame needs, is not here.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        module = type(value).__module__.partition(".")[0]
        if module == "pandas" and _is_pandas(value):
            from . import frames

            frames.write(value, file)
            return "frame"
        if module == "numpy":
            _write_array(value, file)
            return "array"
        text = json.dumps(pack(value, 0)).encode()
        if len(text) > MAX_JSON_BYTES:
            raise Refused(f"it is {len(text):,} bytes as JSON, more than {MAX_JSON_BYTES:,}; use an array or a frame")
        file.write(text)
    return "json"


def read(kind: str, path: str) -> object:
    """The value in the file `path`, in memory of its own.

    Raises:
        Refused: the file is not what `kind` says, or holds what may not cross.
        ImportError: pyarrow is not here.
    """
    size = os.stat(path).st_size
    if size > (MAX_JSON_BYTES if kind == "json" else MAX_BYTES):
        raise Refused(f"its file is too large ({size:,} bytes)")
    readers: dict[str, Callable[[], object]] = {
        "json": lambda: _read_json(path),
        "array": lambda: _read_array(path, size),
        "frame": lambda: _read_frame(path),
    }
    if kind not in readers:
        raise Refused("its kind is unknown")
    try:
        return readers[kind]()
    except (Refused, ImportError, MemoryError):
        raise
    except Exception as error:  # every library has its own; whatever is wrong, the file is not what it should be
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    raise Refused(f"its file cannot be read ({reason})")


def describe(value: object) -> str:
    """Type and shape in one line, for the model: of a frame also columns and dtypes; never a value."""
    module = type(value).__module__.partition(".")[0]
    if module == "pandas" and _is_pandas(value):
        from . import frames

        return frames.describe(value)
    name = type(value).__name__
    if module == "numpy":
        shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", "")
        return f"numpy array, shape {shape}, {dtype}" if shape else f"numpy {dtype}"
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return f"{name}, {len(value):,} {'entry' if len(value) == 1 else 'entries'}"
    if isinstance(value, (str, bytes)):
        return f"{name}, {len(value):,} {'characters' if isinstance(value, str) else 'bytes'}"
    return name


def _is_pandas(value: object) -> bool:
    import pandas

    return type(value) in (pandas.DataFrame, pandas.Series)


def _read_frame(path: str) -> object:
    from . import frames

    return frames.read(path)


# ---- JSON, with the containers that JSON has not ------------------------------------------------------------------


def pack(value: object, depth: int) -> JSON:
    """`value` as JSON: a container is an object with one key, its kind."""
    if depth > _MAX_DEPTH:
        raise Refused(f"it is nested deeper than {_MAX_DEPTH} levels, or holds itself")
    kind = type(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        if kind in (type(None), bool, int, float, str):
            if kind is str:
                value.encode()  # type: ignore[union-attr]  # half a surrogate pair cannot be written
            return value
        if kind.__module__ == "numpy":  # float64 is a float and str_ a str: they arrive as those
            return pack(value.item(), depth)  # type: ignore[union-attr]
    elif isinstance(value, (list, tuple, set, frozenset)) and kind in (list, tuple, set, frozenset):
        return {kind.__name__: [pack(each, depth + 1) for each in value]}
    elif isinstance(value, dict) and kind is dict:
        return {"dict": [[pack(key, depth + 1), pack(each, depth + 1)] for key, each in value.items()]}
    elif isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    elif kind.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "shape", None) == ():
        return pack(value.item(), depth + 1)
    raise Refused(f"{'it holds' if depth else 'it is'} a {kind.__module__}.{kind.__qualname__}")


def unpack(value: JSON) -> object:
    """The inverse of `pack`."""
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise Refused("a list stands where none may be")
        return value
    ((kind, inner),) = value.items()
    if kind == "bytes" and isinstance(inner, str):
        return base64.b64decode(inner, validate=True)
    if not isinstance(inner, list):
        raise Refused("a container is broken")
    if kind == "dict":
        pairs: dict[object, object] = {}
        for pair in inner:
            if not isinstance(pair, list):
                raise Refused("a dict is broken")
            key, each = pair
            pairs[unpack(key)] = unpack(each)
        return pairs
    makers: dict[str, Callable[[list[object]], object]] = {
        "list": list,
        "tuple": tuple,
        "set": set,
        "frozenset": frozenset,
    }
    return makers[kind]([unpack(each) for each in inner])


def _read_json(path: str) -> object:
    with open(path, "rb") as file:
        return unpack(json.loads(file.read(MAX_JSON_BYTES + 1)))


# ---- numpy --------------------------------------------------------------------------------------------------------


def _write_array(value: object, file: BinaryIO) -> None:
    import numpy as np

    if not (type(value) is np.ndarray or isinstance(value, np.generic)):
        raise Refused(f"it is a numpy.{type(value).__name__}, not a plain array: convert it with np.asarray")
    if value.dtype.hasobject:
        raise Refused("its dtype is object: give it another with .astype, or send a list")
    np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)


def _read_array(path: str, size: int) -> object:
    import numpy as np

    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](file, max_header_size=10_000)
        if dtype.hasobject or dtype.itemsize == 0:
            raise Refused(f"its dtype may not cross ({dtype})")
        count = 1
        for length in shape:
            count *= length
        if any(length < 0 for length in shape) or count * dtype.itemsize != size - file.tell():
            raise Refused("its file has not the size that its header says")
        data = bytearray(count * dtype.itemsize)
        file.readinto(data)
    flat = np.frombuffer(data, dtype=dtype)
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return array if shape else array[()]
