from __future__ import annotations

from typing import Any

from pilotwave.testing.runtime_contract import RuntimeContract


class TestInlineRuntime(RuntimeContract):
    def runtime(self, **settings: Any) -> dict[str, Any]:
        return {"kind": "inline", **settings}
