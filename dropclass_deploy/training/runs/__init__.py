"""The run folder: its files, its checkpoints, and reading it back."""
