"""Where workers are: asked once for each, anew when one has died or a name stands for another actor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="the Ray runtime needs the extra 'ray'")

from pilotwave_actors import places
from pilotwave_actors.places import AGAIN_SECONDS, Places


class Table:
    """Ray's, as far as it is asked: which node an actor is on, and how often somebody asked."""

    def __init__(self) -> None:
        self.nodes = {"0a": "n1", "0b": "n2"}
        self.handles = {"evaluator-0": handle(0x0A), "evaluator-1": handle(0x0B)}
        self.asked: list[str] = []
        self.now = 0.0

    def node_of(self, actor: str) -> str:
        self.asked.append(actor)
        return self.nodes.get(actor, "")


def handle(number: int) -> Any:
    return SimpleNamespace(_actor_id=bytes([number]))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    made = Table()
    monkeypatch.setattr(places, "_node_of", made.node_of)
    return made


def places_of(table: Table) -> Places:
    return Places(lambda: table.handles, lambda: table.now)


def test_each_is_asked_for_once(table: Table) -> None:
    where = places_of(table)
    for _ in range(3):
        assert where("evaluator-0") == {"actor": "0a", "node": "n1"}
        assert where("evaluator-1") == {"actor": "0b", "node": "n2"}
    assert table.asked == ["0a", "0b"]
    table.now += AGAIN_SECONDS
    assert where("evaluator-0") == {"actor": "0a", "node": "n1"}
    assert table.asked == ["0a", "0b"], "it is still the same actor"


def test_one_that_died_was_where_it_was_and_may_be_elsewhere_now(table: Table) -> None:
    where = places_of(table)
    where("evaluator-0")
    table.nodes["0a"] = ""
    assert where("evaluator-0", True) == {"actor": "0a", "node": "n1"}
    assert where("evaluator-0") == {"actor": "0a"}, "it is being made again"
    table.nodes["0a"] = "n2"
    assert where("evaluator-0") == {"actor": "0a", "node": "n2"}


def test_a_name_may_come_to_stand_for_another_actor(table: Table) -> None:
    where = places_of(table)
    where("evaluator-0")
    table.handles["evaluator-0"] = handle(0x0B)
    table.now += AGAIN_SECONDS
    assert where("evaluator-0") == {"actor": "0b", "node": "n2"}
    assert where("archive") == {}
    del table.handles["evaluator-1"]
    assert where("evaluator-1") == {}
