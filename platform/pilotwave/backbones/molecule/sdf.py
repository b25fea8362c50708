"""Reads the user's own molecules from an SDF, prepared once and cached by the content of the file.

What is wrong with the file as a whole is refused in one line that names a record: no coordinates in three
dimensions, elements that the model does not know. Molecules that merely do not fit (too many atoms, charges, a
geometry from which their SMILES does not come back) are left out, counted and told.

May import: numpy and the modules beside it; RDKit inside functions.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pilotwave.backbones.molecule import decoding
from pilotwave.backbones.molecule.dataset import MoleculeDataset, cache_folder, load_prepared, pad, save
from pilotwave.backbones.molecule.representation import (
    FEWEST_ATOMS,
    Chemistry,
    EncodedMolecule,
    NotRepresentable,
    encode_molecule,
)
from pilotwave.errors import InputError
from pilotwave.storage import write_atomically

if TYPE_CHECKING:
    from rdkit.Chem import Mol

FORMAT_VERSION = 1
FEWEST_MOLECULES = 20
"""Different molecules that must be left: a model of fewer would recite them."""
_FLAT = 1e-3  # Å
_MANY = 2000  # records from which on more processes pay
_TOLD_EVERY = 1000
_END_OF_RECORD = re.compile(r"^\$\$\$\$[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True)
class SdfMolecules:
    """What was read.

    Attributes:
        molecules: Those that fit.
        records: In the file.
        left_out: Why others were left out, and how many each time.
        digest: Of the file's content, 16 hexadecimal digits.
    """

    molecules: MoleculeDataset
    records: int
    left_out: Mapping[str, int]
    digest: str

    def text(self) -> str:
        """Returns in one line what became of the records."""
        reasons = "; ".join(f"{count:,} left out: {reason}" for reason, count in self.left_out.items())
        return f"{len(self.molecules):,} of {self.records:,} molecules fit{'; ' if reasons else ''}{reasons}"


@dataclass(frozen=True)
class _LeftOut:
    """A record that does not fit."""

    reason: str


@dataclass(frozen=True)
class _Refused:
    """A record for which the whole file is refused."""

    name: str
    problem: str
    remedy: str
    elements: tuple[str, ...] = ()


def digest_of(path: Path) -> str:
    """Returns what names the content of a file, 16 hexadecimal digits.

    Raises:
        InputError: It cannot be read.
    """
    return hashlib.sha256(_read_bytes(path)).hexdigest()[:16]


def load(
    path: Path,
    chemistry: Chemistry,
    directory: Path | None = None,
    processes: int = 1,
    announce: Callable[[str], None] | None = None,
) -> SdfMolecules:
    """Loads the molecules of an SDF (gzipped or not), from the cache if it was read before.

    Args:
        path: Of the file.
        chemistry: Which molecules the model can say.
        directory: Of the prepared data; the user's cache if left out.
        processes: That read a large file.
        announce: Called with a line of text now and then.

    Raises:
        InputError: One line: the file is unreadable or empty, a record has no coordinates in three dimensions
            or unknown elements, or too few molecules fit.
    """
    digest = digest_of(path)
    known = hashlib.sha256(repr((FORMAT_VERSION, chemistry.slots, chemistry.classes)).encode()).hexdigest()[:8]
    prepared = cache_folder(directory) / "sdf-united-atoms" / f"{digest}-{known}.npz"
    summary = prepared.with_suffix(".json")
    if not summary.exists():  # it is written last
        records = _split(_text(path))
        encoded, left_out = _encode(path, records, chemistry, processes, announce)
        save(pad(encoded, chemistry.slots), prepared)
        write_atomically(summary, json.dumps({"records": len(records), "left_out": left_out}).encode())
    told = json.loads(summary.read_text(encoding="utf-8"))
    return SdfMolecules(load_prepared(prepared), told["records"], told["left_out"], digest)


def encode_record(record: str, chemistry: Chemistry) -> EncodedMolecule | _LeftOut | _Refused:
    """Encodes one record of an SDF, or says why it is left out or why the file is refused."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        drawn = Chem.MolFromMolBlock(record, sanitize=False, removeHs=False)
        if drawn is None or not drawn.GetNumAtoms():
            return _LeftOut("RDKit cannot read the record")
        refused = _refuse(drawn, record, chemistry)
        if refused is not None:
            return refused
        heavy = sum(atom.GetAtomicNum() > 1 for atom in drawn.GetAtoms())
        if not FEWEST_ATOMS <= heavy <= chemistry.slots:
            return _LeftOut(f"not {FEWEST_ATOMS} to {chemistry.slots} heavy atoms")
        molecule = Chem.MolFromMolBlock(record, removeHs=False)
        if molecule is None:
            return _LeftOut("RDKit does not sanitise the molecule")
        try:
            encoded = encode_molecule(molecule, chemistry)
        except NotRepresentable:
            return _LeftOut("a charge, a radical, or an atom with hydrogens that the model has no class for")
        back = decoding.decode_united_atoms(encoded.positions, encoded.classes.tolist(), chemistry, repair=False)
    if back.smiles != encoded.smiles:
        return _LeftOut("its SMILES does not come back from its geometry (fragments, strained or rough geometries)")
    return encoded


