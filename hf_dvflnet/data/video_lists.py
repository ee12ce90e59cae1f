"""Moved to `video_files`; importers follow in the last commit of this series."""

from .video_files import read_video_list  # noqa: F401
