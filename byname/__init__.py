"""byname labels images by the names of their classes."""

__version__ = "0.1.0"
