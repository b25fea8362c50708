"""Holds the xTB oracle against its rivals: ``python benchmarks/quantum_chemistry.py --record``.

On random molecules of QM9, one thread: the oracle's two engines against each other; against the `xtb` program of
the system, one process a molecule (left out if it is not installed), in energy, gap, dipole and speed; its
properties against QM9's B3LYP values; and the polarizability against other field steps. Needs the extras
``molecules`` and ``train`` (for QM9).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from oracles import mol_block
from rdkit import rdBase
from results import describe_machine, markdown_table, write_section

from pilotwave.backbones.molecule.qm9 import RawMolecule
from pilotwave.errors import OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import MoleculeSample
from pilotwave_oracles.geometry import BOHR, read_geometry
from pilotwave_oracles.xtb import XtbOracleConfig, XtbProperty
from pilotwave_oracles.xtb_properties import DEBYE, EV

PARTS = {
    "engines": "## xTB oracle: its two engines",
    "program": "## xTB oracle: the xtb program",
    "dft": "## xTB oracle: QM9",
    "fields": "## xTB oracle: field step",
}
CONTEXT = QueryContext("benchmark")

QM9_ATOMS = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
"""B3LYP energies of free atoms at 0 K, hartree; published with QM9 (atomref.txt)."""

COLUMNS = (
    "SMILES",
    "Elements",
    "XYZ_Ang",
    "Polarizability_bohr3",
    "HOMO_LUMO_gap_au",
    "HOMO_au",
    "LUMO_au",
    "Dipole_debye",
    "InternalEnergy_0K_au",
    "Heatcapacity_Cv_cal_mol_K",
)

COMPARED: tuple[tuple[XtbProperty, str], ...] = (
    ("polarizability", "bohr³"),
    ("gap", "eV"),
    ("homo", "eV"),
    ("lumo", "eV"),
    ("dipole", "debye"),
    ("atomization_energy", "eV"),
)


@dataclass(frozen=True)
class Molecule:
    """A molecule of QM9 with its published values, by the oracle's names and in its units."""

    sample: MoleculeSample
    published: dict[XtbProperty, float]


def main() -> None:
    """Measures everything and prints it, or writes it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=1000, help="for agreement and correlation")
    parser.add_argument("--program", type=int, default=500, help="of them, for the xtb program")
    parser.add_argument("--hessians", type=int, default=60, help="of them, for heat capacities")
    parser.add_argument("--fields", type=int, default=100, help="of them, for the field step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what is measured")
    parser.add_argument("--record", action="store_true", help="write a section a part to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    rdBase.DisableLog("rdApp.*")
    molecules = drawn_molecules(arguments.molecules, arguments.seed)
    for part in arguments.parts:
        measured = measure(part, molecules, arguments)
        command = (
            f"`python benchmarks/quantum_chemistry.py --molecules {arguments.molecules} --program "
            f"{arguments.program} --hessians {arguments.hessians} --fields {arguments.fields} "
            f"--seed {arguments.seed} --parts {part} --record`"
        )
        body = "\n\n".join([command, describe_machine(1), measured])
        print(f"{PARTS[part]}\n\n{body}\n", flush=True)
        if arguments.record:
            write_section(PARTS[part], body)


def measure(part: str, molecules: list[Molecule], arguments: argparse.Namespace) -> str:
    """Runs one part and returns its figures."""
    if part == "engines":
        return against_the_other_engine(molecules)
    if part == "program":
        return against_the_program(molecules[: arguments.program])
    if part == "dft":
        return against_density_functional_theory(molecules, arguments.hessians)
    return other_fields(molecules[: arguments.fields])


def drawn_molecules(count: int, seed: int) -> list[Molecule]:
    """Returns random molecules of QM9 whose bonds RDKit perceives as their SMILES says."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the QM9 data is not installed; run: pip install 'pilotwave[train]'")
    rows: list[dict[str, str]] = []
    for part in (1, 2, 3):
        with (Path(spec.submodule_search_locations[0]) / "data" / f"qm9_part{part}.csv").open(newline="") as file:
            rows += [{name: row[name] for name in COLUMNS} for row in csv.DictReader(file)]
    random.Random(seed).shuffle(rows)
    molecules: list[Molecule] = []
    for row in rows:
        block = mol_block(RawMolecule(row["SMILES"], row["Elements"], row["XYZ_Ang"]))
        if block is not None:
            molecules.append(Molecule(MoleculeSample(block, row["SMILES"]), published_values(row)))
        if len(molecules) == count:
            break
    return molecules


