from __future__ import annotations

from pilotwave.algorithms.trust_direct import TrustDirect
from pilotwave.config.components import AlgorithmSetting
from pilotwave.testing.algorithm_contract import AlgorithmContract


class TestTrustDirect(AlgorithmContract):
    def make_algorithm(self, setting: AlgorithmSetting) -> TrustDirect:
        return TrustDirect(setting)
