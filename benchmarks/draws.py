"""Unguided molecules by the thousand: drawn by several one-thread processes, kept as they come.

Draws go in chunks, and each finished chunk is a file of its own under the work folder, in a folder named after
the model's weights, its settings and the code that samples and decodes. So an interrupted benchmark goes on where
it was stopped, and nothing drawn by other weights or other code is ever counted.
"""

from __future__ import annotations

import ast
import functools
import gzip
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and tblite are imported, here and in the processes

import torch

import pilotwave.backbones
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, UnitedAtomBackboneConfig
from pilotwave.backbones.molecule.quality import SampledMolecules, sample_molecules
from pilotwave.config import registry
from pilotwave.samples import MoleculeSample
from pilotwave.storage import write_atomically

CHUNK = 200
SAMPLING_CODE = (
    "noise", "samplers/schedule", "samplers/dpm_solver_sde", "samplers/euler_ancestral", "molecule/backbone",
    "molecule/network", "molecule/preconditioning", "molecule/representation", "molecule/decoding",
    "molecule/bond_perception",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One way to sample from one molecule model."""

    kind: str
    checkpoint: str
    steps: int
    sampler: str = "dpm-solver-sde"
    precision: str = "float32"
    atoms: int | None = None

    def build(self) -> MoleculeBackbone:
        config = registry.load("backbone", self.kind).model_validate(asdict(self))
        assert isinstance(config, UnitedAtomBackboneConfig)
        backbone = config.build("cpu")
        assert isinstance(backbone, MoleculeBackbone)
        return backbone


@dataclass(frozen=True)
class Drawn:
    """What a setting drew.

    Attributes:
        sampled: In the order of the seeds.
        cpu_seconds: Of all processes together.
        wall_seconds: The same on the clock, each process counted on its own.
    """

    sampled: SampledMolecules
    cpu_seconds: float
    wall_seconds: float

    @property
    def per_cpu_second(self) -> float:
        return self.sampled.count / self.cpu_seconds

    def per_second(self, processes: int) -> float:
        """Samples a second of so many processes side by side."""
        return self.sampled.count * processes / self.wall_seconds


def draw(setting: Setting, count: int, seed: int, work: Path, processes: int) -> Drawn:
    """Draws with the seeds ``seed, ..., seed + count - 1``, as far as they are not kept already."""
    folder = work / f"{setting.build().fingerprint}-{code_fingerprint()}"
    chunks = [(first, min(CHUNK, seed + count - first)) for first in range(seed, seed + count, CHUNK)]
    paths = {(first, size): folder / f"{first}-{size}.json.gz" for first, size in chunks}
    missing = [chunk for chunk in chunks if not paths[chunk].exists()]
    began = time.monotonic()
    calls = [(setting, *chunk, paths[chunk]) for chunk in missing]
    for done, _ in enumerate(side_by_side(draw_chunk, calls, processes), 1):
        left = (time.monotonic() - began) / done * (len(calls) - done) / 60
        print(f"{folder.name}: {done} of {len(calls)} chunks, about {left:.1f} minutes left", flush=True)
    return join(read_chunk(paths[chunk]) for chunk in chunks)


def draw_chunk(setting: Setting, first: int, count: int, path: Path) -> None:
    """Draws and keeps one chunk."""
    backbone = _built(setting)
    cpu, wall = time.process_time(), time.monotonic()
    sampled = sample_molecules(backbone, range(first, first + count))
    told = {
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.monotonic() - wall,
        "molecules": [asdict(molecule) for molecule in sampled.molecules],
        "reasons": sampled.reasons,
    }
    write_atomically(path, gzip.compress(json.dumps(told).encode()))


def read_chunk(path: Path) -> Drawn:
    told = json.loads(gzip.decompress(path.read_bytes()))
    molecules = tuple(MoleculeSample(**fields) for fields in told["molecules"])
    return Drawn(SampledMolecules(molecules, tuple(told["reasons"])), told["cpu_seconds"], told["wall_seconds"])


def join(parts: Iterable[Drawn]) -> Drawn:
    parts = list(parts)
    return Drawn(
        SampledMolecules(
            tuple(molecule for part in parts for molecule in part.sampled.molecules),
            tuple(reason for part in parts for reason in part.sampled.reasons),
        ),
        sum(part.cpu_seconds for part in parts),
        sum(part.wall_seconds for part in parts),
    )


def side_by_side(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[tuple[int, Any]]:
    """Yields the place of each call and what it returned, as they finish; one process needs no other than this."""
    if processes == 1 or len(calls) < 2:
        for place, call in enumerate(calls):
            yield place, function(*call)
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(calls)), fresh, torch.set_num_threads, (1,)) as workers:
        jobs = {workers.submit(function, *call): place for place, call in enumerate(calls)}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


@functools.cache
def code_fingerprint() -> str:
    """Names the code that samples and decodes; comments, docstrings and layout do not count."""
    folder = Path(pilotwave.backbones.__file__).parent
    digest = hashlib.sha256()
    for name in SAMPLING_CODE:
        digest.update(code_of((folder / f"{name}.py").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:8]


def code_of(text: str) -> str:
    """Returns what a module does, as text, without what it says."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_text(item)]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _built(setting: Setting) -> MoleculeBackbone:
    backbone = setting.build()
    sample_molecules(backbone, range(4))  # so that the first measured chunk starts warm
    return backbone
