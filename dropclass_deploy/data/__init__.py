"""Floor 1: data sets by name, as NumPy arrays of images and class ids."""
