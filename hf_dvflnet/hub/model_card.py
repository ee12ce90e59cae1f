"""Moved to `model_folder`; importers follow in the last commit of this series."""

from .model_folder import describe_config  # noqa: F401
