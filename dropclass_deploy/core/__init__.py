"""Floor 0: what every room shares. Depends on NumPy and pydantic, never on torch."""
