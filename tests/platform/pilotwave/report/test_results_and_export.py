from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rdkit import Chem

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.errors import InputError, MissingDependencyError, StorageError
from pilotwave.report.export import export_run
from pilotwave.report.export_format import ExportFormat
from pilotwave.report.learning_curve import learning_curve, learning_curve_csv
from pilotwave.report.molecules import draw_molecules, molecules_sdf
from pilotwave.report.ranking import best
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.results import existing_results, write_results
from pilotwave.samples import MoleculeSample
from pilotwave.types import Evaluation, Status


def test_results_of_molecules(molecule_run: Path) -> None:
    results = write_results(molecule_run)
    assert list(results.files) == ["structures", "picture", "learning_curve", "learning_data", "evaluations"]
    assert existing_results(molecule_run) == results.files
    assert results.skipped == {}
    assert len(results.best) == 8
    for path in results.paths():
        assert path.stat().st_size > 0
    assert sorted((molecule_run / "results").iterdir()) == sorted(results.paths())


def test_results_can_be_written_again(molecule_run: Path) -> None:
    first = write_results(molecule_run).files["evaluations"].read_text()
    with Ledger.open(molecule_run / "ledger.sqlite") as writer:
        writer.settle(EventKind.SETTLED, Evaluation("p0001-01", Status.OK, 900.0))
    second = write_results(molecule_run)
    assert second.best[0].value == 900.0
    assert second.files["evaluations"].read_text() != first
    assert not [path for path in (molecule_run / "results").iterdir() if path.name.startswith(".")]


def test_results_of_images_and_arrays(image_run: Path, array_run: Path) -> None:
    assert list(write_results(image_run).files) == ["picture", "learning_curve", "learning_data", "evaluations"]
    assert list(write_results(array_run).files) == ["learning_curve", "learning_data", "evaluations"]


def test_results_of_a_run_that_has_only_begun(make_run: Callable[..., Path]) -> None:
    results = write_results(make_run([]))
    assert results.best == ()
    assert results.files["learning_data"].read_text().startswith("batch,queries,answered")


def test_a_missing_package_costs_only_its_file(molecule_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    results = write_results(molecule_run)
    assert set(results.skipped) == {"picture", "learning_curve"}
    assert "pip install" in results.skipped["learning_curve"]
    assert set(existing_results(molecule_run)) == {"structures", "learning_data", "evaluations"}


def test_sdf_keeps_structure_and_knowledge(molecule_run: Path) -> None:
    run = RecordedRun.read(molecule_run)
    ranked = best(run, 10)
    supplier = Chem.SDMolSupplier()
    supplier.SetData(molecules_sdf(ranked, oracle=run.oracle, unit=run.unit), removeHs=False)
    read = list(supplier)
    assert len(read) == len(ranked)
    for mol, item in zip(read, ranked, strict=True):
        assert isinstance(item.sample, MoleculeSample)
        assert mol.GetProp("_Name") == item.query_id
        assert float(mol.GetProp("value")) == item.value  # every digit
        assert mol.GetProp("unit") == "bohr^3"
        assert float(mol.GetProp("synthetic_accessibility")) == 3.21
        assert float(mol.GetProp("energy_hartree")) == item.properties["energy_hartree"]
        assert Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False) == item.label
        original = Chem.MolFromMolBlock(item.sample.mol_block, removeHs=False)
        np.testing.assert_allclose(mol.GetConformer().GetPositions(), original.GetConformer().GetPositions())


