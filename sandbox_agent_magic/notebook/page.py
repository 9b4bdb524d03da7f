"""A channel to the notebook's page beside the outputs: a comm that both sides know by name.

Nothing is sent to open it, so a front end without our module sees no message that it would complain about. A page that
connects asks the kernel for its comms; where this one is among them, it says so, and is offered what the kernel keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .offers import Offers, payload

if TYPE_CHECKING:
    from comm.base_comm import BaseComm

CHANNEL = "sandbox_agent"
"""Name of the comm's target, and its id: there is one for each kernel."""


class Page:
    """The page, or pages, that show this kernel's notebook.

    Args:
        offers: what to offer to a page that connects.
    """

    def __init__(self, offers: Offers) -> None:
        self._offers = offers
        self._comm: BaseComm | None = None

    def began(self, run_id: str, anchor: str | None) -> None:
        """An agent cell has begun to run; the page removes the cells of its earlier run."""
        if anchor is not None:
            self._open().send(payload(run_id, anchor, []))

    def close(self) -> None:
        """Be found no longer."""
        from comm import get_comm_manager

        if self._comm is not None:
            get_comm_manager().unregister_comm(self._comm)
            self._comm = None

    def _open(self) -> BaseComm:
        from comm import create_comm, get_comm_manager

        if self._comm is None:
            self._comm = create_comm(target_name=CHANNEL, comm_id=CHANNEL, primary=False)
            # No page was told to open it, so its end must not be announced: pages complain of a comm they do not know.
            self._comm._closed = True
            self._comm.on_msg(self._on_message)
            get_comm_manager().register_comm(self._comm)
        return self._comm

    def _on_message(self, message: dict[str, object]) -> None:
        content = message.get("content")
        data = content.get("data") if isinstance(content, dict) else None
        if isinstance(data, dict) and data.get("op") == "attach" and self._comm is not None:
            for run in self._offers.runs():
                self._comm.send(payload(run.run_id, run.anchor, run.cells))
