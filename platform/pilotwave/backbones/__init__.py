"""Diffusion and flow models behind one interface."""
