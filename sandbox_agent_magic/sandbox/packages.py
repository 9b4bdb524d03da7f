"""Packages that the code needs and the environment does not have: a folder that the sandbox sees read-only."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .. import scratch
from ..errors import ExecutorError
from ..outputs import mib
from . import pip_box, usage
from .canary import refusal
from .distributions import canonical, name_only, requirements
from .layers import keep
from .limits import GIB
from .plan import pipe
from .process import BUBBLEWRAP, launchers
from .trial import end_process, temp_folder

_TIMEOUT_S = 900.0
_LOOK_S = 0.5
_USERINFO = re.compile(r"//[^/@\s]*@")
_REPORT_BYTES = 1 << 20


class PackageLayer:
    """The packages of one workspace.

    Args:
        workspace: a folder that stays: so does its layer, in the reader's cache folder. None: it goes at `close`.
        uid: as root, the user that the sandbox runs as.
        tier: kind of the sandbox that pip runs in.
        limit_bytes: what all of them may take.
    """

    def __init__(
        self, workspace: Path | None, *, uid: int | None, tier: str = BUBBLEWRAP, limit_bytes: int = 4 * GIB
    ) -> None:
        self._uid = uid
        self._tier = tier
        self.limit_bytes = limit_bytes
        self._kept = None if workspace is None else keep(workspace)
        if self._kept is None:
            self.path, self._mark = scratch.make("sandbox-packages", folder=temp_folder(uid))
        else:
            self.path, self._mark = self._kept.path, self._kept.use()
        self.path.chmod(0o755)

    def names(self) -> dict[str, str]:
        """What was installed: distributions' names, as the index compares them, to versions."""
        found = importlib.metadata.distributions(path=[str(self.path)])
        return {canonical(one.metadata["Name"]): one.version for one in found if one.metadata["Name"]}

    def lacks(self, packages: Sequence[str]) -> list[str]:
        """Those of `packages` that are neither in this layer nor in the environment; one with a version may be.

        Raises:
            UsageError: one is not a name of a package.
        """
        here = self.names()
        return [
            name
            for name in requirements(packages)
            if not name_only(name) or not (canonical(name) in here or _is_installed(name))
        ]

    def install(self, packages: Sequence[str]) -> list[str]:
        """Fetch wheels, of what is missing, and of what that needs; code that runs can import them at once.

        The environment's packages stay as they are: what does not fit with them is refused.

        Args:
            packages: names, with or without versions.

        Returns:
            What was added, as `name==version`; empty if all was there.

        Raises:
            UsageError: one is not a name of a package.
            ExecutorError: pip failed, which changed nothing.
            SandboxUnavailable: pip's own sandbox could not be started.
        """
        wanted = self.lacks(packages)
        if not wanted:
            return []
        with scratch.temporary("sbx-pip", folder=temp_folder(self._uid)) as folder:
            folder.chmod(0o711)
            work = folder / "work"
            for path in (folder / "stage", work, work / "tmp", work / "target"):
                path.mkdir(mode=0o755)
                if self._uid is not None and path != folder / "stage":
                    os.chown(path, self._uid, self._uid)
            report = self._run(folder, wanted)
            problem, added = report.get("problem"), report.get("added")
            if isinstance(problem, str) and problem:
                raise _failed(wanted, _USERINFO.sub("//***@", problem))
            try:
                if added:
                    self._merge(work / "target")
            except OSError as error:
                problem = f"what it fetched cannot be put in place: {error.strerror}"
            if isinstance(problem, str) and problem:
                raise _failed(wanted, problem)
        return [str(one) for one in added] if isinstance(added, list) else []

    def close(self) -> None:
        """Remove a temporary layer, or one in which nothing is. Idempotent."""
        if self._mark < 0:
            return
        if self._kept is None:
            scratch.remove(self.path)
        else:
            self._kept.forget_if_empty(self._mark)
        os.close(self._mark)
        self._mark = -1

    # ---- parts --------------------------------------------------------------------------------------------------

    def _run(self, folder: Path, wanted: list[str]) -> dict[str, object]:
        """Let pip work in its sandbox; returns what it reports."""
        found, notes = launchers(self._uid, self._tier)
        launcher = next(found, None)
        if launcher is None:
            raise refusal([], notes, tier=self._tier)
        box = pip_box.PipBox(folder / "work", self.path, self._uid, folder / "stage")
        with contextlib.ExitStack() as closing:
            start = pip_box.start(launcher, pip_box.configuration(), box, wanted, closing)
            process = subprocess.Popen(
                start.arguments,
                stdin=pipe(closing, Path(__file__).with_name("pip_inside.py").read_bytes()),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=start.descriptors,
                cwd="/",
                env=start.environment,
                start_new_session=True,
            )
        try:
            out, err, problem = self._follow(process, box)
        finally:
            end_process(process, supervised=launcher.supervised)
        if problem:
            raise _failed(wanted, problem)
        try:
            report = json.loads(out.decode().splitlines()[-1]) if len(out) < _REPORT_BYTES else None
        except (ValueError, IndexError):
            report = None
        if not isinstance(report, dict):
            said = err.decode(errors="replace").strip().splitlines()[-1:]
            raise _failed(wanted, said[0][:300] if said else f"it ended with status {process.returncode}")
        return report

    def _follow(self, process: subprocess.Popen[bytes], box: pip_box.PipBox) -> tuple[bytes, bytes, str]:
        """What the process wrote, until it has ended, or works for too long, or fetches too much: then why."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                out, err = process.communicate(timeout=_LOOK_S)
                done = True
            except subprocess.TimeoutExpired:
                out = err = b""
                done = False
            # What is there already counts; what pip has only downloaded so far counts too, and is unpacked next.
            used = usage.disk([self.path, box.work], ())
            if used > self.limit_bytes:
                limit = f"the packages of one folder may take {mib(self.limit_bytes)} (AGENT_LIMIT_PACKAGES)"
                return out, err, f"stopped at {mib(used)}: {limit}"
            if done:
                return out, err, ""
            if time.monotonic() > deadline:
                return out, err, f"it took longer than {_TIMEOUT_S:g} seconds"

    def _merge(self, target: Path) -> None:
        """Move what pip unpacked into the layer: folders are joined, files replaced, anything else left out."""
        for current, folders, files in os.walk(target):
            place = self.path / Path(current).relative_to(target)
            place.mkdir(mode=0o755, exist_ok=True)
            folders[:] = [name for name in folders if not (Path(current) / name).is_symlink()]
            # A distribution counts as installed once its .dist-info is there: that comes last.
            folders.sort(key=lambda name: name.endswith(".dist-info"))
            for name in files:
                source = Path(current) / name
                mode = source.lstat().st_mode
                if stat.S_ISREG(mode):
                    if self._uid is not None:
                        os.chown(source, 0, 0)
                    source.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
                    shutil.move(source, place / name)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(canonical(name))
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _failed(wanted: list[str], why: str) -> ExecutorError:
    return ExecutorError(
        f"Could not install {', '.join(wanted)} in the sandbox.",
        executor="sandbox",
        why=f"pip: {' '.join(why.split())}",
        hint="Only wheels that fit your environment are taken. Check the name and the network, or install it into "
        "your own environment, which the sandbox sees.",
    )
