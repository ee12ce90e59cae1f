"""
The command line, `dvflnet`.

It lies outside the package and imports it inside the commands: importing the package loads torch and transformers, and
`dvflnet --help` should not wait for these.
"""

from .commands import app, main


__all__ = ["app", "main"]
