"""Cheap differentiable models of an oracle."""
