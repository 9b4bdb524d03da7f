"""Importing and loading do next to nothing: what is not needed yet is not imported yet."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("openai", "anthropic", "httpx2", "nbformat", "nbclient", "nbconvert", "jupyter_client", "zmq", "dotenv", "nh3")


def modules_after(code: str) -> set[str]:
    """Heavy modules that are loaded after `code` in a new process."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert modules_after("import sandbox_agent_magic, sandbox_agent_magic.types, sandbox_agent_magic.settings") == set()


def test_loading_the_extension_imports_nothing_heavy_and_starts_no_thread() -> None:
    shell = "from IPython.core.interactiveshell import InteractiveShell as S\nshell = S.instance()\n"
    load = (
        "import threading\nbefore = threading.active_count()\nshell.run_line_magic('load_ext', 'sandbox_agent_magic')\n"
    )
    assert modules_after(f"{shell}{load}assert threading.active_count() == before") <= modules_after(shell)


def test_help_of_the_command_line_imports_nothing_heavy() -> None:
    code = "from sandbox_agent_magic.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    print()"
    assert modules_after(code) == set()
