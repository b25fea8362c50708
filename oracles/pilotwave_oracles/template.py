"""Placeholders like ``{smiles}`` and ``{xyz_file}`` in what a program is given: arguments, input files, stdin.

May import pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pilotwave.errors import OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave_oracles.sample_files import npy_bytes, png_bytes, sdf_record, xyz_of

_MOLECULE, _IMAGE, _ARRAY, _ANY = "molecule", "image", "array", ""

PLACEHOLDERS: dict[str, str] = {
    "smiles": _MOLECULE,
    "charge": _MOLECULE,
    "multiplicity": _MOLECULE,
    "xyz_file": _MOLECULE,
    "mol_file": _MOLECULE,
    "sdf_file": _MOLECULE,
    "png_file": _IMAGE,
    "class_name": _IMAGE,
    "npy_file": _ARRAY,
    "values": _ARRAY,
    "query_id": _ANY,
    "attempt": _ANY,
    "folder": _ANY,
}
"""From a placeholder to the media that has it; "" for all."""

_PATTERN = re.compile(r"\{\{|\}\}|\{([a-z_]+)\}")


def placeholders_in(text: str) -> set[str]:
    """Returns the placeholders of a template; ``{{`` and ``}}`` stand for braces, other braces for themselves.

    Raises:
        ValueError: One is unknown.
    """
    found = {name for name in _PATTERN.findall(text) if name}
    unknown = sorted(found - set(PLACEHOLDERS))
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"expected one of {known}, got {{{unknown[0]}}} (write {{{{{unknown[0]}}}}} for the text)")
    return found


def check_media(texts: Iterable[str], accepted: Iterable[str]) -> None:
    """Makes sure that templates fit all the media that are accepted.

    Raises:
        ValueError: A placeholder is unknown or of another media.
    """
    accepted = tuple(accepted)
    for name in sorted(set().union(*map(placeholders_in, texts))):
        needed = PLACEHOLDERS[name]
        if needed and accepted != (needed,):
            raise ValueError(f"{{{name}}} is for {needed} samples only, so expected accepts: [{needed}]")


class Filling:
    """Fills templates for one sample; a file is written into the folder the first time it is named."""

    def __init__(self, sample: Sample, context: QueryContext, folder: Path) -> None:
        self._sample = sample
        self._context = context
        self._folder = folder
        self._known: dict[str, str] = {}

    def fill(self, text: str) -> str:
        """Returns the template with everything put in.

        Raises:
            OracleFailure: Stage ``"parse"`` or ``"encode"``: the sample cannot be written in that form.
        """
        return _PATTERN.sub(self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)[0]
        if name not in self._known:
            self._known[name] = self._value(name)
        return self._known[name]

    def _value(self, name: str) -> str:
        always: dict[str, Callable[[], str]] = {
            "query_id": lambda: self._context.query_id,
            "attempt": lambda: str(self._context.attempt),
            "folder": lambda: str(self._folder),
        }
        if name in always:
            return always[name]()
        if isinstance(self._sample, MoleculeSample):
            return self._of_molecule(self._sample, name)
        if isinstance(self._sample, ImageSample):
            return self._of_image(self._sample, name)
        assert isinstance(self._sample, ArraySample)
        return self._of_array(self._sample, name)

    def _of_molecule(self, sample: MoleculeSample, name: str) -> str:
        match name:
            case "smiles":
                return sample.smiles
            case "mol_file":
                return self._file("sample.mol", sample.mol_block.encode())
            case "sdf_file":
                return self._file("sample.sdf", sdf_record(sample, sample.smiles, {}).encode())
        xyz = xyz_of(sample)
        self._known |= {"charge": str(xyz.charge), "multiplicity": str(xyz.multiplicity)}
        self._known["xyz_file"] = self._file("sample.xyz", xyz.text.encode())
        return self._known[name]

    def _of_image(self, sample: ImageSample, name: str) -> str:
        return sample.class_name or "" if name == "class_name" else self._file("sample.png", png_bytes(sample))

    def _of_array(self, sample: ArraySample, name: str) -> str:
        if name == "npy_file":
            return self._file("sample.npy", npy_bytes(sample))
        return " ".join(f"{number:.9g}" for number in sample.array.ravel().tolist())

    def _file(self, name: str, data: bytes) -> str:
        path = self._folder / name
        try:
            path.write_bytes(data)
        except OSError as error:
            raise OracleFailure(f"could not write {path}: {error}", stage="encode", retryable=True) from error
        return str(path)


__all__ = ["PLACEHOLDERS", "Filling", "check_media", "placeholders_in"]
