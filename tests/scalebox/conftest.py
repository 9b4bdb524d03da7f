"""Tests that need Scalebox's SDK, and so an environment without E2B's: both bring a module `connectrpc`."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("scalebox") else ["test_*.py"]
