"""The far end of the bridge: runs in the sandbox, with what to do as JSON.

The host reads this file and the bridge's other modules, and sends them as data; the package is not visible in there.
Names come in as names: nothing of a request is ever run as code.
"""

from __future__ import annotations

import difflib
import os
import sys
import types
from collections.abc import MutableMapping

PACKAGE = "sandbox_bridge"


def main(request: dict[str, str], sources: dict[str, str], namespace: MutableMapping[str, object]) -> None:
    """Take a variable from its file, write one to a file, or remove that file again."""
    name, path = request["name"], request["file"]
    if request["action"] == "remove":
        os.unlink(path)
        return
    package = types.ModuleType(PACKAGE)
    package.__path__ = []
    sys.modules[PACKAGE] = package
    codec = load("codec", sources)
    if request["action"] == "put":
        try:
            if request["kind"] == "frame":
                load_frames(sources)
            namespace[name] = codec.read(request["kind"], path)
        finally:
            os.unlink(path)
        return
    if name not in namespace:
        near = difflib.get_close_matches(name, [key for key in namespace if not key.startswith("_")], n=1)
        raise NameError(f"did you mean {near[0]}?" if near else "")
    value = namespace[name]
    if type(value).__module__.partition(".")[0] == "pandas":
        load_frames(sources)
    try:
        kind = codec.write(value, path)
        os.rename(path, f"{path}.{kind}")
    except BaseException:
        if os.path.exists(path):
            os.unlink(path)
        raise


def load(name: str, sources: dict[str, str]) -> types.ModuleType:
    """Make a module of the bridge from its source."""
    module = types.ModuleType(f"{PACKAGE}.{name}")
    module.__package__ = PACKAGE
    sys.modules[module.__name__] = module
    setattr(sys.modules[PACKAGE], name, module)
    exec(compile(sources[name], f"<{name} of the bridge>", "exec"), module.__dict__)  # noqa: S102 - our own modules
    return module


def load_frames(sources: dict[str, str]) -> None:
    """The modules that need pandas and pyarrow."""
    load("arrow", sources)
    load("frames", sources)
