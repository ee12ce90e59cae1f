"""DVFL-Net and Video-FocalNet for transformers. Importing this package registers them with the Auto classes."""

__version__ = "0.1.0.dev0"

__all__ = ["__version__"]
