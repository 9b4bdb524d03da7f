"""The model server's process: llama.cpp's server on loopback, ended by idleness. Imports nothing of the package.

Run by `local_server`, which sends one JSON object on stdin. Which server lives is told by the lock alone: it falls with
the process, however that ends. The state file says where the server listens, and with which key.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time

LOST_THE_RACE = 75
"""Exit status: another process serves this model already."""

CANNOT_LOAD = 3
"""Exit status: the model's file, or xllamacpp itself, is no good; the reason is on stderr."""

FIRST_REQUEST_S = 30.0
"""Who had the server started may first have to import an SDK."""

MAX_LOG_BYTES = 2**20
CONTEXT_TOKENS = 8192
PROMPT_CACHE_MIB = 512
"""For prompts of other notebooks, to be picked up again without reading them anew."""


def main() -> int:
    """Serve until idle for long enough, or until the state file is gone."""
    order = json.load(sys.stdin)
    os.umask(0o077)
    if not _lock(order["lock"]):
        return LOST_THE_RACE
    _forget(order["state"])
    os.ftruncate(2, 0)
    try:
        server = _serve(order)
    except Exception as exc:  # any: it is foreign code, and the parent wants its reason
        print(f"cannot load: {exc}", file=sys.stderr, flush=True)
        return CANNOT_LOAD
    port = int(server.listening_address.rsplit(":", 1)[1])  # type: ignore[attr-defined]
    _write(order["state"], {"pid": os.getpid(), "port": port, "key": order["key"]})
    _wait(server, order)
    _leave(0)  # before the server is torn down: port and lock fall together
    return 0


def _serve(order: dict[str, str]) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order["model"]
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.cpuparams.n_threads = int(order["threads"])
    # Threads that spin while they wait for each other starve on a busy machine: on two cores with two other programs
    # running, 60 tokens took over 30 s so, and take 8 s with sleeping threads. On a quiet machine both take 2 s.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [order["key"]]
    params.endpoint_metrics = True  # what `_wait` reads
    params.endpoint_slots = False
    params.ui = False
    params.verbosity = 1  # errors: a request's text must not lie in a log
    return xllamacpp.Server(params)


def _wait(server: object, order: dict[str, str]) -> None:
    """Return when nothing was asked for `idle_s` seconds. A request under way counts, however long it takes."""
    idle_s = float(order["idle_s"])
    bound_s = max(idle_s, FIRST_REQUEST_S)
    counted, since = "", time.monotonic()
    while _is_mine(order) and time.monotonic() - since < bound_s:
        time.sleep(min(1.0, idle_s / 5))
        metrics: str = server.handle_metrics()  # type: ignore[attr-defined]
        busy = re.search(r"^llamacpp:requests_(?:processing|deferred) [1-9]", metrics, re.MULTILINE)
        totals = " ".join(re.findall(r"^llamacpp:(?:n_decode|tokens_predicted)_total (\S+)", metrics, re.MULTILINE))
        if busy or totals != counted:
            if busy or counted:
                bound_s = idle_s
            counted, since = totals, time.monotonic()
        if os.fstat(2).st_size > MAX_LOG_BYTES:
            os.ftruncate(2, 0)
    if _is_mine(order):
        _forget(order["state"])


def _is_mine(order: dict[str, str]) -> bool:
    try:
        with open(order["state"], encoding="utf-8") as file:
            return bool(json.load(file)["key"] == order["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _forget(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _write(path: str, state: dict[str, str | int]) -> None:
    part = f"{path}.{os.getpid()}"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(state, file)
    os.replace(part, path)


def _lock(path: str) -> bool:
    """Take the lock and keep it until the process ends. A parent's look at it may hold it for a moment."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(10):
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.05)
    return False


def _leave(status: int) -> None:
    """End the process at once: the server's threads may be in the middle of something."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
