"""Step timing of a run, and its final report with the training curves."""

import time
from pathlib import Path

from transformers import Trainer
from transformers.utils import logging

from ..plots.charts import save_training_curves
from .broken_clips import BrokenClips


logger = logging.get_logger(__name__)


class StepClock:
    """Measures how long the steps take, and how much of that time is spent waiting for clips."""

    def __init__(self):
        self.begin()

    def begin(self):
        self.warned = False
        # -1: the first step is not counted, since it waits for workers to start and, when resumed, for skipped data
        self.steps, self.data, self.total, self.current = -1, 0.0, 0.0, 0.0

    def waited(self, seconds: float):
        self.current = seconds
        self.since = time.perf_counter()

    def stepped(self):
        if self.steps >= 0:
            self.data += self.current
            self.total += self.current + time.perf_counter() - self.since
        self.steps += 1

    def read(self) -> tuple[float, float] | None:
        """Mean seconds per step since the last call: waiting for data, and in total. None if no step was counted."""
        if self.steps < 1:
            return None
        times = self.data / self.steps, self.total / self.steps
        self.steps, self.data, self.total = 0, 0.0, 0.0
        return times

    def warn_of_waiting(self, data: float, total: float, workers: int):
        """Warn once if more than half of a step, `total` seconds, is spent waiting for data."""
        if data > total / 2 and not self.warned:
            self.warned = True
            logger.warning(
                f"{data:.2f} of the {total:.2f} s of a step are spent waiting for clips. Use more decoding processes "
                f"(dataloader_num_workers, now {workers}), or convert the videos with `dvflnet prepare` to small ones "
                "that are fast to seek in"
            )


def write_report(trainer: Trainer, broken: BrokenClips, batch_size: int):
    """
    Write `training_curves.png` and `training_report.md` into the output folder.

    `batch_size` is the batch size per process, which `auto_find_batch_size` may have reduced below that in the
    arguments.
    """
    args, state = trainer.args, trainer.state
    folder, history = Path(args.output_dir), state.log_history
    save_training_curves(history, folder / "training_curves.png", title=folder.name)
    last: dict[str, float] = {}
    for entry in history:
        last.update(entry)
    lines = [
        f"# Training of {folder.name}",
        "",
        f"{state.global_step} steps of {args.world_size} x {args.gradient_accumulation_steps} x "
        f"{batch_size} clips (processes, accumulated batches, clips), "
        f"{last.get('epoch', 0):g} epochs, seed {args.seed}.",
        "",
        "![curves](training_curves.png)",
        "",
        "| last logged | |",
        "|---|---|",
        *(f"| {name} | {value:.6g} |" for name, value in last.items() if isinstance(value, (int, float))),
        "",
        f"Unreadable training clips: {len(broken.found) or 'none'}"
        + (f", replaced by others and listed in {broken.file.name}" if broken.found else ""),
    ]
    (folder / "training_report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


__all__ = ["StepClock", "write_report"]
