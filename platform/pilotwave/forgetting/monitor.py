"""The drift monitor: whether the answers of a run, or of an archive's question, depend on when they were given.

It is asked by ``pilotwave archive drift`` and looks at every campaign that ends. May import numpy, errors and the
modules beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pilotwave.errors import PilotwaveError
from pilotwave.forgetting.answers import answers_of_run
from pilotwave.forgetting.corrective import JudgedAnswer
from pilotwave.forgetting.drift import FEWEST_ANSWERS, DriftResult, drift


def drift_among(answers: Sequence[JudgedAnswer]) -> DriftResult:
    """Tests answers to one question; those whose latents are of another size than the first one's are left out."""
    alike = [item for item in answers if len(item.latent) == len(answers[0].latent)]
    latents = np.stack([item.latent for item in alike]) if alike else np.zeros((0, 1))
    return drift(latents, [item.value for item in alike], [item.time for item in alike])


def drift_in_words(found: DriftResult) -> str:
    """Returns the result as a line."""
    if found.answers < FEWEST_ANSWERS:
        return f"{found.answers} answers are too few to tell ({FEWEST_ANSWERS} are needed)"
    if found.since is None:
        return f"no drift seen in {found.answers} answers (p = {found.p_value:.3g})"
    when = f"{datetime.fromtimestamp(found.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"answers changed around {when}: by {found.shift:+.1f} standard deviations of what the samples do not "
        f"explain (p = {found.p_value:.3g}, {found.answers} answers); check the oracle, then "
        "pilotwave forget --corrective"
    )


def drift_warning(run_dir: Path) -> str:
    """Returns a line if the oracle of a run seems to have begun to answer differently, else an empty text.

    It never raises for a run that cannot be tested (its model is not here any more, say): a campaign that ended
    well must not end in an error of its monitor.
    """
    try:
        found = drift_among(answers_of_run(run_dir))
    except PilotwaveError:
        return ""
    return drift_in_words(found) if found.alarmed else ""


__all__ = ["drift_among", "drift_in_words", "drift_warning"]