def published_values(row: dict[str, str]) -> dict[XtbProperty, float]:
    """Returns a row of QM9 in the oracle's units."""
    elements = row["Elements"].strip("[]").replace("'", "").split(",")
    atoms = sum(QM9_ATOMS[element.strip()] for element in elements)
    return {
        "polarizability": float(row["Polarizability_bohr3"]),
        "gap": float(row["HOMO_LUMO_gap_au"]) * EV,
        "homo": float(row["HOMO_au"]) * EV,
        "lumo": float(row["LUMO_au"]) * EV,
        "dipole": float(row["Dipole_debye"]),
        "atomization_energy": (atoms - float(row["InternalEnergy_0K_au"])) * EV,
        "heat_capacity": float(row["Heatcapacity_Cv_cal_mol_K"]),
    }


def answers(config: XtbOracleConfig, molecules: list[Molecule]) -> tuple[list[dict[str, float]], float]:
    """Asks the oracle; returns all properties of each, empty if it failed, and CPU seconds a molecule."""
    oracle = config.build()
    found: list[dict[str, float]] = []
    started = time.process_time()
    for molecule in molecules:
        try:
            answer = oracle.evaluate(molecule.sample, CONTEXT)
        except OracleFailure:
            found.append({})
            continue
        found.append({**answer.properties, config.property: answer.value})
    return found, (time.process_time() - started) / len(molecules)


def largest_differences(
    ours: list[dict[str, float]], theirs: list[dict[str, float]], limits: dict[str, tuple[float, str]]
) -> list[str]:
    """Returns a line per property: the largest difference, and how many molecules exceed the aim."""
    lines = []
    for name, (limit, unit) in limits.items():
        off = np.array(
            [abs(a[name] - b[name]) for a, b in zip(ours, theirs, strict=True) if name in a and name in b]
        )
        verdict = "met" if (off <= limit).all() else f"exceeded by {(off > limit).sum()}"
        lines.append(
            f"- {name}: at most {off.max():.1e} {unit} apart, median {np.median(off):.1e}, on {len(off)} molecules "
            f"(aim {limit:g}: {verdict})"
        )
    return lines


LIMITS = {"energy": (1e-5, "hartree"), "gap": (0.01, "eV"), "dipole": (0.01, "debye")}


def against_the_other_engine(molecules: list[Molecule]) -> str:
    """Returns how tblite and xtb-python agree."""
    tblite, ours = answers(XtbOracleConfig(property="energy"), molecules)
    library, theirs = answers(XtbOracleConfig(property="energy", engine="xtb"), molecules)
    lines = largest_differences(tblite, library, LIMITS)
    timing = f"One answer: {ours * 1e3:.1f} ms CPU by tblite, {theirs * 1e3:.1f} ms by xtb-python."
    return "\n".join([f"Engine tblite against xtb-python. {timing}", "", *lines])


def against_the_program(molecules: list[Molecule]) -> str:
    """Returns how the oracle and the system's program agree, and how long each takes, in one run."""
    program = shutil.which("xtb")
    if program is None:
        return "The xtb program is not installed here (Debian: apt-get install xtb); left out."
    wall = time.perf_counter()
    ours, our_cpu = answers(XtbOracleConfig(property="energy"), molecules)
    our_wall = (time.perf_counter() - wall) / len(molecules)
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = [run_program(program, molecule) for molecule in molecules]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    their_wall = (time.perf_counter() - wall) / len(molecules)
    their_cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(molecules)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    named = next(line for line in version.splitlines() if "version" in line).strip(" *").split("(")[0].strip()
    ratio = their_cpu / our_cpu
    table = markdown_table(
        ["a single point", "oracle (tblite)", "program, one process a molecule", "ratio"],
        [
            ["CPU, ms", f"{our_cpu * 1e3:.1f}", f"{their_cpu * 1e3:.1f}", f"{ratio:.1f}x"],
            ["elapsed, ms", f"{our_wall * 1e3:.1f}", f"{their_wall * 1e3:.1f}", f"{their_wall / our_wall:.1f}x"],
            ["per core and second (CPU)", f"{1 / our_cpu:.0f}", f"{1 / their_cpu:.0f}", ""],
        ],
    )
    lines = largest_differences(ours, theirs, LIMITS)
    aim = f"- at least 5x in CPU time: {'met' if ratio >= 5 else 'missed'}"
    return "\n".join([f"Against {named}, {len(molecules)} molecules, GFN2-xTB:", "", table, "", *lines, aim])


