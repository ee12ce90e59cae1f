"""Callbacks of the trainers: numbers that are not finite, signals, unreadable clips, epochs and seconds per step."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from transformers import TrainerCallback
from transformers.utils import logging

from ..data.clips import parts_of
from .checkpoints import RUN


logger = logging.get_logger(__name__)


class FollowEpochs(TrainerCallback):
    """
    Tells the training dataset, or the datasets of clips in `Subset`, `ConcatDataset` and other wrappers, about each
    epoch with `set_epoch`; accelerate tells at most the outermost one.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        dataset, epoch = self.trainer.train_dataset, int(state.epoch)
        for part in {id(part): part for part in (dataset, *parts_of(dataset))}.values():
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)


class FiniteNumbers(TrainerCallback):
    """Stops a run whose loss is not finite before the optimizer step, on all processes, with the clips of the step."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.micro_batches: list[tuple[torch.Tensor, list[str]]] = []  # loss and clips since the last optimizer step
        self.last_clips: list[str] = []  # of this process in the last step

    def on_train_begin(self, args, state, control, **kwargs):
        self.micro_batches = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        finite = torch.stack([loss.isfinite() for loss, _ in self.micro_batches]).all()
        micro_batches, self.micro_batches = self.micro_batches, []
        self.last_clips = [clip for _, clips in micro_batches for clip in clips]
        if self.accelerator.gather(finite[None]).all():
            return
        here = [
            f"{loss.item()} on process {args.process_index} (clips: {_listed(clips)})"
            for loss, clips in micro_batches
            if not loss.isfinite()
        ]
        raise RuntimeError(
            f"The loss of step {state.global_step + 1} is not finite: {'; '.join(gather_object(here))}. The weights "
            "have not been updated. Check these clips and their labels, or lower the learning rate (now "
            f"{optimizer.param_groups[0]['lr']:g}), then resume the run from its last checkpoint"
        )

    def refuse_broken_weights(self, model: nn.Module, step: int):
        """Raise `RuntimeError` if a weight is not finite, before it is saved."""
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise RuntimeError(
                f"The weights are not finite after step {step}, although its loss was finite. They are not saved. "
                f"Clips of this step on process {self.accelerator.process_index}: {_listed(self.last_clips)}"
            )


def _listed(clips: Sequence[str]) -> str:
    return ", ".join(clips) or "the dataset gives no names"


class StopOnSignal(TrainerCallback):
    """
    On SIGTERM or Ctrl-C, saves a checkpoint after the current step, on the same step of all processes, and ends the
    process with `SystemExit(143)` or `KeyboardInterrupt`. A second Ctrl-C stops at once.

    transformers' `enable_jit_checkpoint` saves between the forward pass and the optimizer step, so that a run with
    dropout or drop path resumes to other weights; each process may choose another step, and `train` returns as if it
    had finished.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.received = 0  # the number of the signal that this process received; 0 if none
        self.agreed = 0  # that for which all processes stop

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Context manager in which signals are recorded. Only the main thread can set signal handlers."""
        self.received = self.agreed = 0
        first, process = 0.0, os.getpid()

        def record(number: int, frame: object):
            nonlocal first
            # a launcher forwards a Ctrl-C that the terminal has sent to all processes: within 1 s they count as one
            if number == signal.SIGINT and self.received and time.monotonic() - first > 1:
                raise KeyboardInterrupt
            if not self.received:
                self.received, first = int(number), time.monotonic()
                # not from workers that were forked; and the signal may have interrupted a logger, which cannot nest
                if self.trainer.is_world_process_zero() and os.getpid() == process:
                    os.write(2, f"\n{signal.Signals(number).name}: training stops after this step\n".encode())

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, record) or signal.SIG_DFL
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def agree(self) -> int:
        """The signal that any process received; 0 if none. All processes must call it."""
        if self.trainer.args.world_size == 1:
            return self.received
        received = torch.tensor([self.received], device=self.trainer.args.device)
        return int(self.trainer.accelerator.gather(received).max())

    def on_step_end(self, args, state, control, **kwargs):
        self.agreed = self.agree()
        if self.agreed:
            # the sender of SIGTERM waits only seconds, which is too short for an evaluation
            control.should_save, control.should_evaluate, control.should_training_stop = True, False, True

    def on_save(self, args, state, control, **kwargs):
        if self.agreed:  # the Trainer would return as if all steps were done, and may delete the checkpoint
            self.trainer.callback_handler.on_train_end(args, state, control)  # TensorBoard writes what it holds back
            self.leave()

    def leave(self):
        """End the process as the signal requests, after all processes have finished writing."""
        self.trainer.accelerator.wait_for_everyone()
        folder, state = self.trainer.args.output_dir, self.trainer.state
        logger.warning(
            f"{folder}: stopped by {signal.Signals(self.agreed).name} after step {state.global_step} of "
            f"{state.max_steps}. A checkpoint was saved; resume with the same command, or with "
            "`train(resume_from_checkpoint=True)`"
        )
        raise KeyboardInterrupt if self.agreed == signal.SIGINT else SystemExit(128 + self.agreed)


class OwnSettings(TrainerCallback):
    """
    Gives a resumed run the learning rate, weight decay, betas and so on of its own arguments; the state of the
    optimizer, which is loaded from the checkpoint, contains those of the run before.
    """

    def take(self, optimizer: torch.optim.Optimizer):
        """Note the settings before those of a checkpoint are loaded."""
        self.settings = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in optimizer.param_groups
        ]

    def on_train_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        if state.global_step == 0:
            return
        if not isinstance(lr_scheduler, torch.optim.lr_scheduler.LambdaLR):
            logger.warning(
                f"the learning rate, weight decay and other settings of the optimizer are those of the checkpoint, "
                f"since a {type(lr_scheduler).__name__} changes them from step to step"
            )
            return
        for group, settings in zip(optimizer.param_groups, self.settings, strict=True):
            group.update(settings)
        lr_scheduler.base_lrs = [settings["initial_lr"] for settings in self.settings]
        rates = zip(lr_scheduler.base_lrs, lr_scheduler.lr_lambdas, strict=True)
        lr_scheduler._last_lr = [rate * factor(lr_scheduler.last_epoch) for rate, factor in rates]
        for group, rate in zip(optimizer.param_groups, lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate


class OwnSession:
    """
    A `worker_init_fn` of a DataLoader that puts each worker into a session of its own: Ctrl-C, and SIGTERM to a
    process group, then reach the trainer alone, which could not finish its step without its workers.
    """

    def __init__(self, init: Callable[[int], None] | None):
        self.init = init

    def __call__(self, worker: int):
        if hasattr(os, "setsid"):  # not on Windows
            os.setsid()
        if self.init is not None:
            self.init(worker)


class BrokenClips(TrainerCallback):
    """
    The training clips that could not be read and were replaced by other clips: they are listed in `broken_clips.jsonl`
    in the output folder, one JSON object per line, and the run stops if there are too many.

    Attributes:
        found: The unreadable clips of all processes, each with the reason.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.file = Path(trainer.args.output_dir, "broken_clips.jsonl")
        self.found: dict[str, str] = {}
        self._new: dict[str, str] = {}  # found by this process since the last log

    def on_train_begin(self, args, state, control, **kwargs):
        """Take the list of the run from its checkpoint if it is resumed; otherwise delete that of an earlier run."""
        self.found, self._new = dict(state.stateful_callbacks.get(RUN, {}).get("broken_clips", {})), {}
        if state.global_step == 0 and state.is_world_process_zero:
            self.file.unlink(missing_ok=True)

    def note(self, broken: Iterable[str]):
        """Record the broken clips of a batch: for each item, JSON of the form `{clip: reason}` or an empty string."""
        for found in broken:
            for clip, reason in json.loads(found or "{}").items():
                if clip not in self.found and clip not in self._new:
                    logger.warning(f"clip {clip} cannot be read and is replaced: {reason}")
                    self._new[clip] = reason

    def count(self) -> int:
        """
        Gather the broken clips of all processes, list the new ones in the file, and return their number.

        Raises:
            RuntimeError: If they are more than `args.max_broken_share` of the training clips.
        """
        trainer = self.trainer
        found = dict(gather_object(list(self._new.items()))) | self.found
        if len(found) > len(self.found) and trainer.is_world_process_zero():
            rows = [json.dumps({"clip": clip, "reason": reason}) + "\n" for clip, reason in found.items()]
            self.file.write_text("".join(rows), encoding="utf-8")
        self.found, self._new = found, {}
        if not found:
            return 0
        data = trainer.train_dataset
        sized = [data] if hasattr(data, "__len__") else parts_of(data)
        clips = sum(map(len, sized))
        if len(self.found) > trainer.args.max_broken_share * clips:
            listed = "; ".join(f"{clip}: {reason}" for clip, reason in list(self.found.items())[:20])
            raise RuntimeError(
                f"{len(self.found)} of {clips} training clips cannot be read, more than "
                f"max_broken_share={trainer.args.max_broken_share:g}: {listed}"
                f"{'; ...' if len(self.found) > 20 else ''}. The full list is in {self.file}"
            )
        return len(self.found)


