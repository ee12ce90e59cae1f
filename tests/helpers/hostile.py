"""What must never run when a file is opened."""


class Command:
    """Unpickled, opens a file for writing."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))
