"""A program as the oracle (kind ``command``): one that speaks the JSON contract, or any that prints a number.

May import pydantic, pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pilotwave.config.components import OracleConfig, path_in_campaign
from pilotwave.protocols import Oracle
from pilotwave.samples import SAMPLE_TYPES
from pilotwave_oracles.contract import Array
from pilotwave_oracles.known_value import KnownValue
from pilotwave_oracles.reading import Reading, compiled, plain_file_name
from pilotwave_oracles.template import check_media, placeholders_in
from pilotwave_oracles.work_folder import Keep

Media = Literal["array", "image", "molecule"]

EX_TEMPFAIL = 75
"""The exit code by which programs have said "try again later" since BSD's sysexits.h."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "CUDA_VISIBLE_DEVICES", *THREADS)
"""Environment variables that a program always gets, as far as they are set."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class CommandOracleConfig(OracleConfig):
    """Asks a program.

    Without ``value`` the program speaks the contract: a request in JSON on its standard input, a reply in JSON on
    its standard output. With ``value`` it knows nothing of pilotwave: placeholders in its arguments, input files
    and standard input tell it the sample, and ``value`` says where the number stands in what it wrote.

    Relative paths in ``command`` and ``folder`` are resolved when the configuration is read, against the campaign
    file's folder; a program without a slash is looked up on PATH.
    """

    media: ClassVar[frozenset[str]] = frozenset(SAMPLE_TYPES)
    summary: ClassVar[str] = "A program of yours: JSON in, JSON out, or any that prints a number."

    kind: Literal["command"] = "command"
    command: tuple[str, ...] = Field(
        min_length=1,
        description="The program and its arguments, e.g. [python, score.py] or [orca, job.inp]; no shell is "
        "involved. Placeholders such as {smiles} and {xyz_file} are put in.",
    )
    accepts: tuple[Media, ...] = Field(
        ("array", "image", "molecule"), min_length=1, description="The kinds of sample it takes."
    )
    value: Reading | None = Field(
        None, description="Where the value stands in its output; null: it replies by the contract."
    )
    properties: dict[str, Reading] = Field(
        default_factory=dict, description="Where further numbers stand, by name, to be kept with the answer."
    )
    failures: dict[str, str] = Field(
        default_factory=dict,
        description="Stage of a failure and the regular expression by which it shows in stdout or stderr, for "
        "programs that exit with 0 all the same, e.g. {scf: 'SCF NOT CONVERGED'}.",
    )
    inputs: dict[str, str] = Field(
        default_factory=dict, description="Files written into its folder first: name and text with placeholders."
    )
    stdin: str | None = Field(
        None, description="What it reads on standard input, with placeholders; null: nothing, or the request."
    )
    persistent: bool = Field(
        False, description="The program stays and answers request after request, a line of JSON each."
    )
    arrays: Array = Field("list", description="How the contract passes arrays: a list, or the path of a .npy file.")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables that it gets. No secrets: this file is recorded."
    )
    pass_environment: tuple[str, ...] = Field(
        (),
        description="Names of variables passed on from pilotwave's own environment, besides PATH, HOME, USER, "
        "LANG, LC_ALL, TZ, TMPDIR, CUDA_VISIBLE_DEVICES and those for threads; the place for secrets.",
    )
    keep: Keep = Field("never", description="Whose folders are kept for a look: never, failures, always.")
    folder: Path = Field(Path("command_folders"), validate_default=True, description="Where kept folders lie.")
    retry_exit_codes: tuple[int, ...] = Field(
        (EX_TEMPFAIL,), description="Exit codes after which another attempt may succeed."
    )
    deterministic: bool = Field(True, description="Whether the same sample always gets the same value.")
    fidelity: str | None = Field(None, min_length=1, description="Level of theory or quality, kept with answers.")
    version: str | None = Field(
        None,
        min_length=1,
        description="Name of this version; default: a digest of the program, of the files among its arguments and "
        "of the settings above that change what it computes.",
    )
    unit: str = Field("", description="Unit of the values, for tables and plots.")
    known: KnownValue | None = Field(None, description="A question whose answer you know, for the preflight.")

    @field_validator("command")
    @classmethod
    def _resolve(cls, command: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        program, *arguments = command
        if not program.strip() or placeholders_in(program):
            raise ValueError(f"expected a program first, got {program!r}")
        if "/" in program:
            path = path_in_campaign(program, info)
            if not path.is_file():
                raise ValueError(f"expected a program, found none at {path}")
            program = str(path)
        # The program runs in a folder of its own: scripts and data beside the campaign file need their full path.
        files = [path_in_campaign(item, info) if _may_be_file(item) else None for item in arguments]
        found = [
            str(file) if file is not None and file.is_file() else item
            for item, file in zip(arguments, files, strict=True)
        ]
        return (program, *found)

    @field_validator("folder")
    @classmethod
    def _resolve_folder(cls, folder: Path, info: ValidationInfo) -> Path:
        return path_in_campaign(folder, info)

    @field_validator("inputs")
    @classmethod
    def _inside(cls, inputs: dict[str, str]) -> dict[str, str]:
        return {plain_file_name(name): text for name, text in inputs.items()}

    @field_validator("failures")
    @classmethod
    def _compile(cls, failures: dict[str, str]) -> dict[str, str]:
        for pattern in failures.values():
            compiled(pattern)
        return failures

    @field_validator("pass_environment")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"expected names of environment variables, got {name!r}")
        return names

    @model_validator(mode="after")
    def _fits_together(self) -> CommandOracleConfig:
        check_media((*self.command[1:], *self.inputs.values(), self.stdin or ""), self.accepts)
        if self.value is None:
            for key in ("properties", "failures", "stdin", "fidelity"):
                if getattr(self, key):
                    raise ValueError(
                        f"{key} is for programs that do not speak the contract; say where value stands"
                    )
        elif self.persistent:
            raise ValueError("persistent is for programs that speak the contract; leave value out")
        if self.persistent and (self.inputs or any(map(placeholders_in, self.command[1:]))):
            raise ValueError("a persistent program is started once, so expected no placeholders and no inputs")
        return self

    def build(self) -> Oracle:
        """Looks the program up and returns the oracle; a persistent program starts with the first question.

        Raises:
            InputError: There is no such program, or a variable of ``pass_environment`` is not set.
        """
        from pilotwave_oracles.command_oracle import CommandOracle

        return CommandOracle(self)


def _may_be_file(argument: str) -> bool:
    return bool(argument) and not argument.startswith("-") and "\0" not in argument and len(argument) < 4096


__all__ = ["EX_TEMPFAIL", "PASSED_ON", "CommandOracleConfig", "Media"]
