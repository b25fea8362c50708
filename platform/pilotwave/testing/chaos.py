"""Chaos: a real campaign on a real Ray cluster, killed again and again, and judged by what its oracle recorded.

    chaos = Chaos(folder, [Leg(PrivateCluster(), 60, {"evaluator": 2, "driver": 1})])
    report = chaos.run()
    assert not report.verdict.broken

The campaign is one file and the commands ``pilotwave run`` and ``pilotwave resume``. It may move on: a leg ends
when so many queries have ended, then the driver is killed and the campaign resumed at the next leg's place. What
happened is written down in the folder, so that an interrupted chaos goes on where it was. May import the core.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.errors import PilotwaveError
from pilotwave.testing.call_record import read_calls
from pilotwave.testing.chaos_checks import Kill, Verdict, judge
from pilotwave.testing.chaos_places import Place

_CAMPAIGN = """
name: chaos
backbone: {{kind: analytic, dim: 6, steps: 3}}
oracle: {{kind: python, function: "recorded.py:score", version: "1", attempts: 10, backoff_seconds: 0.1}}
objective: {{direction: minimize}}
algorithm: {{kind: fast-direct, step_size: 0.5}}
budget: {{queries: {queries}, batch_size: 16}}
runtime: {{kind: ray, evaluators: {evaluators}}}
seed: {seed}
"""
SLOW = 10.0
"""Mean seconds of a question while a node comes back, or while few queries are left for the kills to come: the
campaign must not be over meanwhile."""

_ORACLE = """
from pathlib import Path
from typing import Any

from pilotwave.testing.call_record import RecordedScore

