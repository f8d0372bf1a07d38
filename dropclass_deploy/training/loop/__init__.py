"""The loop: set up, step, validate, save, conclude."""
