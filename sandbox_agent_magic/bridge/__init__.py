"""Variables over the border between the reader's kernel and a sandbox, in both directions.

A value becomes a file (`codec`), the file goes through the workspace, and a small fixed script (`inside`) makes a
variable of it on the other side. Whatever comes out of a sandbox is hostile: sizes are checked, no pickle is read, and
what does not look exactly as expected is refused.
"""

from __future__ import annotations

import builtins
import json
import keyword
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .. import scratch
from ..errors import ExecutorError, MissingDependencyError, UsageError, WorkspaceError
from ..types import ExecutionResult, Executor
from . import codec

TIMEOUT_S = 120.0
"""For one variable, seconds."""
_MODULES = ("codec", "arrow", "frames")
_KINDS = ("json", "array", "frame")


@dataclass(frozen=True, slots=True)
class SentVariable:
    """A variable that was put into a sandbox."""

    name: str
    description: str
    """Type and shape in one line; of a frame also columns and dtypes. No values."""


def check_name(name: str) -> str:
    """`name`, if it can be a variable's.

    Raises:
        UsageError: it cannot.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__") or len(name) > 200:
        raise UsageError(f"{name[:80]!r} cannot be a variable's name.", hint="Use letters, digits and _ only.")
    return name


def send(executor: Executor, name: str, value: object) -> SentVariable:
    """Make `value` the variable `name` of the code in `executor`.

    Raises:
        UsageError: it is a name that cannot be, or a value that cannot cross; the hint lists what works.
        MissingDependencyError: a frame needs pyarrow, here and there.
        ExecutorError: the other side did not take it.
    """
    check_name(name)
    file = f".bridge-{secrets.token_hex(8)}"
    with scratch.temporary("sandbox-bridge") as folder:
        path = folder / "value"
        try:
            kind = codec.write(value, str(path))
        except ImportError as error:
            raise _missing(name, error) from None
        except (codec.Refused, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refused(f"{name} cannot be sent to the sandbox", error) from None
        executor.put_file(path, file)
    result = _run(executor, action="put", name=name, file=file, kind=kind)
    _raise_failure(result, executor, f"{name} did not arrive in the sandbox.", name)
    return SentVariable(name, codec.describe(value))


def take(executor: Executor, name: str) -> object:
    """The value of the variable `name` of the code in `executor`, as a value of this process.

    Raises:
        UsageError: there is no such variable, or its value cannot cross.
        MissingDependencyError: a frame needs pyarrow, here and there.
        ExecutorError: the other side sent something else than a value.
    """
    check_name(name)
    file = f".bridge-{secrets.token_hex(8)}"
    result = _run(executor, action="get", name=name, file=file)
    _raise_failure(result, executor, f"{name} cannot be taken from the sandbox.", name)
    sizes = {info.name: info.size for info in executor.list_files()}
    kind = next((kind for kind in _KINDS if f"{file}.{kind}" in sizes), None)
    if kind is None:
        raise ExecutorError(f"{name} cannot be taken from the sandbox.", executor=executor.name, why="No file came.")
    limit = codec.MAX_JSON_BYTES if kind == "json" else codec.MAX_BYTES
    reason = f"its file is too large ({sizes[f'{file}.{kind}']:,} bytes)" if sizes[f"{file}.{kind}"] > limit else ""
    try:
        with scratch.temporary("sandbox-bridge") as folder:
            path = folder / "value"
            if not reason:
                executor.get_file(f"{file}.{kind}", path)  # a copy: what is read cannot change meanwhile
                return codec.read(kind, str(path))
    except codec.Refused as error:
        reason = str(error)
    except WorkspaceError as error:
        reason = error.why
    except ImportError as error:
        raise _missing(name, error) from None
    finally:
        _run(executor, action="remove", name=name, file=f"{file}.{kind}")
    raise ExecutorError(f"{name} cannot be taken from the sandbox.", executor=executor.name, why=f"Reason: {reason}.")


def variables_text(sent: Sequence[SentVariable]) -> str:
    """The announcement for the model; empty where there are none."""
    lines = [f"- {each.name}: {each.description}" for each in sent]
    return "Variables that exist already:\n" + "\n".join(lines) if lines else ""


def values_of(names: Sequence[str], variables: Mapping[str, object]) -> dict[str, object]:
    """The reader's variables of these names; commas separate names too.

    Raises:
        UsageError: there is none of a name.
    """
    found: dict[str, object] = {}
    for name in (part for text in names for part in text.split(",") if part):
        check_name(name)
        if name not in variables:
            import difflib

            near = difflib.get_close_matches(name, [key for key in variables if not key.startswith("_")], n=1)
            hint = f"Did you mean {near[0]}?" if near else "Run the cell that makes it first."
            raise UsageError(f"There is no variable {name} in your kernel.", hint=hint)
        found[name] = variables[name]
    return found


# ---- the other side -----------------------------------------------------------------------------------------------


def _run(executor: Executor, **request: str) -> ExecutionResult:
    """Run the fixed script there. All that differs from call to call is one JSON text."""
    code = (
        f"__import__('builtins').exec({_program()!r}, {{'request': {json.dumps(request)!r}, 'namespace': globals()}})"
    )
    return executor.execute(code, timeout_s=TIMEOUT_S, on_output=lambda _: None)


@cache
def _program() -> str:
    folder = Path(__file__).parent
    sources = {name: (folder / f"{name}.py").read_text("utf-8") for name in _MODULES}
    inside = (folder / "inside.py").read_text("utf-8")
    return f"{inside}\n\nimport json\nmain(json.loads(request), {sources!r}, namespace)\n"


def _raise_failure(result: ExecutionResult, executor: Executor, message: str, name: str) -> None:
    """Nothing if the script worked; else its error, as one of ours."""
    if result.status == "ok":
        return
    if result.status == "interrupted":
        raise KeyboardInterrupt
    ename = result.error.ename if result.error is not None else result.status
    evalue = " ".join((result.error.evalue if result.error is not None else "").split())[:300]
    if ename == "NameError":
        raise UsageError(f"There is no variable {name} in the sandbox.", hint=evalue.capitalize())
    if ename == "Refused":
        raise _refused(message.rstrip("."), ValueError(evalue))
    if ename in ("ModuleNotFoundError", "ImportError") and "pyarrow" in evalue:
        raise _missing(name, ImportError(evalue))
    raise ExecutorError(message, executor=executor.name, why=f"{ename}: {evalue}")


def _refused(what: str, error: builtins.Exception) -> UsageError:
    return UsageError(f"{what}: {error}.", hint=f"What crosses: {codec.WORKS}.")


def _missing(name: str, error: ImportError) -> MissingDependencyError:
    return MissingDependencyError(f"{name} cannot cross: frames need pyarrow.", extra="data", why=f"{error}.")
