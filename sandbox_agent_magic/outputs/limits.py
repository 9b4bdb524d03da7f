"""How much one cell may send out."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Bounds of one execution's outputs; each names the setting that moves it."""

    text_bytes: int = MIB
    """Text that is kept, half from the head and half from the tail (AGENT_LIMIT_TEXT)."""
    picture_bytes: int = 10 * MIB
    """One picture, or other rich output (AGENT_LIMIT_PICTURE)."""
    message_bytes: int = 16 * MIB
    """One message of the kernel (AGENT_LIMIT_MESSAGE)."""
    messages: int = 50_000
    """Messages of one cell (AGENT_LIMIT_MESSAGES)."""


def mib(size: int) -> str:
    """`size` bytes as one reads them in a message."""
    return f"{size / MIB:,.0f} MiB" if size >= MIB else f"{size / 1024:,.0f} KiB"
