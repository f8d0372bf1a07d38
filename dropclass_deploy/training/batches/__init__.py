"""What a step is fed: samples drawn by step number, augmented in worker processes."""
