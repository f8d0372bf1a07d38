"""Lower precisions: float16, INT8, and INT8 with the fewest blocks in float32 with which every class passes."""
