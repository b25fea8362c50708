"""Tuning: searches the fields of a campaign over tasks and seeds; every trial is a set of real campaigns."""
