"""Training clips that cannot be read: counted over all processes, written down, and limited in number."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from accelerate.utils import gather_object
from transformers.utils import logging

from .checkpoints import free_space


logger = logging.get_logger(__name__)


class BrokenClips:
    """
    The clips that could not be read and were replaced by others.

    Args:
        folder: Where `broken_clips.jsonl` is written, a line a clip.

    Attributes:
        found: Clips and why they could not be read, of all processes.
    """

    def __init__(self, folder: str):
        self.file = Path(folder, "broken_clips.jsonl")
        self.found: dict[str, str] = {}
        self._new: dict[str, str] = {}  # of this process, since the last count

    def begin(self, resumed: bool, writes: bool):
        """Read back what a run that goes on had found; else remove what another run has left."""
        self.found, self._new = {}, {}
        if resumed and self.file.is_file():
            text = self.file.read_text(encoding="utf-8")
            for line in text.splitlines():
                with suppress(ValueError):  # half a line, at which the run was ended
                    row = json.loads(line)
                    self.found[row["clip"]] = row["reason"]
            if text and not text.endswith("\n") and writes:
                with open(self.file, "a", encoding="utf-8") as file:
                    file.write("\n")
        elif writes:
            self.file.unlink(missing_ok=True)

    def note(self, broken: Iterable[str]):
        """Take what a batch says of its clips: JSON of `{clip: reason}`, or empty, for each."""
        for found in broken:
            for clip, reason in json.loads(found or "{}").items():
                if clip not in self.found and clip not in self._new:
                    logger.warning(f"clip {clip} cannot be read and is replaced: {reason}")
                    self._new[clip] = reason

    def count(self, writes: bool) -> bool:
        """
        Bring together what the processes have found, and write it down.

        Args:
            writes: Whether this process writes the file.

        Returns:
            Whether there are new ones.
        """
        found = dict(gather_object(list(self._new.items())))
        new = {clip: reason for clip, reason in found.items() if clip not in self.found}
        self._new.clear()
        self.found.update(new)
        if new and writes:
            lines = "".join(json.dumps({"clip": clip, "reason": reason}) + "\n" for clip, reason in new.items())
            try:
                with open(self.file, "a", encoding="utf-8") as file:
                    file.write(lines)
            except OSError as error:  # what the log says too, and no reason to end the run
                logger.warning(
                    f"{self.file}: cannot be written ({error}; {free_space(self.file.parent)}), and lacks "
                    f"{', '.join(new)}"
                )
        return bool(new)

    def refuse_too_many(self, clips: int, max_share: float):
        """Raise `RuntimeError` if more than `max_share` of all `clips` training clips are broken."""
        if len(self.found) > max_share * clips:
            listed = "; ".join(f"{clip}: {reason}" for clip, reason in list(self.found.items())[:20])
            raise RuntimeError(
                f"{len(self.found)} of {clips} training clips cannot be read, more than "
                f"max_broken_share={max_share:g}: {listed}{'; ...' if len(self.found) > 20 else ''}. "
                f"All are in {self.file}"
            )


__all__ = ["BrokenClips"]
