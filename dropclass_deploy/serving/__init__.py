"""Floor 2: running, verifying and timing an artifact, without torch."""