def _refuse(drawn: Mol, record: str, chemistry: Chemistry) -> _Refused | None:
    name = record.partition("\n")[0].strip()[:40]
    known = {atom.element for atom in chemistry.classes} | {"H"}
    unknown = sorted({atom.GetSymbol() for atom in drawn.GetAtoms()} - known)
    if unknown:
        remedy = f"expected only {', '.join(sorted(known))}; take such molecules out of the file"
        return _Refused(name, "elements that the model does not know", remedy, tuple(unknown))
    if not _is_three_dimensional(drawn):
        remedy = "expected a conformer in Å, as RDKit's EmbedMolecule or obabel --gen3d make one"
        return _Refused(name, "no coordinates in three dimensions", remedy)
    return None


def _is_three_dimensional(molecule: Mol) -> bool:
    """Says whether there is a conformer; a planar molecule is believed if its record is marked as 3D."""
    if not molecule.GetNumConformers():
        return False
    positions = molecule.GetConformer().GetPositions()
    spread = positions.max(axis=0) - positions.min(axis=0)
    return bool(spread.max() > _FLAT and (spread[2] > _FLAT or molecule.GetConformer().Is3D()))


def _encode(
    path: Path,
    records: Sequence[str],
    chemistry: Chemistry,
    processes: int,
    announce: Callable[[str], None] | None,
) -> tuple[list[EncodedMolecule], dict[str, int]]:
    encoded: list[EncodedMolecule] = []
    left_out: collections.Counter[str] = collections.Counter()
    refused: list[tuple[int, _Refused]] = []
    for number, outcome in enumerate(_outcomes(records, chemistry, processes), start=1):
        if isinstance(outcome, EncodedMolecule):
            encoded.append(outcome)
        elif isinstance(outcome, _LeftOut):
            left_out[outcome.reason] += 1
        else:
            refused.append((number, outcome))
        if announce is not None and number % _TOLD_EVERY == 0:
            announce(f"read {number:,} of {len(records):,} records of {path.name}")
    if refused:
        raise InputError(f"{path}: {_complaint(refused)}")
    if left_out.total() == len(records):
        reason, _ = left_out.most_common(1)[0]
        raise InputError(f"{path}: not one of its records ({len(records)}) can be used; most often: {reason}")
    different = len({molecule.smiles for molecule in encoded})
    if different < FEWEST_MOLECULES:
        raise InputError(
            f"{path}: expected {FEWEST_MOLECULES} different molecules at least, got {different} from "
            f"{len(records)} records ({left_out.total()} left out); add more, or train without data of your own"
        )
    return encoded, dict(left_out.most_common())


def _outcomes(
    records: Sequence[str], chemistry: Chemistry, processes: int
) -> Iterator[EncodedMolecule | _LeftOut | _Refused]:
    encode = partial(encode_record, chemistry=chemistry)
    if processes == 1 or len(records) < _MANY:
        yield from map(encode, records)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(encode, records, chunksize=200)


def _complaint(refused: Iterable[tuple[int, _Refused]]) -> str:
    (number, first), *others = refused
    alike = [item for _, item in others if item.problem == first.problem]
    elements = sorted({element for item in (first, *alike) for element in item.elements})
    what = f"{first.problem} ({', '.join(elements)})" if elements else first.problem
    name = f" ({first.name!r})" if first.name else ""
    if not alike:
        return f"record {number}{name} has {what}; {first.remedy}"
    more = f"{len(alike)} other{'s' if len(alike) > 1 else ''}"
    return f"record {number}{name} and {more} have {what}; {first.remedy}"


def _split(text: str) -> list[str]:
    """Returns the records of an SDF; what follows the last delimiter counts if it is not blank."""
    return [record for record in _END_OF_RECORD.split(text) if record.strip()]


def _text(path: Path) -> str:
    data = _read_bytes(path)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path}: expected a whole gzip file, but it is damaged ({error})") from None
    text = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    if not text.strip():
        raise InputError(f"{path}: expected an SDF with molecules in 3D, but the file is empty")
    if "M  END" not in text:
        raise InputError(
            f"{path}: expected an SDF with molecules in 3D, but there is no record in it (no 'M  END')"
        )
    return text


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected an SDF (.sdf or .sdf.gz), but: {error.strerror or error}") from None


__all__ = ["FEWEST_MOLECULES", "SdfMolecules", "digest_of", "encode_record", "load"]