class StepTimes(TrainerCallback):
    """Measures how long steps take, and how much of that time is spent waiting for clips, and warns of long waits."""

    def __init__(self):
        self.warned = False

    def on_train_begin(self, args, state, control, **kwargs):
        # -1: the first step is not counted, since it waits for workers to start and, when resumed, for skipped data
        self.steps, self.data, self.total, self.waiting = -1, 0.0, 0.0, 0.0

    def waited(self, seconds: float):
        """Record how long the trainer waited for the clips of the step that begins now."""
        self.waiting, self.began = seconds, time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if self.steps >= 0:
            self.data += self.waiting
            self.total += self.waiting + time.perf_counter() - self.began
        self.steps += 1

    def read(self, workers: int) -> dict[str, float]:
        """The mean seconds per step since the last call, to be logged; empty if no step was counted."""
        if self.steps < 1:
            return {}
        data, total = self.data / self.steps, self.total / self.steps
        self.steps, self.data, self.total = 0, 0.0, 0.0
        if data > total / 2 and not self.warned:
            self.warned = True
            logger.warning(
                f"{data:.2f} of the {total:.2f} s of a step are spent waiting for clips. Use more decoding processes "
                f"(dataloader_num_workers, now {workers}), or convert the videos with `dvflnet prepare` to small ones "
                "that are fast to seek in"
            )
        return {"data_seconds": data, "step_seconds": total}
