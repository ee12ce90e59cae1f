"""Tracking of unreadable training clips: counts them over all processes, lists them in a file, limits their number."""

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
    The training clips that could not be read and were replaced by other clips.

    Args:
        folder: Folder of the file `broken_clips.jsonl`, which has one line per clip.

    Attributes:
        found: The unreadable clips of all processes, each with the reason.
    """

    def __init__(self, folder: str):
        self.file = Path(folder, "broken_clips.jsonl")
        self.found: dict[str, str] = {}
        self._new: dict[str, str] = {}  # found by this process since the last count

    def begin(self, resumed: bool, writes: bool):
        """Load the list of the interrupted run if it is resumed; otherwise delete the list of an earlier run."""
        self.found, self._new = {}, {}
        if resumed and self.file.is_file():
            text = self.file.read_text(encoding="utf-8")
            for line in text.splitlines():
                with suppress(ValueError):  # incomplete line: the run was killed while writing it
                    row = json.loads(line)
                    self.found[row["clip"]] = row["reason"]
            if text and not text.endswith("\n") and writes:
                with open(self.file, "a", encoding="utf-8") as file:
                    file.write("\n")
        elif writes:
            self.file.unlink(missing_ok=True)

    def note(self, broken: Iterable[str]):
        """Record the broken clips of a batch: for each item, JSON of the form `{clip: reason}` or an empty string."""
        for found in broken:
            for clip, reason in json.loads(found or "{}").items():
                if clip not in self.found and clip not in self._new:
                    logger.warning(f"clip {clip} cannot be read and is replaced: {reason}")
                    self._new[clip] = reason

    def count(self, writes: bool) -> bool:
        """
        Gather the broken clips of all processes and append the new ones to the file.

        Args:
            writes: Whether this process writes the file.

        Returns:
            Whether there are new broken clips.
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
            except OSError as error:  # the log lists the clips too, so the run can continue
                logger.warning(
                    f"{self.file}: cannot be written ({error}; {free_space(self.file.parent)}); these broken clips "
                    f"are missing from it: {', '.join(new)}"
                )
        return bool(new)

    def refuse_too_many(self, clips: int, max_share: float):
        """Raise `RuntimeError` if more than `max_share` of the `clips` training clips are broken."""
        if len(self.found) > max_share * clips:
            listed = "; ".join(f"{clip}: {reason}" for clip, reason in list(self.found.items())[:20])
            raise RuntimeError(
                f"{len(self.found)} of {clips} training clips cannot be read, more than "
                f"max_broken_share={max_share:g}: {listed}{'; ...' if len(self.found) > 20 else ''}. "
                f"The full list is in {self.file}"
            )


__all__ = ["BrokenClips"]
