"""The command line, `dvflnet`."""

from .app import app, main


__all__ = ["app", "main"]