score = RecordedScore(Path({record!r}), Path({pace!r}))
"""


@dataclass(frozen=True)
class Leg:
    """A part of the campaign.

    Attributes:
        place: Where it runs.
        until: How many queries have ended when the next leg begins.
        kills: How many of each kind.
    """

    place: Place
    until: int
    kills: Mapping[str, int]


@dataclass(frozen=True)
class Strike:
    """A kill to come: of what, once so many queries have ended, and some seconds later."""

    kind: str
    after: int
    pause: float


@dataclass(frozen=True)
class Report:
    """What came of a chaos.

    Attributes:
        verdict: On its promises.
        kills: As they were.
        resumes: How often the campaign was resumed.
        needed: How many kills had left it without a driver; so many resumes are due.
        ends: How many of those kills had not been the driver's: it ended in one line, with exit code 4.
        seconds: Wall time in which it was at work.
        standstill: The longest time without an answer.
    """

    verdict: Verdict
    kills: Sequence[Kill]
    resumes: int
    needed: int
    ends: int
    seconds: float
    standstill: float


class Chaos:
    """A campaign and its schedule of kills.

    Args:
        folder: For the campaign, its run directory, and the records beside it.
        legs: In order; the last one's ``until`` is the budget.
        seconds: Mean time of a question.
        evaluators: How many.
        seed: Of the campaign and of the schedule.
        say: Told of what happens, a line each.
        patience: Seconds without an answer that are too long.
    """

    def __init__(
        self,
        folder: Path,
        legs: Sequence[Leg],
        *,
        seconds: float = 0.3,
        evaluators: int = 4,
        seed: int = 0,
        say: Callable[[str], None] = lambda line: None,
        patience: float = 240.0,
    ) -> None:
        self._folder = folder
        self._legs = legs
        self._queries = legs[-1].until
        self._seconds = seconds
        self._random = random.Random(seed)
        self._say = say
        self._patience = patience
        self.run_dir = folder / "run"
        self._record = folder / "calls"
        self._pace = folder / "pace"
        self._log = folder / "driver.log"
        self._kills_file = folder / "kills"
        self._seen_file = folder / "seen"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"queries": self._queries, "evaluators": evaluators, "seed": seed}
        (folder / "campaign.yaml").write_text(_CAMPAIGN.format(**settings))
        (folder / "recorded.py").write_text(_ORACLE.format(record=str(self._record), pace=str(self._pace)))
        self._set_pace(seconds)
        self.kills = [Kill(**{**line, "victims": tuple(line["victims"])}) for line in _lines(self._kills_file)]
        self._seen: dict[str, float | None] = {
            key: value for line in _lines(self._seen_file) for key, value in line
        }
        self._totals_file = folder / "totals"
        totals = json.loads(self._totals_file.read_text()) if self._totals_file.exists() else {}
        self._resumes: int = totals.get("resumes", 0)
        self._needed: int = totals.get("needed", 0)
        self._earlier: float = totals.get("seconds", 0.0)
        self._began = time.monotonic()
        self._broken: list[str] = totals.get("broken", [])
        self._ends: int = totals.get("ends", 0)
        self._kills_at_start = 0
        self._driver: subprocess.Popen[bytes] | None = None
        self._schedules = [self._schedule(place) for place in range(len(legs))]

    def run(self) -> Report:
        """Runs the campaign to its end under all strikes, and judges it.

        Raises:
            AssertionError: It stood still for longer than the patience.
        """
        self._began = time.monotonic()
        try:
            self._run_all()
        finally:
            self._save_totals()
            if self._driver is not None and self._driver.poll() is None:  # whoever goes on takes it up again
                self._driver.kill()
                self._driver.wait()
        verdict = judge(self.run_dir, self._queries, read_calls(self._record), self.kills, self._seen)
        verdict.broken += self._broken
        counts = self._resumes, self._needed, self._ends
        return Report(verdict, self.kills, *counts, self._seconds_so_far(), self._standstill())

    def _run_all(self) -> None:
        done = len(self.kills)
        self._needed += bool(done)  # its driver was killed when this was stopped
        driver: subprocess.Popen[bytes] | None = None
        for number, leg in enumerate(self._legs):
            strikes = self._schedules[number][done:]
            done = max(0, done - len(self._schedules[number]))
            if not strikes and number < len(self._legs) - 1:
                continue
            driver = self._drive(leg.place)
            for place, strike in enumerate(strikes):
                driver = self._strike(leg, strike, driver, len(strikes) - place)
                if driver is None:  # the campaign's last driver here was killed on purpose, to move on
                    break
        assert driver is not None
        self._set_pace(self._seconds)
        self._finish(self._legs[-1].place, driver)

    def _seconds_so_far(self) -> float:
        return self._earlier + time.monotonic() - self._began

    def _save_totals(self) -> None:
        counts = {"resumes": self._resumes, "needed": self._needed, "ends": self._ends}
        totals = {**counts, "seconds": self._seconds_so_far(), "broken": self._broken}
        self._totals_file.write_text(json.dumps(totals))

    def _schedule(self, number: int) -> list[Strike]:
        """Spreads a leg's kills over its queries at random; all but the last end with a killed driver."""
        leg = self._legs[number]
        start = self._legs[number - 1].until if number else 0
        kinds = [kind for kind, count in sorted(leg.kills.items()) for _ in range(count)]
        unknown = set(kinds) - leg.place.kinds
        assert not unknown, f"{leg.place.name} has no {unknown}"
        self._random.shuffle(kinds)
        last = number == len(self._legs) - 1
        if not last:
            assert "driver" in kinds, "moving on takes the kill of a driver"
            kinds.remove("driver")
        room = range(start + 1, start + max(2, int(0.97 * (leg.until - start))))
        moments = sorted(self._random.choice(room) for _ in kinds)
        strikes = [
            Strike(kind, at, self._random.uniform(0.0, 0.6)) for kind, at in zip(kinds, moments, strict=True)
        ]
        return strikes if last else [*strikes, Strike("driver", leg.until, 0.0)]

    def _strike(
        self, leg: Leg, strike: Strike, driver: subprocess.Popen[bytes], to_come: int
    ) -> subprocess.Popen[bytes] | None:
        place = leg.place
        settled = self._look()
        scarce = leg.until - settled < 3 * to_come
        self._set_pace(SLOW if scarce and settled >= strike.after else self._seconds)
        driver = self._wait(place, driver, lambda settled: settled >= strike.after)
        time.sleep(strike.pause)
        kill: Kill | None = None

        def struck(settled: int) -> bool:
            nonlocal kill, driver
            driver = self._alive(place, driver)  # one that ended by itself is replaced before the strike
            kill = place.strike(strike.kind, driver, settled, self._random)
            return kill is not None

        if scarce or place.mends_slowly(strike.kind):
            self._set_pace(SLOW)
        self._wait(place, driver, struck, replace=False)
        assert kill is not None
        self.kills.append(kill)
        _append(self._kills_file, dataclasses.asdict(kill))
        took = kill.ended - kill.began
        self._say(
            f"{len(self.kills)}: {kill.kind} on {place.name} after {kill.settled} answers"
            f"{', the optimizer with it' if kill.ends_optimizer else ''} ({took:.1f} s)"
        )
        if strike.kind == "driver" or place.ends_driver(strike.kind):
            self._ended(driver, killed=strike.kind == "driver")
            self._needed += 1
            moves_on = strike.after == leg.until
            driver = driver if moves_on else self._drive(place)
            place.mend(strike.kind, driver)
            return None if moves_on else driver
        place.mend(strike.kind, driver)
        return driver

    def _set_pace(self, seconds: float) -> None:
        fresh = self._pace.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._pace)

    def _drive(self, place: Place) -> subprocess.Popen[bytes]:
        """Runs the campaign, or resumes it."""
        begun = (self.run_dir / "ledger.sqlite").exists()
        self._resumes += begun
        self._kills_at_start = len(self.kills)
        arguments = ["resume", "run"] if begun else ["run", "campaign.yaml", "--run-dir", "run"]
        self._driver = place.drive(arguments, self._folder, self._log)
        return self._driver

    def _ended(self, driver: subprocess.Popen[bytes], *, killed: bool) -> None:
        """Waits for a driver that cannot live on; one that was not killed itself says so in one line."""
        try:
            code = driver.wait(90)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            self._broken.append("a driver whose cluster had died did not end")
            return
        if not killed and code != 4:
            self._broken.append(f"a driver whose cluster had died ended with {code}: {self._tail(300)}")

    def _alive(self, place: Place, driver: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Returns the driver, or another one if it has ended though nothing had been done to it."""
        code = driver.poll()
        if code is None:
            return driver
        if code == 4 and len(self.kills) > self._kills_at_start:  # a kill may cost one resume
            self._needed += 1
            self._ends += 1
            self._say(f"the driver ended in one line and is resumed: {self._tail(200)}")
            return self._drive(place)
        assert code != 0, f"the campaign was over before it was struck: {len(self.kills)} kills so far"
        self._broken.append(f"a driver ended with {code} by itself: {self._tail(300)}")
        self._say(self._broken[-1])
        return self._drive(place)

    def _wait(
        self,
        place: Place,
        driver: subprocess.Popen[bytes],
        happened: Callable[[int], bool],
        *,
        replace: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Looks at the ledger again and again until it has come to something."""
        settled, since = -1, time.monotonic()
        while not happened(now := self._look()):
            if now != settled:
                settled, since = now, time.monotonic()
            stuck = time.monotonic() - since
            assert stuck < self._patience, f"nothing was answered for {stuck:.0f} s: {self._tail(3000)}"
            if replace:
                driver = self._alive(place, driver)
            time.sleep(0.03)
        return driver

    def _look(self) -> int:
        """Returns how many queries have ended, and remembers how."""
        try:
            with Ledger.open(self.run_dir / "ledger.sqlite", read_only=True) as ledger:
                ended = [event.evaluation() for event in ledger.events() if event.kind is EventKind.SETTLED]
        except PilotwaveError:  # none yet
            return 0
        fresh = [(item.query_id, item.value) for item in ended if item.query_id not in self._seen]
        if fresh:
            self._seen.update(fresh)
            _append(self._seen_file, fresh)
        if len(ended) < len(self._seen):
            missing = self._seen.keys() - {item.query_id for item in ended}
            self._broken.append(f"answers that were there are missing: {sorted(missing)[:3]}")
        return len(ended)

    def _finish(self, place: Place, driver: subprocess.Popen[bytes]) -> None:
        def ended(settled: int) -> bool:
            nonlocal driver
            if driver.poll() == 4 and len(self.kills) > self._kills_at_start:
                driver = self._alive(place, driver)
            return driver.poll() is not None

        self._wait(place, driver, ended, replace=False)
        if driver.returncode != 0:
            self._broken.append(f"the last driver ended with {driver.returncode}: {self._tail(300)}")
        deadline = time.monotonic() + 60
        while (left := place.left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        if left:
            self._broken.append(f"processes were left: {left}")

    def _standstill(self) -> float:
        with Ledger.open(self.run_dir / "ledger.sqlite", read_only=True) as ledger:
            moments = [event.time for event in ledger.events() if event.kind is EventKind.SETTLED]
        return max((later - sooner for sooner, later in itertools.pairwise(moments)), default=0.0)

    def _tail(self, characters: int) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " ".join(text[-characters:].split())


def _append(path: Path, what: object) -> None:
    with path.open("a") as stream:
        stream.write(json.dumps(what) + "\n")


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


__all__ = ["Chaos", "Leg", "Report", "Strike"]
