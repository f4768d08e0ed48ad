"""A training: its plan, what is tried before it, its losses and optimizer, and the loop with all that watches it."""
