"""Load, memory and faults of a running server: what ``benchmarks/serving.py`` is made of."""