def run_program(program: str, molecule: Molecule) -> dict[str, float]:
    """Runs the program on one molecule in a folder of its own; returns nothing if it did not converge."""
    geometry = read_geometry(molecule.sample)
    symbols = [line.split()[3] for line in molecule.sample.mol_block.splitlines()[4 : 4 + len(geometry.numbers)]]
    rows = [
        f"{symbol} {x:.10f} {y:.10f} {z:.10f}"
        for symbol, (x, y, z) in zip(symbols, geometry.positions * BOHR, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "molecule.xyz").write_text("\n".join([str(len(rows)), "", *rows, ""]))
        subprocess.run(
            [program, "molecule.xyz", "--gfn", "2", "--json"], cwd=folder, capture_output=True, check=False
        )
        if not Path(folder, "xtbout.json").exists():
            return {}
        text = Path(folder, "xtbout.json").read_text()
    values = json.loads(text)
    dipole: NDArray[np.float64] = np.array(values["dipole"])
    return {
        "energy": values["total energy"],
        "gap": values["HOMO-LUMO gap/eV"],
        "dipole": float(np.linalg.norm(dipole)) * DEBYE,
    }


def against_density_functional_theory(molecules: list[Molecule], hessians: int) -> str:
    """Returns correlations with the published B3LYP values, at the published geometries."""
    rows = []
    asked: dict[XtbProperty, list[dict[str, float]]] = {
        name: answers(XtbOracleConfig(property=name), molecules)[0]
        for name in ("polarizability", "atomization_energy")
    }
    for name, unit in COMPARED:
        found = asked.get(name, asked["polarizability"])
        rows.append(correlation_row(name, unit, found, molecules))
    relaxed, seconds = answers(XtbOracleConfig(property="heat_capacity"), molecules[:hessians])
    rows.append(correlation_row("heat_capacity", "cal/(mol K)", relaxed, molecules[:hessians]))
    table = markdown_table(
        ["property", "unit", "molecules", "Pearson", "Spearman", "GFN2 less B3LYP, median"], rows
    )
    failed = sum(not item for item in relaxed)
    return (
        f"GFN2-xTB against QM9's B3LYP/6-31G(2df,p):\n\n{table}\n\n"
        f"A heat capacity takes {seconds:.2f} s CPU; {failed} of {len(relaxed)} failed (no minimum, other bonds)."
    )


def correlation_row(
    name: XtbProperty, unit: str, found: list[dict[str, float]], molecules: list[Molecule]
) -> list[str]:
    """Returns one property's row of the table."""
    pairs = [
        (item[name], molecule.published[name]) for item, molecule in zip(found, molecules, strict=True) if item
    ]
    ours, theirs = np.array(pairs).T
    ranks = [np.argsort(np.argsort(values)) for values in (ours, theirs)]
    return [
        name,
        unit,
        str(len(pairs)),
        f"{np.corrcoef(ours, theirs)[0, 1]:.3f}",
        f"{np.corrcoef(*ranks)[0, 1]:.3f}",
        f"{np.median(ours - theirs):+.2f}",
    ]


def other_fields(molecules: list[Molecule]) -> str:
    """Returns by how much other field steps change the polarizability."""
    usual = answers(XtbOracleConfig(), molecules)[0]
    lines = []
    for step in (2e-3, 5e-4, 2.5e-4):
        other = answers(XtbOracleConfig(field_step=step), molecules)[0]
        off = np.abs([b["polarizability"] / a["polarizability"] - 1 for a, b in zip(usual, other, strict=True)])
        lines.append(f"- {step:g} instead of 0.001: at most {off.max():.3%}, median {np.median(off):.4%}")
    return "\n".join([f"Field step of the polarizability, {len(molecules)} molecules:", "", *lines])


if __name__ == "__main__":
    main()
