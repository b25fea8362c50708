"""Checks that what a campaign needs is installed and works here."""
