"""A grid of training runs, stored cell by cell: what ``benchmarks/evidence.py`` is made of."""
