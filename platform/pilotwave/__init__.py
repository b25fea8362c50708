"""pilotwave steers generative diffusion models with expensive black-box oracles."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pilotwave")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
