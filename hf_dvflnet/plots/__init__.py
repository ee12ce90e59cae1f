"""Draws all charts of the package, in one style."""
