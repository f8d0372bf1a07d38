"""Floor 1: networks by name; each maps (N, 3, H, W) images to (N, C, H, W) logits."""
