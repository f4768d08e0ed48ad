"""What lies in a run directory, and the checkpoints in it."""
