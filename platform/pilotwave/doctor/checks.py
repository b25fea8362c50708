"""Everything that ``pilotwave doctor`` looks at, in the order it is shown.

May import :mod:`pilotwave.doctor` and :mod:`pilotwave.config`; what could hang or crash (Ray, native chemistry
code) runs in a child process with a time limit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pilotwave.config import registry
from pilotwave.config.components import GROUPS
from pilotwave.doctor.check import Check, CheckStatus, run_child
from pilotwave.doctor.machine import clock, disk_space, memory_and_cores, shared_memory, writable_places
from pilotwave.doctor.packages import package_checks
from pilotwave.errors import PilotwaveError

RAY_SECONDS, XTB_SECONDS, MODEL_SECONDS, TORCH_SECONDS = 90.0, 60.0, 120.0, 60.0

_TORCH = """
import torch
if torch.cuda.is_available():
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    probe = torch.ones(8, device="cuda").sum().item()
    assert probe == 8.0, f"the GPU adds eight ones to {probe}"
    print(", ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards))
else:
    print("none: CPU is used")
"""
_RAY = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20,
         log_to_driver=False, logging_level="error")
answer = ray.get(ray.remote(num_cpus=1)(lambda: 6 * 7).remote(), timeout=60)
assert answer == 42, answer
ray.shutdown()
print(f"Ray {ray.__version__}: a private local cluster starts and works")
"""
_RAY_ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
_XTB = """
from pilotwave.config.registry import load
from pilotwave.execution.question import OracleIdentity, ask, check_known_answer
from pilotwave.protocols import QueryContext
config = load("oracle", "xtb").model_validate({"kind": "xtb", "property": "polarizability"})
config.check_dependencies()
oracle = config.build()
known = oracle.known_answer()
evaluation = ask(oracle, known.sample, QueryContext("doctor"), "doctor")
check_known_answer(OracleIdentity.of(oracle), known, evaluation)
print(f"{oracle.version}: {known.sample.label()} has {evaluation.value:.4f} {oracle.unit}, as it should")
"""
_MODEL = """
from pilotwave.config.registry import load
config = load("backbone", "{kind}").model_validate({{"kind": "{kind}"}})
backbone = config.build("cpu")
print(f"{{backbone.fingerprint}}, {{backbone.steps}} steps")
"""


def checks(*, quick: bool = False, say: Callable[[str], object] = lambda name: None) -> list[Check]:
    """Looks at everything.

    Args:
        quick: Leave out what starts processes: torch's devices, models, Ray, xTB.
        say: Called with the name of what is looked at next.
    """
    parts: list[tuple[str, Callable[[], list[Check]]]] = [
        ("Python", lambda: [python_version()]),
        ("packages", package_checks),
        ("plug-ins", plugins),
        ("this machine", lambda: [memory_and_cores(), shared_memory(), disk_space(), *writable_places(), clock()]),
    ]
    if not quick:
        parts += [
            ("torch", lambda: [gpu()]),
            ("the molecule model", lambda: [model("molecule", "missing")]),
            ("the image model", lambda: [model("image", "warning")]),
            ("xTB", lambda: [xtb()]),
            ("Ray", lambda: [local_ray()]),
        ]
    found: list[Check] = []
    for name, part in parts:
        say(name)
        found += part()
    return found


def python_version() -> Check:
    """Says which Python this is; one that is too old could not have installed us."""
    newer = "; xtb-python has no wheel for it, so xTB runs on tblite" if sys.version_info >= (3, 12) else ""
    return Check("Python", "ok", f"{sys.version.split()[0]} at {sys.executable}{newer}")


def plugins() -> list[Check]:
    """Imports every backbone, oracle, constraint, algorithm, runtime and tracker, ours and third parties'."""
    return [_plugins_of(section) for section in GROUPS]


def gpu() -> Check:
    """Says where models run; having no GPU is fine."""
    result = run_child(_TORCH, seconds=TORCH_SECONDS)
    if result.ok:
        return Check("GPU", "ok", result.line)
    return Check(
        "GPU", "warning", result.line, "check the driver with nvidia-smi; `device: cpu` runs without a GPU"
    )


def model(kind: str, otherwise: CheckStatus) -> Check:
    """Loads a built-in model, which reads and checks its weights; ``otherwise`` is the status if it fails."""
    result = run_child(_MODEL.format(kind=kind), seconds=MODEL_SECONDS)
    name = f"{kind} model"
    if result.ok:
        return Check(name, "ok", result.line)
    remedy = f"reinstall pilotwave, or train one with: pilotwave train {kind}"
    return Check(name, otherwise, result.line, remedy)


def xtb() -> Check:
    """Asks the xTB oracle about the molecule whose polarizability is known."""
    result = run_child(_XTB, seconds=XTB_SECONDS, environment={"OMP_NUM_THREADS": "1"})
    if result.ok:
        return Check("xTB", "ok", result.line)
    return Check("xTB", "missing", result.line, "pip install --force-reinstall 'pilotwave[molecules]'")


def local_ray() -> Check:
    """Starts a private local cluster, runs a task on it and stops it."""
    result = run_child(_RAY, seconds=RAY_SECONDS, environment=_RAY_ENVIRONMENT)
    if result.ok:
        return Check("Ray", "ok", result.line)
    remedy = (
        "pip install 'pilotwave[ray]', and free memory and /dev/shm; `runtime: {kind: inline}` runs without Ray"
    )
    return Check("Ray", "missing", result.line, remedy)


def _plugins_of(section: str) -> Check:
    working, broken, ours = [], [], False
    for kind, point in registry.choices(section).items():
        try:
            registry.load(section, kind)
        except PilotwaveError as error:
            broken.append(str(error))
            ours |= point.dist is not None and point.dist.name == "pilotwave"
        else:
            working.append(kind)
    name = f"plug-ins: {section}"
    if broken:
        remedy = "reinstall or remove the package that brings the plug-in"
        return Check(name, "missing" if ours else "warning", "; ".join(broken), remedy)
    if not working:
        return Check(name, "missing", "none is registered", "pip install --force-reinstall pilotwave")
    return Check(name, "ok", ", ".join(working))


__all__ = ["checks", "gpu", "local_ray", "model", "plugins", "python_version", "xtb"]
