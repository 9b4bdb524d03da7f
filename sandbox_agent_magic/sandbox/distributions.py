"""What a package is called where it is installed from, and which names may be asked for at all."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable

from ..errors import UsageError

# Imports whose distribution has another name. A mapping library would bring a dozen dependencies for these rows; only
# well-known names stand here, since whatever a name maps to is fetched without a further question.
DISTRIBUTIONS = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "Levenshtein": "levenshtein",
    "astropy": "astropy",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "charset_normalizer": "charset-normalizer",
    "community": "python-louvain",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "google.protobuf": "protobuf",
    "graphviz": "graphviz",
    "igraph": "igraph",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kaleido": "kaleido",
    "lxml": "lxml",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "netCDF4": "netCDF4",
    "odf": "odfpy",
    "osgeo": "GDAL",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pymc": "pymc",
    "pywt": "PyWavelets",
    "rapidfuzz": "rapidfuzz",
    "ruamel": "ruamel.yaml",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "tables": "tables",
    "talib": "TA-Lib",
    "umap": "umap-learn",
    "usb": "pyusb",
    "wx": "wxPython",
    "xdg": "pyxdg",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}

# What well-known libraries import only when it is needed, so that the step's own code does not name it.
# fmt: off
OPTIONAL = frozenset({
    "bottleneck", "fsspec", "html5lib", "jinja2", "lxml", "matplotlib", "numba", "numexpr", "odf", "openpyxl",
    "pyarrow", "pymysql", "python_calamine", "pyxlsb", "scipy", "sqlalchemy", "statsmodels", "tables", "tabulate",
    "tqdm", "xarray", "xlrd", "xlsxwriter", "yaml", "zstandard",
})
# fmt: on

_VERSION = r"(==|!=|<=|>=|~=|<|>)\s*[A-Za-z0-9][A-Za-z0-9._+!*-]{0,40}"
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
    r"(\[[A-Za-z0-9._-]{1,40}(,[A-Za-z0-9._-]{1,40}){0,9}\])?"
    rf"(\s*{_VERSION}(\s*,\s*{_VERSION}){{0,5}})?",
    re.ASCII,
)
_NO_MODULE = re.compile(r"No module named '([A-Za-z_][\w.]{0,120})'")
_NO_OPTIONAL = re.compile(r"[Mm]issing optional dependency '([A-Za-z_]\w{0,60})'")


def requirements(names: Iterable[str]) -> list[str]:
    """Names with or without versions, as pip may get them.

    Raises:
        UsageError: one is something else, such as an option, a path or an address.
    """
    found = [part.strip() for name in names for part in _split(name) if part.strip()]
    for name in found:
        if not _REQUIREMENT.fullmatch(name):
            raise UsageError(
                f"{name[:80]!r} is not the name of a package.",
                why="Options, paths and addresses are not passed on to pip.",
                hint="Write a name with or without a version: humanize, humanize==4.9",
            )
    return list(dict.fromkeys(found))


def _split(text: str) -> list[str]:
    """At commas between names, not at those within a name's versions or extras."""
    return re.split(r",\s*(?=[A-Za-z0-9])(?![^\[]*\])", text)


def canonical(name: str) -> str:
    """A distribution's name as the index compares it; versions and extras are cut off."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[\s=!<>~]", name, maxsplit=1)[0]).lower()


def name_only(requirement: str) -> bool:
    """Whether it says no version and no extra."""
    return not set(requirement) & set("[=<>!~")


def distribution_of(module: str) -> str:
    """The distribution that brings the import `module`, such as `pillow` for `PIL`."""
    top = module.partition(".")[0]
    return DISTRIBUTIONS.get(module) or DISTRIBUTIONS.get(top) or top.replace("_", "-")


def missing_module(ename: str, evalue: str, code: str) -> str | None:
    """The module that an error says is missing, if it may be installed without asking.

    What code raises is its own choice, and each name that is looked up leaves the machine. So the name must stand in
    an import of the code itself, as it was before it ran, or in our own lists: data that the code reads cannot leave
    as the name of a package.

    Args:
        ename: the error's class.
        evalue: its text.
        code: what ran.
    """
    if ename == "ModuleNotFoundError":
        match = _NO_MODULE.search(evalue)
    elif ename == "ImportError":
        match = _NO_OPTIONAL.search(evalue)
    else:
        return None
    if match is None:
        return None
    top = match[1].partition(".")[0]
    if top in sys.stdlib_module_names or _is_here(top):
        return None
    return top if top in imports_of(code) or top in OPTIONAL or top in DISTRIBUTIONS else None


def imports_of(code: str) -> set[str]:
    """Top-level names of the modules that `code` imports; magics and other lines that are not Python are left out."""
    lines = ("pass" if line.lstrip()[:1] in ("%", "!") else line for line in code.splitlines())
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _is_here(top: str) -> bool:
    """Whether the environment, which the sandbox sees too, has it."""
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError, AttributeError):
        return False
