"""Every chart of the package, in one look."""
