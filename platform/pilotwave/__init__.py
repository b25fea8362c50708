"""pilotwave steers generative diffusion models with expensive black-box oracles."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("pilotwave")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

if TYPE_CHECKING:
    from pilotwave.campaign import Campaign, CampaignResult, optimize
    from pilotwave.tuning.study import Study, StudyResult

__all__ = ["Campaign", "CampaignResult", "Study", "StudyResult", "__version__", "optimize"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: an oracle's process imports pilotwave too and must start fast.
    if name in ("Campaign", "CampaignResult", "optimize"):
        from pilotwave import campaign

        return getattr(campaign, name)
    if name in ("Study", "StudyResult"):
        from pilotwave.tuning import study

        return getattr(study, name)
    raise AttributeError(f"module 'pilotwave' has no attribute {name!r}")
