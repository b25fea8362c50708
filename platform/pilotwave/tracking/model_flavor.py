"""The files by which MLflow loads a folder of learned guidance as a ``python_function`` model.

They are written without MLflow, so a campaign that is not tracked has them too. May import the standard library,
PyYAML and nothing of pilotwave.
"""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

MODEL_FILE = "MLmodel"
LOADER = "pilotwave.tracking.pyfunc"
NAME = "guidance"
_INPUTS = [
    {"name": "n", "type": "long", "required": False},
    {"name": "seed", "type": "long", "required": False},
    {"name": "constraints", "type": "boolean", "required": False},
    {"name": "conditions", "type": "string", "required": False},
]


def write_flavor(folder: Path, requirements: Sequence[str]) -> None:
    """Makes a folder loadable with ``mlflow.pyfunc.load_model``.

    Args:
        folder: Holds a model, see :mod:`pilotwave.execution.learned_model`.
        requirements: What has to be installed, as pip writes it.
    """
    python = platform.python_version()
    files = {
        "requirements.txt": "".join(f"{line}\n" for line in requirements),
        "python_env.yaml": yaml.safe_dump(
            {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
        ),
        "conda.yaml": yaml.safe_dump(
            {"name": "mlflow-env", "dependencies": [f"python={python}", "pip", {"pip": list(requirements)}]}
        ),
        MODEL_FILE: yaml.safe_dump(_described(python), sort_keys=False),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def with_model_id(folder: Path, model_id: str, run_id: str) -> str:
    """Returns the text of ``MLmodel`` with the ids that MLflow gave to the model."""
    fields = yaml.safe_load((folder / MODEL_FILE).read_text(encoding="utf-8"))
    return yaml.safe_dump({**fields, "model_id": model_id, "run_id": run_id}, sort_keys=False)


def _described(python: str) -> dict[str, object]:
    return {
        "artifact_path": NAME,
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "python_version": python,
            }
        },
        "model_uuid": uuid.uuid4().hex,
        "signature": {"inputs": json.dumps(_INPUTS), "outputs": None, "params": None, "type_hint": None},
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


__all__ = ["LOADER", "MODEL_FILE", "NAME", "with_model_id", "write_flavor"]
