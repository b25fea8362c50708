from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.errors import RunDirectoryError
from pilotwave.report.ranking import best, failures
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.tables import best_table, failure_table, format_value, pretty_unit
from pilotwave.samples import ArraySample, MoleculeSample
from pilotwave.types import Evaluation, Status


def test_best_are_distinct_and_in_order(molecule_run: Path) -> None:
    run = RecordedRun.read(molecule_run)
    ranked = best(run, 10)
    assert [item.rank for item in ranked] == list(range(1, 9))  # one failed, one is there twice
    values = [item.value for item in ranked]
    assert values == sorted(values, reverse=True)
    assert len({item.label for item in ranked}) == 8
    everything = best(run, 100, distinct=False)
    assert len(everything) == 9
    ethanol = [item.value for item in everything if item.label == "CCO"]
    assert next(item.value for item in ranked if item.label == "CCO") == max(ethanol)
    assert best(run, 3) == ranked[:3]


def test_minimizing_puts_the_smallest_first(image_run: Path) -> None:
    values = [item.value for item in best(RecordedRun.read(image_run), 10)]
    assert len(values) == 6
    assert values == sorted(values)


def test_failures_are_counted_by_reason(molecule_run: Path) -> None:
    counts = {(item.status, item.stage): item for item in failures(RecordedRun.read(molecule_run))}
    assert counts["infeasible", "structure"].count == 2
    assert counts["infeasible", "structure"].message == "cumulene in a ring"
    assert counts["failed", "scf"].count == 1


def test_run_is_read_while_a_campaign_writes(molecule_run: Path) -> None:
    before = RecordedRun.read(molecule_run)
    with Ledger.open(molecule_run / "ledger.sqlite") as writer:
        writer.append(EventKind.RESERVED, {"query_id": "p0001-01", "attempt": 1})
        run = RecordedRun.read(molecule_run)
        assert run.state.sequence == before.state.sequence + 1
        assert best(run, 3) == best(before, 3)
    assert (run.name, run.oracle, run.unit, run.media) == (
        "polarizable",
        "xtb:polarizability",
        "bohr^3",
        "molecule",
    )


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no run here"):
        RecordedRun.read(tmp_path)


def test_a_run_that_has_only_begun_is_readable(make_run: Callable[..., Path]) -> None:
    run = RecordedRun.read(make_run([]))
    assert run.media is None
    assert best(run, 10) == []
    assert failures(run) == []


def test_a_changed_direction_is_refused_in_one_line(molecule_run: Path) -> None:
    (molecule_run / "campaign.yaml").write_text("objective: {direction: up}\n")
    with pytest.raises(RunDirectoryError, match="expected direction maximize or minimize"):
        RecordedRun.read(molecule_run)


def test_answers_from_memory_name_their_source(molecule_run: Path) -> None:
    with Ledger.open(molecule_run / "ledger.sqlite") as writer:
        writer.settle(EventKind.SETTLED, Evaluation("p0001-01", Status.OK, 900.0, reused_from="p0000-00"))
    first = best(RecordedRun.read(molecule_run), 1)[0]
    assert first.reused_from == "p0000-00"
    assert "= p0000-00" in _text(best_table([first]))


def test_table_tells_a_chemist_what_to_know(molecule_run: Path) -> None:
    run = RecordedRun.read(molecule_run)
    ranked = best(run, 10)
    text = _text(best_table(ranked, oracle=run.oracle, unit=run.unit, title="The ten best"))
    for word in (
        "polarizability",
        "(bohr³)",
        "SMILES",
        "SA",
        "score",
        "strain",
        "validity",
        "strict",
        "repaired 2 H",
        "The ten best",
    ):
        assert word in text
    for item in ranked:
        assert item.label in text
        assert item.query_id in text
    assert "not converged after 250 iterations" in _text(failure_table(failures(run)))


def test_table_of_arrays_has_no_chemistry(array_run: Path) -> None:
    text = _text(best_table(best(RecordedRun.read(array_run), 3)))
    assert "SMILES" not in text
    assert "validity" not in text


def test_brackets_in_smiles_are_not_markup(make_run: Callable[..., Path]) -> None:
    sample = MoleculeSample("\n\n\n  0  0\nM  END\n", "[bold]N[C@@H](C)C[nH][/]")
    text = _text(best_table(best(RecordedRun.read(make_run([sample])), 1)))
    assert sample.smiles in text


def test_a_large_run_is_read_in_parts(make_run: Callable[..., Path]) -> None:
    import numpy as np

    samples = [ArraySample(np.full(2, i, dtype=np.float32)) for i in range(150)]
    run = RecordedRun.read(make_run(samples, batch_size=50))
    assert [item.query_id for item in run.judged()] == list(run.drawn)
    assert len(run.drawn) == 153


@given(st.floats(-1e300, 1e300), st.lists(st.floats(-1e9, 1e9), max_size=5))
def test_values_read_back_to_four_digits(value: float, among: list[float]) -> None:
    largest = max(abs(value), *(abs(item) for item in among), 0)
    assert float(format_value(value, among)) == pytest.approx(value, abs=1e-4 * largest)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (127.8807, "127.88"),
        (0.0, "0.00000"),
        (-0.01234567, "-0.01235"),
        (2.5e7, "2.500000e+07"),
        (12345.6, "12346"),
    ],
)
def test_values_look_like_people_write_them(value: float, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("unit", "pretty"),
    [("bohr^3", "bohr³"), ("kJ mol^-1", "kJ mol⁻¹"), ("", ""), ("e^2/Å^2", "e²/Å²"), ("eV", "eV")],
)
def test_units_have_raised_exponents(unit: str, pretty: str) -> None:
    assert pretty_unit(unit) == pretty


def _text(table: object) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()
