"""Samplers with explicit noise sequences, one per file."""
