"""A model from the official hub, over HTTPS, with resume."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import ModelStoreError
from .catalogue import ModelInfo
from .fetch import CHUNK, ProgressHook, need_disk, sha256_of, sync, unfinished_file, wrong_bytes, wrong_size

HUB = "https://huggingface.co"
SILENCE_S = 30.0
ATTEMPTS = 5
"""Connections that may break one after another without a byte between them."""

PAUSE_S = 1.0
"""After the first break; twice as long after each further one."""


def download(info: ModelInfo, partial: Path, progress: ProgressHook) -> None:
    """Fetch the model's file to the unfinished file and check it.

    Raises:
        ModelStoreError: there is no official file, the hub cannot be reached or refuses, or the bytes are wrong.
    """
    if info.hub_repository is None:
        raise ModelStoreError(f"{info.name} has no file on the hub.", hint="Use --from index.")
    base = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB
    if not base.startswith(("https://", "http://")):
        raise ModelStoreError("HF_ENDPOINT is not an address.", why="It must begin with https:// or http://.")
    url = f"{base}/{info.hub_repository}/resolve/main/{info.file_name}"
    piece = partial / "hub.part"
    need_disk(info, info.size - _size(piece))
    breaks = 0
    while (before := _size(piece)) < info.size:
        problem = _continue(url, piece, info, progress)
        breaks = breaks + 1 if _size(piece) == before else 0
        if breaks >= ATTEMPTS:
            raise ModelStoreError(
                f"{info.name} could not be fetched from the hub.",
                why=f"{_shown(url)}: {problem}",
                hint="Run it again to go on from here, or use --from index.",
            )
        if problem and breaks:
            time.sleep(PAUSE_S * 2 ** (breaks - 1))
    found = sha256_of(piece)
    if found != info.sha256:
        piece.unlink()
        raise wrong_bytes(info, _shown(url), found)
    os.replace(piece, unfinished_file(info))


def _continue(url: str, piece: Path, info: ModelInfo, progress: ProgressHook) -> str:
    """One connection: append what comes. Returns what broke it, or an empty text."""
    start = _size(piece)
    request = urllib.request.Request(url, headers={"User-Agent": "sandbox-agent-magic"})  # noqa: S310
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=SILENCE_S) as reply:  # noqa: S310
            if start and not (reply.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
                start = 0  # the server does not resume
            if reply.length is not None and start + reply.length != info.size:  # a page, or another file
                raise wrong_size(info, _shown(url), start + reply.length)
            with piece.open("ab" if start else "wb") as out:
                try:
                    while (chunk := reply.read1(CHUNK)) and start < info.size:
                        start += out.write(chunk[: info.size - start])
                        progress(f"{info.name} from the hub", start, info.size)
                finally:
                    sync(out)
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code in (401, 403, 404, 410):
                raise ModelStoreError(
                    f"The hub has no file for {info.name}.",
                    why=f"{_shown(url)}: HTTP {exc.code} {exc.reason}.",
                    hint="Check HF_ENDPOINT, or use --from index.",
                ) from None
            return f"HTTP {exc.code} {exc.reason}"
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as exc:
        return f"{getattr(exc, 'reason', '') or exc or type(exc).__name__}"
    return "" if _size(piece) >= info.size else "the connection was cut"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shown(url: str) -> str:
    """`url` without a password that HF_ENDPOINT may hold."""
    return re.sub(r"://[^/@]*@", "://", url)
