"""What is installed is what was written: the wheel's content, the pins, the example that travels along."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sandbox_agent_magic

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "sandbox_agent_magic"
INSTALLED = Path(sandbox_agent_magic.__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = {Path("demo/demo.ipynb"), Path("demo/seattle-weather.csv")}
"""Comes from `examples/`, not from the package's folder."""
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==([^\s;]+)((?: ;[^\\]*)?)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.MULTILINE,
)


def is_editable() -> bool:
    direct_url = importlib.metadata.distribution("sandbox-agent-magic").read_text("direct_url.json") or "{}"
    return bool(json.loads(direct_url).get("dir_info", {}).get("editable", False))


wheel_only = pytest.mark.skipif(is_editable(), reason="this is an editable install; `make test` installs the wheel")


def files_below(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return {canonicalize_name(match[1]): match[2] for match in PIN.finditer(text)}


@wheel_only
def test_the_tests_meet_the_installed_wheel_and_not_the_source_tree() -> None:
    assert INSTALLED.is_relative_to(sysconfig.get_path("purelib"))
    assert str(ROOT) not in sys.path


@wheel_only
def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else() -> None:
    assert files_below(INSTALLED) == files_below(SOURCE) | SHIPPED


@wheel_only
def test_the_demo_travels_in_the_wheel_unchanged() -> None:
    for path in SHIPPED:
        assert (INSTALLED / path).read_bytes() == (ROOT / "examples" / path.name).read_bytes()


def test_the_package_says_that_it_is_typed() -> None:
    assert (INSTALLED / "py.typed").is_file()


def test_the_command_is_installed_beside_the_interpreter() -> None:
    assert (Path(sysconfig.get_path("scripts")) / "sandbox-agent").is_file()


def test_importing_the_package_imports_no_sdk_and_starts_nothing() -> None:
    heavy = {"openai", "anthropic", "nbformat", "nbclient", "nbconvert", "jupyter_client", "zmq", "dotenv", "IPython"}
    code = (
        "import sys, threading, sandbox_agent_magic\n"
        f"print(sorted({heavy!r} & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[]", "1"]


@pytest.mark.parametrize("name", ["constraints.txt", "tests/requirements-litellm.txt", "tests/requirements-lab41.txt"])
def test_every_pin_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    rest = PIN.sub("", text)
    assert pins(name)
    assert [line for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")] == []
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash)", text, re.MULTILINE)


def test_the_pins_satisfy_what_the_package_asks_for() -> None:
    pinned = pins("constraints.txt")
    extras = PYPROJECT["optional-dependencies"]
    wanted = [Requirement(text) for text in PYPROJECT["dependencies"] + extras["local"] + extras["dev"]]
    unmet = [str(want) for want in wanted if not want.specifier.contains(pinned.get(canonicalize_name(want.name), "0"))]
    assert unmet == []


def test_the_demo_is_a_valid_notebook_without_outputs() -> None:
    notebook = nbformat.read(ROOT / "examples" / "demo.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum(cell.source.startswith("%%agent") for cell in code) >= 2


def test_the_demo_asks_about_at_least_a_thousand_rows_of_real_data() -> None:
    rows = (ROOT / "examples" / "seattle-weather.csv").read_text().splitlines()
    assert rows[0] == "date,precipitation,temp_max,temp_min,wind,weather"
    assert len(rows) - 1 == 1461


def test_the_front_end_module_is_named_after_its_content_and_has_the_packages_version() -> None:
    (module,) = (SOURCE / "labextension" / "static").iterdir()
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    described = json.loads((SOURCE / "labextension" / "package.json").read_text())
    assert module.name == f"remoteEntry.{digest[:20]}.js", "run `make labextension`"
    assert described["jupyterlab"]["_build"]["load"] == f"static/{module.name}"
    assert described["version"] == sandbox_agent_magic.__version__


def test_the_front_end_module_lies_where_jupyterlab_looks_for_it() -> None:
    placed = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "sandbox-agent-magic"
    assert files_below(placed) == files_below(SOURCE / "labextension")
    for file in files_below(placed):
        assert (placed / file).read_bytes() == (SOURCE / "labextension" / file).read_bytes()


def test_an_editable_install_has_the_front_end_module_too(tmp_path: Path) -> None:
    build = "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, timeout=60, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("data/share/jupyter/labextensions/sandbox-agent-magic/package.json") for name in names)
    assert any(name.endswith(".pth") for name in names)


def test_jupyterlab_lists_the_front_end_module_as_enabled() -> None:
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    listed = re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)
    assert re.search(rf"sandbox-agent-magic v{sandbox_agent_magic.__version__} enabled OK", listed), listed


def test_no_list_of_packages_names_a_registry() -> None:
    locked = (ROOT / "scripts" / "labextension" / "package-lock.json").read_text()
    assert "://" not in locked
    assert '"integrity"' in locked
