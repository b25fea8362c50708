"""The durable memory of all answers."""
