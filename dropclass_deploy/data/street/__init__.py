"""A procedural street: what ``synthetic:`` draws. NumPy only; every draw comes from the Generator that is passed in."""
