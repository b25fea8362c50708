"""Where a campaign is tracked in MLflow, as its run directory remembers it. May import the standard library."""

from __future__ import annotations

from dataclasses import dataclass

HANDLE_FILE = "mlflow.json"
KEY_TAG = "pilotwave.key"


@dataclass(frozen=True)
class RunHandle:
    """Where a campaign is tracked; kept in ``mlflow.json``.

    Attributes:
        tracking_uri: Of the database or server.
        key: Ours, written down before the run is made, so that a kill in between leaves no second run.
        experiment_id: MLflow's.
        run_id: MLflow's, or None until it is made.
    """

    tracking_uri: str
    key: str
    experiment_id: str | None = None
    run_id: str | None = None


__all__ = ["HANDLE_FILE", "KEY_TAG", "RunHandle"]
