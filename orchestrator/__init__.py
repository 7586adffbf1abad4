"""The service: its edge, and how everything is put together."""

__version__ = "0.1.0"
