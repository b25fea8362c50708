"""Oracles and constraints of pilotwave, one outside tool per file."""
