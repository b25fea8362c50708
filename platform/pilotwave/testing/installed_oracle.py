"""The contract suite for an oracle that is named from outside: what ``pilotwave oracle test`` runs.

The environment variable :data:`UNDER_TEST` holds a pickled configuration and the path of a samples file, or none.
May import pytest and pilotwave.
"""

from __future__ import annotations

import base64
import os
import pickle
from pathlib import Path

from pilotwave.config.components import OracleConfig
from pilotwave.report.input_files import read_samples
from pilotwave.samples import Sample
from pilotwave.testing.oracle_contract import OracleContract

UNDER_TEST = "PILOTWAVE_ORACLE_UNDER_TEST"


def describe(config: OracleConfig, samples: Path | None) -> str:
    """Returns the text for :data:`UNDER_TEST`."""
    return base64.b64encode(pickle.dumps((config, samples))).decode()


class TestInstalledOracle(OracleContract):
    """See :class:`pilotwave.testing.oracle_contract.OracleContract`."""

    def config(self) -> OracleConfig:
        """Returns the configuration that was named."""
        config, _ = pickle.loads(base64.b64decode(os.environ[UNDER_TEST]))
        assert isinstance(config, OracleConfig)
        return config

    def samples(self) -> list[Sample]:
        """Returns the samples of the file that was named, or the oracle's known one."""
        _, path = pickle.loads(base64.b64decode(os.environ[UNDER_TEST]))
        if path is None:
            return super().samples()
        return [item.sample for item in read_samples(path, self.config().media)]


__all__ = ["UNDER_TEST", "TestInstalledOracle", "describe"]
