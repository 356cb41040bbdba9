"""What the machine has, and what fits on it."""
