from __future__ import annotations

from typing import Any

from pilotwave.testing.faults_contract import FaultsContract
from pilotwave.testing.runtime_contract import RuntimeContract


class TestInlineRuntime(RuntimeContract, FaultsContract):
    def runtime(self, **settings: Any) -> dict[str, Any]:
        return {"kind": "inline", **settings}
