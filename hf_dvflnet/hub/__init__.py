"""Models as folders: saved, read, converted, described and pushed."""
