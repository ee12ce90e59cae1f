"""What is seen of a run: how long its steps take, and the report with its curves."""

import time
from pathlib import Path

from transformers import Trainer

from ..plots.charts import save_training_curves
from .broken_clips import BrokenClips


class StepClock:
    """How long steps take, and how much of that is waiting for clips."""

    def __init__(self):
        self.begin()

    def begin(self):
        self.warned = False
        # the first step of a run waits for workers to start and, where it is resumed, for what is passed over
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
        """Mean seconds of data and of all of a step since the last time."""
        if self.steps < 1:
            return None
        times = self.data / self.steps, self.total / self.steps
        self.steps, self.data, self.total = 0, 0.0, 0.0
        return times


def write_report(trainer: Trainer, broken: BrokenClips, batch_size: int):
    """
    Write `training_curves.png` and `training_report.md` into the output folder.

    `batch_size` is that of one process, which `auto_find_batch_size` may have made smaller than the arguments say.
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
