"""Commands and costs outlive a forgetting: a reduced ledger keeps what was ordered and what was paid."""

from __future__ import annotations

from pathlib import Path

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.reduced_ledger import reduce_ledger, settle_into_one_file
from pilotwave.archive.spending import Limits
from pilotwave.archive.state import CampaignState


def state_of(path: Path) -> CampaignState:
    with Ledger.open(path, read_only=True) as ledger:
        return CampaignState.of(ledger.events())


def test_a_reduced_ledger_keeps_commands_and_what_was_paid(array_run: Path) -> None:
    path = array_run / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        limits = Limits(40, cost=12.5).to_json()
        order = {"id": "a", "command": "set", "argument": "budget.cost=12.5", "refused": "", "limits": limits}
        ledger.append(EventKind.CONTROLLED, order)
        ledger.append(EventKind.CONTROLLED, {"id": "b", "command": "pause", "argument": "", "refused": ""})
        # One that was asked and whose end nobody knows.
        ledger.append(EventKind.RESERVED, {"query_id": "p0000-09", "attempt": 1, "cost": 2.5})
    before = state_of(path)
    assert (before.spending.ended, before.spending.committed) == (6.0, 8.5)
    settle_into_one_file(path)
    reduce_ledger(path, {"p0000-01", "p0000-09"}, receipt="r", queries=2)
    after = state_of(path)
    assert (after.limits.now, after.paused, after.controls) == (Limits(40, cost=12.5), True, {"a", "b"})
    assert after.spent == before.spent
    assert after.spending.committed == before.spending.committed
    assert "p0000-01" not in after.settled
    # A second one leaves it at that.
    reduce_ledger(path, {"p0000-02"}, receipt="s", queries=1)
    again = state_of(path)
    assert (again.spent, again.spending.committed, again.paused) == (before.spent, 8.5, True)


def test_a_ledger_from_before_there_were_costs_and_limits_counts_one_an_attempt(array_run: Path) -> None:
    state = state_of(array_run / "ledger.sqlite")
    assert state.limits.now == Limits(6)
    assert (state.spending.ended, state.spending.held, state.paused) == (6.0, {}, False)
