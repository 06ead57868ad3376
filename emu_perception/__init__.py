"""Semantic class, metric depth and the uncertainty of both, from one camera image."""

__version__ = "0.1.0"
