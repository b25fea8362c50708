"""The error family: every error a user can meet, each with the exit code of the command line.

May import nothing of pilotwave. A message is one line that says what was expected, what came, and how
to mend it; the command line prints it without a traceback.
"""

from __future__ import annotations


class PilotwaveError(Exception):
    """The root of all errors that pilotwave raises on purpose.

    Attributes:
        exit_code: What the command line returns when this error ends a command.
    """

    exit_code: int = 4


class InputError(PilotwaveError):
    """What the user gave is wrong: a campaign file, a path, an option. Nothing was paid for."""

    exit_code = 2


class ConfigError(InputError):
    """A campaign or study file is wrong; the message names the key."""


class CheckpointError(InputError):
    """A model file is missing, truncated, of another model or of another version."""


class MissingDependencyError(InputError):
    """A package that the chosen part needs is not installed; the message names the extra to install."""


class RunDirectoryError(InputError):
    """A run directory is missing, belongs to another campaign, or is in use by another process."""


class PreflightError(InputError):
    """The oracle did not give the known answer on its known candidate, so no query was paid."""


class BreakerError(PilotwaveError):
    """Too many evaluations failed, or too few candidates were feasible: the campaign was stopped."""

    exit_code = 3


class InfrastructureError(PilotwaveError):
    """The machine, the cluster or the storage failed; what was answered is in the ledger."""

    exit_code = 4


class StorageError(InfrastructureError):
    """The ledger or a checkpoint could not be written (a full disk, a lost mount) or read."""


class TakenOverError(StorageError):
    """Somebody else writes this ledger now: whoever was cut off and came back must not write beside them."""


class InterruptedCampaign(PilotwaveError):
    """The user stopped the campaign; everything was saved."""

    exit_code = 130


class OracleFailure(PilotwaveError):
    """Raised by an oracle for one candidate that it could not evaluate.

    Args:
        message: One line: what went wrong.
        stage: The stage of the work that failed, e.g. ``"parse"``, ``"scf"``, ``"relax"``.
        retryable: True if another attempt at the same candidate may succeed (a lost connection), False if
            failing is a property of the candidate or of the method.
        cost: What the attempt cost in the oracle's own unit; None: the usual cost of an attempt without an answer.
    """

    def __init__(self, message: str, *, stage: str, retryable: bool = False, cost: float | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.retryable = retryable
        self.cost = cost

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_oracle_failure, (str(self), self.stage, self.retryable, self.cost))


def _rebuild_oracle_failure(message: str, stage: str, retryable: bool, cost: float | None = None) -> OracleFailure:
    return OracleFailure(message, stage=stage, retryable=retryable, cost=cost)


__all__ = [
    "BreakerError",
    "CheckpointError",
    "ConfigError",
    "InfrastructureError",
    "InputError",
    "InterruptedCampaign",
    "MissingDependencyError",
    "OracleFailure",
    "PilotwaveError",
    "PreflightError",
    "RunDirectoryError",
    "StorageError",
]
