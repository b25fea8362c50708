"""USR-LSH: an index of short codes that finds, inserts and forgets at once, without training.

The paper's abstract (unfold the optimisation of each instance's reconstruction) gives the principle; the
definition is a reconstruction and its coordinate-descent form is ours. docs/memory.md has it in full.

``compiling`` kernels, ``orthonormal`` axes, ``encoding``, ``scanning``, ``reranking``, then ``frame`` (what never
changes), ``slots`` (what is held), ``files`` and ``index``. May import numpy, numba (extra ``archive``) and
:mod:`pilotwave.errors`.
"""

from pilotwave.archive.usr_lsh.index import UsrLshIndex

__all__ = ["UsrLshIndex"]
