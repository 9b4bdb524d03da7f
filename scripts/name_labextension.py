"""Give the front-end module the name that its content asks for: browsers keep a file for as long as its name stays.

    python3 scripts/name_labextension.py

Renames `static/remoteEntry.*.js`, and writes its name and the package's version into `package.json`. Tests check both.
"""

import hashlib
import json
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "sandbox_agent_magic"
FOLDER = PACKAGE / "labextension"


def name_of(content):
    """The name for a module of that content."""
    return f"remoteEntry.{hashlib.sha256(content).hexdigest()[:20]}.js"


def main():
    """Rename the module, if need be."""
    (module,) = (FOLDER / "static").glob("remoteEntry*.js")
    named = module.with_name(name_of(module.read_bytes()))
    module.rename(named)
    described = FOLDER / "package.json"
    package = json.loads(described.read_text(encoding="utf-8"))
    package["jupyterlab"]["_build"]["load"] = f"static/{named.name}"
    version = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    package["version"] = version[1]
    described.write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")
    print(named.name)


if __name__ == "__main__":
    main()
