"""Train segmentation models that do not fail on rare classes; ship the plain model with proof, class by class."""

__version__ = "0.1.0"
