"""Runs pip in a sandbox of its own: finds out what is missing, and unpacks that into a folder.

The host reads this file and gives it to `python -P -` on stdin; the one argument is JSON. The last line of stdout is
JSON: what was added, or why not. Nothing of a wheel is run: wheels are unpacked, source distributions are refused.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

PIP = [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check", "--no-color"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(path: list[str]) -> dict[str, str]:
    """Names and versions of the distributions found on `path`."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=path):
        name, version = distribution.metadata["Name"], distribution.version
        if name and version and re.fullmatch(r"[A-Za-z0-9._-]+", name) and re.fullmatch(r"[\w.+!-]+", version):
            found.setdefault(canonical(name), version)
    return found


def pip(*arguments: str) -> str:
    """Run pip; returns why it failed, or nothing."""
    done = subprocess.run([*PIP, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return " ".join((errors or lines[-1:])[:3])[:600] or f"pip ended with status {done.returncode}"


def main() -> dict[str, object]:
    """Resolve with the environment as it is, then fetch what is not there yet."""
    request = json.loads(sys.argv[1])
    work = Path(request["work"])
    environment, layer = versions(sys.path), versions([request["layer"]])
    constraints = work / "constraints.txt"
    fixed = {**layer, **environment}
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in fixed.items()))
    wheels = ["install", "--quiet", "--only-binary", ":all:"]
    report = work / "report.json"
    resolve = ["--dry-run", "--report", str(report), "--constraint", str(constraints)]
    problem = pip(*wheels, *resolve, "--", *request["requirements"])
    if problem:
        return {"problem": problem}
    chosen = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    new = [f"{it['name']}=={it['version']}" for it in chosen if layer.get(canonical(it["name"])) != it["version"]]
    if new:
        problem = pip(*wheels, "--no-deps", "--no-compile", "--target", str(work / "target"), "--", *new)
    return {"problem": problem} if problem else {"added": new}


if __name__ == "__main__":
    print(json.dumps(main()))
