"""Floor 3: from a trained network to the artifact folder."""
