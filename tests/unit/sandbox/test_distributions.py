"""Which names reach pip."""

from __future__ import annotations

import pytest

from sandbox_agent_magic.errors import UsageError
from sandbox_agent_magic.sandbox.distributions import (
    canonical,
    distribution_of,
    imports_of,
    missing_module,
    requirements,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("humanize", ["humanize"]),
        ("humanize, cowsay", ["humanize", "cowsay"]),
        ("a,b , c", ["a", "b", "c"]),
        ("polars[pandas,numpy]>=1.0,<2", ["polars[pandas,numpy]>=1.0,<2"]),
        ("ruamel.yaml==0.18.*", ["ruamel.yaml==0.18.*"]),
        ("humanize humanize", None),
        ("", []),
    ],
)
def test_names_with_or_without_versions_pass(text: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(UsageError):
            requirements([text])
    else:
        assert requirements([text]) == found


@pytest.mark.parametrize(
    "text",
    [
        "--index-url=https://evil.example/simple",
        "-r/etc/passwd",
        "-e.",
        "./here",
        "/tmp/x.whl",
        "x.whl/../y",
        "https://evil.example/x.whl",
        "x @ https://evil.example/x.whl",
        "git+https://evil.example/x",
        "x; os_name == 'posix'",
        "x --pre",
        "x\n--index-url=https://evil.example",
        "x==1 --hash=sha256:0",
        "n\u0443mpy",
        "x$(id)",
        "x" * 300,
        "..",
        "~/x",
    ],
)
def test_options_paths_addresses_and_the_like_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not the name of a package"):
        requirements([text])


def test_well_known_imports_lead_to_their_distributions() -> None:
    wanted = {
        "cv2": "opencv-python-headless",
        "sklearn.linear_model": "scikit-learn",
        "PIL": "pillow",
        "bs4": "beautifulsoup4",
        "yaml": "PyYAML",
        "humanize": "humanize",
        "my_module": "my-module",
    }
    assert {name: distribution_of(name) for name in wanted} == wanted


def test_names_are_compared_as_the_index_does() -> None:
    assert canonical("Ruamel_Yaml[x]>=1") == "ruamel-yaml"


def test_imports_are_found_beside_magics() -> None:
    code = "%matplotlib inline\nimport a.b as c, d\ndef f():\n    from e.f import g\n    !ls\nfrom . import h"
    assert imports_of(code) == {"a", "d", "e"}
    assert imports_of("def broken(") == set()


def missing(evalue: str, code: str, ename: str = "ModuleNotFoundError") -> str | None:
    return missing_module(ename, evalue, code)


def test_a_module_that_the_code_imports_may_be_installed() -> None:
    assert missing("No module named 'not_here_zz'", "import not_here_zz") == "not_here_zz"
    assert missing("No module named 'not_here_zz.sub'", "from not_here_zz.sub import x") == "not_here_zz"


def test_a_module_that_a_library_wants_may_be_installed_if_it_is_well_known() -> None:
    text = "Missing optional dependency 'python_calamine'.  Use pip or conda to install it."
    assert missing(text, "pd.read_excel('x.xlsx')", "ImportError") == "python_calamine"


@pytest.mark.parametrize(
    ("evalue", "code"),
    [
        (
            "No module named 'the_password_is_hunter2'",
            'raise ModuleNotFoundError("No module named \'" + secret + "\'")',
        ),
        ("No module named 'json'", "import json"),
        ("No module named 'numpy.no_such_part'", "import numpy.no_such_part"),
        ("No module named '--index-url=x'", "import x"),
        ("something else", "import something"),
    ],
)
def test_nothing_else_is_asked_for(evalue: str, code: str) -> None:
    assert missing(evalue, code) is None
    assert missing(evalue, code, "ValueError") is None
