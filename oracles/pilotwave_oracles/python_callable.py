"""Your own Python function as the oracle (kind ``python``), named in the campaign file.

May import pilotwave; the function's module is imported when the oracle is built.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from pilotwave.config.components import OracleConfig, path_in_campaign
from pilotwave.errors import InputError
from pilotwave.execution.callable_oracle import ALL_MEDIA, CallableOracle
from pilotwave.protocols import Oracle
from pilotwave_oracles.known_value import KnownValue

Media = Literal["array", "image", "molecule"]


class PythonOracleConfig(OracleConfig):
    """Asks a function of yours: ``f(sample) -> float`` or ``pilotwave.types.Answer``.

    A relative path in ``function`` is resolved when the configuration is read: against the campaign file's
    folder, which the loader passes as the validation context ``{"base_dir": Path}``, else against the current
    directory. The stored path is absolute, so that it means the same in another process.
    """

    media: ClassVar[frozenset[str]] = ALL_MEDIA
    named_by: ClassVar[str] = "function"
    summary: ClassVar[str] = "Your own Python function: module:name or path/to/file.py:name."

    kind: Literal["python"] = "python"
    function: str = Field(
        description="Where the function is: 'package.module:name', or 'path/to/file.py:name' relative to the "
        "campaign file. Called with the sample; returns a number or an Answer.",
    )
    accepts: tuple[Media, ...] = Field(
        ("array", "image", "molecule"), min_length=1, description="The kinds of sample it takes."
    )
    deterministic: bool = Field(True, description="Whether the same sample always gets the same value.")
    version: str | None = Field(
        None,
        min_length=1,
        description="Name of this version of the function; default: a digest of its file, so that an edit counts "
        "as a new version.",
    )
    unit: str = Field("", description="Unit of the values, for tables and plots.")
    known: KnownValue | None = Field(None, description="A question whose answer you know, for the preflight.")

    @field_validator("function")
    @classmethod
    def _resolve(cls, function: str, info: ValidationInfo) -> str:
        place, colon, name = function.rpartition(":")
        if not colon or not place or not name.isidentifier():
            raise ValueError(f"expected 'package.module:name' or 'path/to/file.py:name', got {function!r}")
        if not place.endswith(".py"):
            return function
        path = path_in_campaign(place, info)
        if not path.is_file():
            raise ValueError(f"expected a Python file, found none at {path}")
        return f"{path}:{name}"

    def build(self) -> Oracle:
        """Imports the function.

        Raises:
            InputError: Its module cannot be imported, has no such name, or the name is no function.
        """
        place, _, name = self.function.rpartition(":")
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
        function = _attribute(module, name)
        return CallableOracle(
            function,
            name=f"python:{name}",
            version=self.version or _digest(module),
            unit=self.unit,
            media=self.accepts,
            deterministic=self.deterministic,
            known=self.known.as_known_answer() if self.known else None,
        )


_IMPORTING = threading.RLock()


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"expected a module {name!r} that can be imported, found none; install it, set PYTHONPATH, or give "
                "a path like 'folder/file.py:name'"
            ) from error
        raise InputError(f"module {name!r} could not be imported: {error}; install what it needs") from error
    except Exception as error:
        raise _import_failure(name, error) from error


def _import_file(path: Path) -> ModuleType:
    """Imports a file under a name of its own, with its folder importable for its neighbours."""
    name = f"pilotwave_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    with _IMPORTING:  # evaluators in threads build their oracles at the same time
        return sys.modules[name] if name in sys.modules else _import_anew(name, path)


def _import_anew(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"expected a Python file, found none at {path}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _import_failure(str(path), error) from error
    return module


def _import_failure(place: str, error: Exception) -> InputError:
    message = " ".join(str(error).split())
    return InputError(f"{place} could not be imported: {type(error).__name__}: {message}")


def _attribute(module: ModuleType, name: str) -> Any:
    place = getattr(module, "__file__", None) or module.__name__
    if not hasattr(module, name):
        names = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise InputError(f"{place} has no {name!r}; it has {', '.join(names) or 'no functions'}")
    function = getattr(module, name)
    if not callable(function):
        raise InputError(f"expected a function {name!r} in {place}, got a {type(function).__name__}")
    return function


def _digest(module: ModuleType) -> str:
    path = getattr(module, "__file__", None)
    if path is None or not Path(path).is_file():
        return "unversioned"
    return f"sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]}"


__all__ = ["KnownValue", "PythonOracleConfig"]
