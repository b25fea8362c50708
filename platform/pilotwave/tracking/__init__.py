"""Writing a campaign down for people."""
