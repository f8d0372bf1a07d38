"""Floor 2: training with DropClass, evaluation, and the run folder."""
