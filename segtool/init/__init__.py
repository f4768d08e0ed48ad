"""What `init` does: it reads a folder as it is and proposes a config, with the reason of each choice."""
