"""Tests that need E2B's SDK, and so an environment without Scalebox's: both bring a module `connectrpc`."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("e2b_code_interpreter") else ["test_*.py"]
