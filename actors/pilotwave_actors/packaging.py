"""The user's plug-in code on its way to the workers: which files travel, how large they are, what they are called.

The image or environment of the cluster has pilotwave installed; only the campaign and plug-ins travel, as
``py_modules`` of Ray's runtime environment. May import the core.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import InputError

LARGEST_BYTES = 100 * 2**20
"""Ray refuses an upload over 100 MiB."""
LEFT_AT_HOME = ("__pycache__", ".git", ".venv", ".ruff_cache", ".mypy_cache", ".pytest_cache")
"""Folders of a plug-in that never travel."""


@dataclass(frozen=True)
class Plugins:
    """Python files and packages that are importable on every worker.

    Attributes:
        modules: Each a ``.py`` file or the folder of a package; imported there by its name.
    """

    modules: tuple[Path, ...] = ()

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Plugins:
        """Takes files, packages, and folders of files and packages.

        Args:
            paths: A ``.py`` file; a folder with an ``__init__.py``, which is a package; or any other folder, whose
                files and packages are each importable by their own names.

        Raises:
            InputError: There is none, it holds no Python, two have one name, or they are too large to travel.
        """
        modules: dict[str, Path] = {}
        for path in paths:
            for module in _modules_of(path.expanduser().resolve()):
                other = modules.setdefault(module.stem, module)
                if other != module:
                    raise InputError(
                        f"plug-ins {other} and {module} would have one name, {module.stem!r}; rename one of them"
                    )
        found = cls(tuple(modules.values()))
        found._check_size()
        return found

    def with_function_of(self, config: CampaignConfig) -> Plugins:
        """Returns these and the file of a ``python`` oracle, which would not be there on another machine."""
        path = _function_file(config)
        if path is None or not path.is_file() or self.name_of(path) is not None:
            return self
        return Plugins.of([*self.modules, path])

    @property
    def names(self) -> list[str]:
        """What is imported on a worker."""
        return [module.stem for module in self.modules]

    def runtime_env(self) -> dict[str, Any]:
        """Returns Ray's runtime environment that brings them."""
        if not self.modules:
            return {}
        return {"py_modules": [str(module) for module in self.modules], "excludes": [*LEFT_AT_HOME, "*.pyc"]}

    def copy_to(self, folder: Path) -> None:
        """Copies what travels into a folder, from which all of it can be imported."""
        for module in self.modules:
            if module.is_dir():
                leave = shutil.ignore_patterns(*LEFT_AT_HOME, "*.pyc")
                shutil.copytree(module, folder / module.name, ignore=leave)
            else:
                shutil.copy2(module, folder / module.name)

    def name_of(self, path: Path) -> str | None:
        """Returns by which dotted name a file is imported on a worker, or None if it is of no plug-in."""
        for module in self.modules:
            if path == module:
                return module.stem
            if module.is_dir() and module in path.parents:
                return ".".join(path.relative_to(module.parent).with_suffix("").parts)
        return None

    def rewritten(self, config: CampaignConfig) -> CampaignConfig:
        """Names the function of a ``python`` oracle by its module instead of a path that is only here."""
        path = _function_file(config)
        name = None if path is None else self.name_of(path)
        if name is None:
            return config
        function: str = config.oracle.function  # type: ignore[attr-defined]
        oracle = config.oracle.model_copy(update={"function": f"{name}:{function.rpartition(':')[2]}"})
        return config.model_copy(update={"oracle": oracle})

    def _check_size(self) -> None:
        files = [file for module in self.modules for file in _travelling(module)]
        total = sum(file.stat().st_size for file in files)
        if total > LARGEST_BYTES:
            largest = max(files, key=lambda file: file.stat().st_size)
            raise InputError(
                f"the plug-ins have {total / 2**20:.0f} MiB, and at most {LARGEST_BYTES // 2**20} MiB can be "
                f"sent to a cluster (the largest file is {largest}); put large data on storage that it sees"
            )


def _modules_of(path: Path) -> Sequence[Path]:
    if not path.exists():
        raise InputError(f"plug-in {path}: no such file or folder")
    if path.is_file():
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise InputError(
                f"plug-in {path}: expected a Python file with a name that can be imported, or a folder"
            )
        return [path]
    if (path / "__init__.py").is_file():
        return [path]
    found = [
        item
        for item in sorted(path.iterdir())
        if item.stem.isidentifier()
        and item.name not in LEFT_AT_HOME
        and (item.suffix == ".py" if item.is_file() else any(item.glob("*.py")))
    ]
    if not found:
        raise InputError(f"plug-in {path}: the folder holds no Python file and no package")
    return found


def _travelling(module: Path) -> list[Path]:
    if module.is_file():
        return [module]
    return [
        file
        for file in module.rglob("*")
        if file.is_file() and not any(part in LEFT_AT_HOME for part in file.relative_to(module).parts)
    ]


def _function_file(config: CampaignConfig) -> Path | None:
    function = getattr(config.oracle, "function", None)
    if not isinstance(function, str):
        return None
    place = function.rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


__all__ = ["LARGEST_BYTES", "Plugins"]
