"""What a notebook says of the run that wrote it, so that the next run knows what is finished."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self, TypeAlias, get_args

from ..settings import Secret, Settings
from ..types import JSON

METADATA = "sandbox_agent"
"""Of a notebook: its record is the entry `run` in there."""

RunEnd: TypeAlias = Literal["completed", "failed", "interrupted"]
_MATTER = (
    *("agent_provider", "model", "temperature", "system_message"),
    *("openai_api_key", "openai_base_url", "azure_openai_api_key", "azure_api_base", "azure_deployment_name"),
    *("anthropic_api_key", "anthropic_base_url", "agent_local_model", "agent_local_seed"),
    *("agent_executor", "custom_packages", "agent_auto_install"),
    *("agent_container_image", "agent_remote_kernel", "scalebox_template", "e2b_template"),
)
"""Settings that change what a notebook that completed would hold. Limits do not: it has kept them."""
_MOST_BYTES = 512 << 20
"""A file above this is not looked into."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a notebook's agent cells used."""

    tokens: int = 0
    """Read and written."""
    cost_usd: float | None = None
    """US dollars, of those runs whose price is known."""
    unpriced: int = 0
    """Runs whose price is unknown."""

    def __add__(self, other: Spent) -> Spent:
        known = [each.cost_usd for each in (self, other) if each.cost_usd is not None]
        return Spent(self.tokens + other.tokens, math.fsum(known) if known else None, self.unpriced + other.unpriced)

    @classmethod
    def read(cls, value: object) -> Self:
        """From JSON that anybody may have written."""
        found = value if isinstance(value, dict) else {}
        return cls(_count(found.get("tokens")), _number(found.get("cost_usd")), _count(found.get("unpriced")))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a notebook came to be."""

    status: RunEnd
    source: str
    """The notebook that was executed, as seen from the folder of the result."""
    source_sha256: str
    """Of its content, as `content_digest` has it."""
    settings_sha256: str
    """Of the settings that matter, as `settings_digest` has it."""
    finished: str
    """When, in ISO 8601 with the zone."""
    duration_s: float
    spent: Spent

    def write(self, metadata: dict[str, JSON]) -> None:
        """Enter the record into a notebook's metadata."""
        ours = metadata.get(METADATA)
        metadata[METADATA] = {**(ours if isinstance(ours, dict) else {}), "run": asdict(self)}

    @property
    def day(self) -> str:
        """When it was finished, where the reader is, such as "2026-11-24 13:40"."""
        try:
            return datetime.fromisoformat(self.finished).astimezone().strftime("%Y-%m-%d %H:%M")
        except (ValueError, OverflowError):
            return "an unknown day"


def read_record(notebook: Path) -> RunRecord | None:
    """The record that a notebook file holds; None where there is none, or nothing that can be read."""
    content = _load(notebook)
    metadata = content.get("metadata")
    ours = metadata.get(METADATA) if isinstance(metadata, dict) else None
    found = ours.get("run") if isinstance(ours, dict) else None
    if not isinstance(found, dict) or found.get("status") not in get_args(RunEnd):
        return None
    texts = {name: found.get(name) for name in ("source", "source_sha256", "settings_sha256", "finished")}
    seconds = _number(found.get("duration_s"))
    if seconds is None or not all(isinstance(text, str) for text in texts.values()):
        return None
    told = {name: str(text) for name, text in texts.items()}
    return RunRecord(status=found["status"], duration_s=seconds, spent=Spent.read(found.get("spent")), **told)


def content_digest(notebook: Path) -> str:
    """SHA-256 of what would be executed: cells' sources and tags, not outputs, so that looking at it changes nothing.

    Of a file that is no notebook of nbformat 4, of its bytes; empty if it cannot be read.
    """
    cells = _load(notebook).get("cells")
    if isinstance(cells, list):
        return _sha256([_told(cell) for cell in cells])
    try:
        return hashlib.sha256(notebook.read_bytes()).hexdigest()
    except OSError:
        return ""


def settings_digest(settings: Settings) -> str:
    """SHA-256 of the settings that matter to what a notebook will hold. Of a key, only whether there is one."""
    values = {name: getattr(settings, name) for name in _MATTER}
    return _sha256({name: bool(value) if isinstance(value, Secret) else value for name, value in values.items()})


def source_of(result: Path, record: RunRecord) -> Path:
    """The notebook that `result` was made from."""
    return Path(os.path.normpath(result.absolute().parent / record.source))


def seen_from(folder: Path, source: Path) -> str:
    """`source` as a record of a result in `folder` names it."""
    try:
        return Path(os.path.relpath(source.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive of Windows
        return source.name


def _load(notebook: Path) -> Mapping[str, object]:
    """The file's JSON object; an empty one where there is none. nbformat's own reading costs a second at its import."""
    try:
        if not notebook.is_file() or notebook.stat().st_size > _MOST_BYTES:
            return {}
        content = json.loads(notebook.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _told(cell: object) -> object:
    if not isinstance(cell, dict):
        return None
    source, metadata = cell.get("source"), cell.get("metadata")
    return [
        cell.get("cell_type"),
        "".join(map(str, source)) if isinstance(source, list) else source,
        metadata.get("tags") if isinstance(metadata, dict) else None,
        cell.get("attachments"),
    ]


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _number(value: object) -> float | None:
    """A finite number from 0 on."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e15:
        return None
    return float(value)
