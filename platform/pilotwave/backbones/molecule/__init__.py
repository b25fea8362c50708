"""The built-in small-molecule diffusion model: united atoms, nine slots, elements C N O F.

This file stays empty of imports on purpose: `import pilotwave` must work without RDKit, and only the
modules beside it (imported when a campaign uses molecules) may load torch or RDKit.
"""
