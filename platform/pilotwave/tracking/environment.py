"""What a run was made with, as tags: Python, packages, platform, and the git revision of where it was started.

May import the standard library and pilotwave's version.
"""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pilotwave

PACKAGES = ("torch", "numpy", "rdkit", "tblite", "xtb", "diffusers", "ray", "mlflow", "scipy", "pydantic")
GIT_SECONDS = 5.0


def environment_tags(directory: Path | None = None) -> dict[str, str]:
    """Returns the tags of this process.

    Args:
        directory: Whose git revision is told; the working directory by default.
    """
    tags = {
        "mlflow.source.name": "pilotwave",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "pilotwave": pilotwave.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
    }
    for package in PACKAGES:
        try:
            tags[f"package.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return {**tags, **git_tags(directory or Path.cwd())}


def git_tags(directory: Path) -> dict[str, str]:
    """Returns the git revision of a directory and whether it was changed since; nothing outside a repository."""
    revision = _git(directory, "rev-parse", "HEAD")
    if not revision:
        return {}
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    tags = {"mlflow.source.git.commit": revision}
    return tags if changed is None else {**tags, "git.changed": "yes" if changed else "no"}


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


__all__ = ["environment_tags", "git_tags"]
