"""Models as folders: written, read, described and pushed; published checkpoints converted."""
