"""What an oracle's faults may cost, in every runtime: that evaluation's attempt and nothing else; as tests.

Every runtime passes it besides :class:`pilotwave.testing.runtime_contract.RuntimeContract`. A class of its own,
because a runtime whose workers take seconds to start wants to run it less often. May import: pytest and the core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.protocols import QueryContext
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, is_due
from pilotwave.testing.small_campaign import campaign, state_of
from pilotwave.types import Status

MIB = 2**20
ROOM = 512 * MIB
"""More than a small oracle holds, by far."""


class FaultsContract:
    """Tests of what goes wrong in oracles."""

    def runtime(self, **settings: Any) -> dict[str, Any]:
        """Returns the ``runtime`` section of a campaign file with these settings."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        ("fault", "stage"),
        [
            ("raise", "injected"),
            ("segfault", "worker"),
            ("exit 137", "worker"),
            ("garbage", "worker"),
            ("out of memory", "memory limit"),
        ],
    )
    def test_retryable_failures_are_tried_again_and_cost_nothing_else(
        self, tmp_path: Path, fault: Any, stage: str
    ) -> None:
        oracle = FaultyOracleConfig(
            fault=fault, every=5, attempts=4, backoff_seconds=0.05, megabytes=1024, memory_limit=ROOM
        )
        result = campaign(oracle, self.runtime(evaluators=2), queries=16).run(tmp_path / "run")
        state = state_of(result.run_dir)
        assert (state.spent, state.answered, state.failed) == (16, 16, 0)
        with Ledger.open(result.run_dir / "ledger.sqlite", read_only=True) as ledger:
            lost = [event.evaluation() for event in ledger.events() if event.kind is EventKind.ATTEMPTED]
        assert lost
        assert {item.failure.stage for item in lost if item.failure is not None} == {stage}
        assert state.spending.ended == 16 + len(lost)

    @pytest.mark.parametrize(("fault", "rate"), [("raise", 0.01), ("not a number", 0.3), ("raise", 1.0)])
    def test_exactly_those_fail_whose_question_failed(self, tmp_path: Path, fault: Any, rate: float) -> None:
        # With a known question that fails too, nothing would ever be paid.
        oracle = FaultyOracleConfig(fault=fault, rate=rate, attempts=1, knows=False)
        patient = {"maximum_rate": 1.0, "window": 100}
        result = campaign(oracle, self.runtime(evaluators=3), queries=48, failures=patient).run(tmp_path / "run")
        settled = state_of(result.run_dir).settled
        assert len(settled) == 48
        expected = {query_id for query_id in settled if is_due(oracle, QueryContext(query_id, 1))}
        assert {query_id for query_id, item in settled.items() if item.status is not Status.OK} == expected
        assert all(item.value is None for item in settled.values() if item.status is not Status.OK)
        assert (rate < 1.0) or len(expected) == 48

    def test_a_slow_leak_costs_no_attempt(self, tmp_path: Path) -> None:
        pids = tmp_path / "pids"
        oracle = FaultyOracleConfig(fault="leak", megabytes=60, memory_limit=ROOM, pid_file=pids)
        result = campaign(oracle, self.runtime(evaluators=1), queries=20).run(tmp_path / "run")
        state = state_of(result.run_dir)
        assert (state.answered, state.attempted) == (20, 0)
        assert len(pids.read_text().split()) >= 3


__all__ = ["FaultsContract"]
