"""Create a virtual environment from a list of pinned, hash-checked packages, saying what goes on.

    python3 scripts/make_venv.py FOLDER REQUIREMENTS

Needs nothing but Python's standard library; runs (far enough to say what is wrong) on any Python 3.
"""

import os
import re
import shutil
import subprocess
import sys
import time

OLDEST = (3, 11)
LARGE = re.compile(r"^\s*Downloading (\S+?)(?:\.metadata)? \(([\d.]+ [MG]B)\)")


def say(text):
    """Print a line at once."""
    print(text, flush=True)


def check_python():
    """Stop with three lines that help when this Python cannot do it."""
    if sys.version_info < OLDEST:
        sys.exit(
            "This Python is too old.\n"
            f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 or newer is needed.\n"
            "Name another one: make PYTHON=python3.12 ..."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as exc:
        sys.exit(
            "This Python cannot make virtual environments.\n"
            f"{sys.executable} has no module {exc.name!r}.\n"
            "Install it (Debian, Ubuntu: apt-get install python3-venv), or name another Python: "
            "make PYTHON=/path/to/python3 ..."
        )


def install(python, requirements):
    """Run pip, passing on only what a waiting reader wants to know; all of it when pip fails."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--require-hashes"]
    command += ["--only-binary", ":all:", "--no-deps", "--no-compile", "--progress-bar", "off", "-r", requirements]
    log = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    ) as pip:
        for line in pip.stdout:
            log.append(line)
            large = LARGE.match(line)
            if large:
                say(f"    {os.path.basename(large.group(1))} ({large.group(2)})")
            elif line.startswith("Installing collected packages:"):
                say("    unpacking {} packages".format(line.count(",") + 1))
    if pip.returncode != 0:
        sys.stderr.writelines(log)
        sys.exit(f"pip could not install the packages of {requirements}; its output stands above.")


def packages_folder(python):
    """Where the environment's packages lie."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main():
    """Make the folder anew and fill it."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, requirements = sys.argv[1:]
    check_python()
    begun = time.monotonic()
    say(f"==> {folder}: a new virtual environment, Python {sys.version.split()[0]}")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    say(f"==> {folder}: packages of {requirements}, each checked against its hash")
    python = os.path.join(folder, "Scripts" if os.name == "nt" else "bin", "python")
    install(python, requirements)
    # pip compiles on one core. Compiled they must be: a sandbox cannot write here, and would do it again at each start.
    # Some packages ship files that are no valid Python, so the exit status says nothing.
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", packages_folder(python)], stdin=subprocess.DEVNULL)
    say(f"    done in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