def test_drawing_has_a_card_per_molecule(molecule_run: Path) -> None:
    ranked = best(RecordedRun.read(molecule_run), 10)
    picture = Image.open(io.BytesIO(draw_molecules(ranked, unit="bohr^3", columns=5))).convert("RGB")
    assert picture.size == (5 * 380, 2 * 340)
    pixels = np.asarray(picture)
    cards = [pixels[340 * (i // 5) :, 380 * (i % 5) :][:340, :380] for i in range(10)]
    ink = [(card.sum(axis=2) < 300).sum() for card in cards]
    assert all(count > 300 for count in ink[:8])  # formula and captions
    assert ink[8:] == [0, 0]
    with pytest.raises(ValueError, match="at least one molecule"):
        draw_molecules([])


def test_an_odd_smiles_is_drawn_from_its_structure(molecules: list[MoleculeSample], make_run: Callable) -> None:
    odd = MoleculeSample(molecules[0].mol_block, "not a SMILES")
    assert draw_molecules(best(RecordedRun.read(make_run([odd])), 1)).startswith(b"\x89PNG")


def test_learning_curve_counts_every_query_once(molecule_run: Path) -> None:
    run = RecordedRun.read(molecule_run)
    first, second = learning_curve(run)
    assert (first.queries, first.answered, first.failed, first.infeasible) == (5, 5, 0, 1)
    assert (second.queries, second.answered, second.failed, second.infeasible) == (10, 4, 1, 1)
    values = [item.value for item in list(run.state.settled.values())[:5] if item.value is not None]
    assert first.mean == pytest.approx(np.mean(values))
    assert first.spread == pytest.approx(np.std(values))
    assert first.best == first.best_so_far == max(values)
    assert second.best_so_far == best(run, 1)[0].value
    rows = list(csv.DictReader(io.StringIO(learning_curve_csv([first, second]))))
    assert float(rows[1]["best_so_far"]) == second.best_so_far


def test_learning_curve_minimizes_and_leaves_what_is_unknown_empty(image_run: Path, make_run: Callable) -> None:
    points = learning_curve(RecordedRun.read(image_run))
    assert points[-1].best_so_far == min(point.best for point in points if point.best is not None)
    run_dir = make_run([])
    with Ledger.open(run_dir / "ledger.sqlite") as writer:
        writer.append(EventKind.ASKED, {"proposal": 0, "count": 2})
        record = {"proposal": 0, "query_ids": [], "feasible": [], "passes": 1, "seconds": 0.1}
        writer.add_candidates([], record)
        writer.append(EventKind.ASKED, {"proposal": 1, "count": 2})
    (only,) = learning_curve(RecordedRun.read(run_dir))
    assert (only.mean, only.best_so_far, only.queries) == (None, None, 0)
    assert write_results(run_dir).files["learning_curve"].exists()


def test_csv_has_every_candidate(molecule_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "all.csv"
    run = RecordedRun.read(molecule_run)
    assert export_run(run, ExportFormat.CSV, output) == 12
    rows = {row["query_id"]: row for row in csv.DictReader(output.open())}
    assert rows["p0000-00.1"]["status"] == "infeasible"
    assert rows["p0000-00.1"]["reason"] == "structure: cumulene in a ring"
    assert rows["p0001-01"]["status"] == "failed"
    assert rows["p0001-01"]["value"] == ""
    assert rows["p0001-01"]["reason"] == "scf: not converged after 250 iterations"
    assert float(rows["p0000-02"]["value"]) == run.state.settled["p0000-02"].value
    assert float(rows["p0000-02"]["property.strain"]) == 0.4


def test_parquet_has_typed_columns(molecule_run: Path, tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    output = tmp_path / "all.parquet"
    run = RecordedRun.read(molecule_run)
    assert export_run(run, ExportFormat.PARQUET, output) == 12
    table = parquet.read_table(output)
    types = {field.name: field.type for field in table.schema}
    assert types["value"] == types["cost"] == types["property.energy_hartree"] == arrow.float64()
    assert types["started"] == arrow.timestamp("us", tz="UTC")
    assert types["strictly_valid"] == arrow.bool_()
    rows = {row["query_id"]: row for row in table.to_pylist()}
    assert rows["p0000-02"]["value"] == run.state.settled["p0000-02"].value
    assert rows["p0000-02"]["started"] == datetime.fromtimestamp(1_700_000_002.0, UTC)
    assert rows["p0000-00.1"]["value"] is None
    assert export_run(run, ExportFormat.PARQUET, output, 3) == 3
    assert parquet.read_table(output)["query_id"].to_pylist() == [item.query_id for item in best(run, 3)]


def test_parquet_without_rows_keeps_its_columns(make_run: Callable[..., Path], tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    assert export_run(RecordedRun.read(make_run([])), ExportFormat.PARQUET, tmp_path / "none.parquet") == 0
    assert "value" in parquet.read_table(tmp_path / "none.parquet").column_names


def test_pictures_and_structures(molecule_run: Path, image_run: Path, tmp_path: Path) -> None:
    molecules, images = RecordedRun.read(molecule_run), RecordedRun.read(image_run)
    assert export_run(molecules, ExportFormat.SDF, tmp_path / "a.sdf", 2) == 2
    assert (tmp_path / "a.sdf").read_text().count("$$$$") == 2
    assert export_run(molecules, ExportFormat.SDF, tmp_path / "a.sdf") == 8
    assert export_run(molecules, ExportFormat.PNG, tmp_path / "a.png", 3) == 3
    assert Image.open(tmp_path / "a.png").size == (3 * 380, 340)
    assert export_run(images, ExportFormat.PNG, tmp_path / "b.png") == 6
    assert Image.open(tmp_path / "b.png").size[0] >= 5 * 28


@pytest.mark.parametrize("format", [ExportFormat.PNG, ExportFormat.SDF])
def test_arrays_have_no_picture(array_run: Path, tmp_path: Path, format: ExportFormat) -> None:
    with pytest.raises(InputError, match=r"got 'array'; use --format csv or parquet"):
        export_run(RecordedRun.read(array_run), format, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_nothing_to_export_and_bad_counts(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = RecordedRun.read(make_run([]))
    with pytest.raises(InputError, match="nothing to export"):
        export_run(run, ExportFormat.SDF, tmp_path / "x")
    with pytest.raises(InputError, match="expected 1 or more, got 0"):
        export_run(run, ExportFormat.CSV, tmp_path / "x", 0)


def test_missing_pyarrow_names_the_extra(
    molecule_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pilotwave\[report\]"):
        export_run(RecordedRun.read(molecule_run), ExportFormat.PARQUET, tmp_path / "x")


@pytest.mark.parametrize("format", list(ExportFormat))
def test_a_place_that_cannot_be_written_is_said(molecule_run: Path, tmp_path: Path, format: ExportFormat) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        export_run(RecordedRun.read(molecule_run), format, tmp_path / "file" / "x")
