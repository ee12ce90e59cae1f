"""Moved to `charts`; importers follow in the last commit of this series."""

from .charts import COLOUR_MAP, FONT_SIZE, LINE_COLOURS, SMALL_FONT_SIZE, styled, text_width, wrapped  # noqa: F401
