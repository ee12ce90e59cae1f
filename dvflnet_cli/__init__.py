"""
The command line `dvflnet`.

It is separate from the package and imports it only inside the commands: importing the package loads torch and
transformers, and `dvflnet --help` should not wait for these.
"""

from .commands import app, main


__all__ = ["app", "main"]
