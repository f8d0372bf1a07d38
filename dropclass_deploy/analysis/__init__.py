"""Floor 3: pages and pictures made from stored results."""
