"""Runs the contract suite on one oracle and says in a line each what holds."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave.config.components import OracleConfig
from pilotwave.errors import InputError, MissingDependencyError


@dataclass(frozen=True)
class Check:
    """One test of the contract.

    Attributes:
        what: What it makes sure of.
        outcome: ``"passed"``, ``"failed"`` or ``"skipped"``.
        why: One line, or "" if it passed.
    """

    what: str
    outcome: str
    why: str


def check_oracle(config: OracleConfig, samples: Path | None) -> list[Check]:
    """Runs the suite.

    Args:
        config: Of the oracle.
        samples: A file of samples that it must answer, or None for its known question.

    Raises:
        MissingDependencyError: pytest is not installed.
        InputError: There is nothing to ask: neither a file nor a known question.
        PilotwaveError: The oracle cannot be built, or the file not be read.
    """
    try:
        import pytest
    except ImportError as error:
        raise MissingDependencyError(
            "`pilotwave oracle test` needs pytest, which is not installed; run: pip install pytest"
        ) from error
    from pilotwave.report.input_files import read_samples
    from pilotwave.testing import installed_oracle

    built = config.build()
    if samples is None and built.known_answer() is None:
        raise InputError(f"oracle {built.name} has no known question; name a file of samples with --samples FILE")
    if samples is not None:
        read_samples(samples, config.media)
    checks: list[Check] = []

    class Listener:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                what = report.nodeid.rpartition("::test_")[2].replace("_", " ")
                checks.append(Check(what, report.outcome, _why(report)))

    arguments = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", os.path.dirname(os.devnull)]
    arguments += ["--import-mode=importlib", str(Path(installed_oracle.__file__))]
    os.environ[installed_oracle.UNDER_TEST] = installed_oracle.describe(config, samples)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            pytest.main(arguments, plugins=[Listener()])
    finally:
        del os.environ[installed_oracle.UNDER_TEST]
    if not checks:
        last = said.getvalue().strip().splitlines()[-1:] or ["it said nothing"]
        raise InputError(f"the contract's tests could not be run: {last[0]}")
    return checks


def _why(report: Any) -> str:
    if report.outcome == "skipped":
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    if report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash is not None else str(report.longrepr)
        return " ".join(text.split())[:400]
    return ""


__all__ = ["Check", "check_oracle"]
