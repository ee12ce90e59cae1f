"""Training a video classifier with transformers' Trainer, by the published recipe where that is asked for."""

import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from ..data.augmentation import mix_clips
from ..data.clips import VideoClipStream, collate_clips
from ..data.loader_workers import naming_clips_of_dead_workers
from ..plots.charts import save_training_curves
from .metrics import compute_top_k_metrics


logger = logging.get_logger(__name__)


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """
    transformers' [`TrainingArguments`] and what the published recipe needs beside them.

    Raises:
        ValueError: If a value is out of range.
    """

    published_schedule: bool = field(
        default=False,
        metadata={
            "help": "The published schedule instead of `lr_scheduler_type`: a cosine over all steps, whose beginning "
            "a linear warm-up (`warmup_steps`) replaces."
        },
    )
    min_learning_rate: float = field(
        default=0.0, metadata={"help": "Where the published schedule's warm-up begins and its cosine ends."}
    )
    reference_batch_size: int | None = field(
        default=None,
        metadata={"help": "The global batch size that learning rates are given for; they are scaled to the real one."},
    )
    mixup_alpha: float = field(default=0.0, metadata={"help": "Of mixup's Beta distribution; 0 turns it off."})
    cutmix_alpha: float = field(
        default=0.0, metadata={"help": "Of cutmix's Beta distribution; with mixup, each gets half the batches."}
    )
    max_broken_share: float = field(
        default=0.01,
        metadata={"help": "Share of the training clips that may be unreadable, and replaced, before the run stops."},
    )
    dataloader_timeout: float = field(
        default=600.0,
        metadata={"help": "Seconds without a batch after which a worker that decodes is taken to hang; 0 waits on."},
    )
    # what clips carry beside pixels and labels (their names, a teacher's logits) is no argument of a model
    remove_unused_columns: bool = field(default=False, metadata={"help": "As in transformers; false by default."})
    # it would hide a loss that is no number, which stops the run, and ask the device about every micro-batch
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "As in transformers; false by default."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("min_learning_rate", "mixup_alpha", "cutmix_alpha", "max_broken_share", "dataloader_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.reference_batch_size is not None and self.reference_batch_size < 1:
            raise ValueError(f"reference_batch_size must be at least 1, got {self.reference_batch_size}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate={self.min_learning_rate} is above learning_rate={self.learning_rate}")

    @property
    def learning_rate_scale(self) -> float:
        """Real global batch size by the one that the learning rates are given for; 1 without a reference."""
        if self.reference_batch_size is None:
            return 1.0
        return _clips_per_step(self) / self.reference_batch_size


class VideoClassificationTrainer(Trainer):
    """
    transformers' [`Trainer`] for video classification. What differs:

    - weight decay leaves out every 1-D parameter: biases, norms and layer scales, as in the published recipe;
    - labels are class ids of shape (batch,) or probabilities of shape (batch, num_labels), and
      `args.label_smoothing_factor` smooths both while training;
    - top-1 and top-5 accuracy are computed unless `compute_metrics` is given;
    - a training dataset with a method `set_epoch` is told each epoch; a [`~video_dataset.VideoClipStream`] is split
      among the processes, and what a resumed run has seen of it is passed over without decoding;
    - `train(resume_from_checkpoint=True)` takes the last checkpoint that is whole;
    - logged beside the loss: `step_seconds`, of which `data_seconds` were spent waiting for clips, and, where broken
      clips are replaced, `broken_clips`, how many there were. `broken_clips.jsonl` in the output folder names them,
      and above `args.max_broken_share` of all training clips the run stops;
    - a worker that dies or hangs is reported with the clip that it was at;
    - a loss that is no finite number stops the run before the weights take it up, with the step and the names of the
      clips, of every process; weights that are not finite are not saved;
    - SIGTERM and Ctrl-C stop the run after the step that it is at, with a checkpoint, whatever `args.save_strategy`
      says, but without an evaluation that is due; `train` then ends in `SystemExit(143)` or `KeyboardInterrupt`. A
      second Ctrl-C stops at once. Workers of the loader outlive the signal where they are forked, as on Linux up to
      Python 3.13; elsewhere it ends them, and the run without a checkpoint, if it is sent to them too;
    - a checkpoint that cannot be written, as on a full disk, stops the run with its folder's name;
    - `save_report` leaves curves and a summary in the output folder;
    - with [`VideoTrainingArguments`], the published schedule, learning rates scaled with the global batch, and mixup
      and cutmix, drawn from the run's seed, the step, the micro-batch and the rank.

    Accepts what [`Trainer`] accepts. Items of the datasets are `{"pixel_values", "labels"}`, as those of
    [`~video_dataset.VideoClipDataset`] are; strings in them are not handed to the model.
    """

    # the loss is a mean over the micro-batch, which the Trainer has to divide by their number
    loss_is_scaled_for_ga = False

    def __init__(self, *args, **kwargs):
        kwargs["compute_metrics"] = kwargs.get("compute_metrics") or compute_top_k_metrics
        kwargs["data_collator"] = kwargs.get("data_collator") or collate_clips
        super().__init__(*args, **kwargs)
        self.broken: dict[str, str] = {}  # clips that could not be read, and why, of all processes
        self._newly_broken: dict[str, str] = {}
        self._clock = _Clock()
        self._micro_batches: list[tuple[torch.Tensor, list[str]]] = []  # loss and clips, since the last update
        self._last_clips: list[str] = []
        self._signal = 0  # what this process was told
        self._stopped_by = 0  # and what all processes have agreed on
        self.add_callback(_FollowRun(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args.output_dir, self.args.world_size)
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir}: holds no whole checkpoint to go on from")
        if resume_from_checkpoint:
            self._refuse_other_steps(resume_from_checkpoint)
        with naming_clips_of_dead_workers(self.train_dataset, self.eval_dataset):
            with self._heeding_signals():
                output = super().train(resume_from_checkpoint, *args, **kwargs)
            told = max(gather_object([self._signal]))  # by all, or those that were told would wait for the others
            if told:  # in the evaluation after the last step
                if self.args.save_strategy == "no":
                    self._save_checkpoint(self.model, trial=None)
                self.leave(told)
            return output

    # what is trained on

    def get_train_dataloader(self) -> DataLoader:
        stream = self.train_dataset
        if isinstance(stream, VideoClipStream):
            stream.share(self._train_batch_size, self.args.process_index, self.args.world_size)
            # not prepared by accelerate, which would have the main process read for all
            loader: Any = DataLoader(
                stream,
                batch_size=None,
                num_workers=self.args.dataloader_num_workers,
                pin_memory=self.args.dataloader_pin_memory,
                persistent_workers=self.args.dataloader_persistent_workers,
                prefetch_factor=self.args.dataloader_prefetch_factor,
            )
        else:
            loader = super().get_train_dataloader()
        return self._with_timeout(loader)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        return self._with_timeout(super().get_eval_dataloader(eval_dataset))

    def _with_timeout(self, loader: Any) -> DataLoader:
        if self.args.dataloader_num_workers:
            base = getattr(loader, "base_dataloader", loader)
            base.timeout = getattr(self.args, "dataloader_timeout", 0)
            if multiprocessing.get_start_method() == "fork" and base.multiprocessing_context is None:
                base.multiprocessing_context = _deaf_workers()
                base.worker_init_fn = partial(_start_deaf_worker, base.worker_init_fn)
        return loader

    def num_examples(self, dataloader: DataLoader) -> int:
        if isinstance(dataloader.dataset, VideoClipStream):
            stream = dataloader.dataset
            return len(stream) * stream.batch_size * stream.processes
        return super().num_examples(dataloader)

    def get_batch_samples(self, *args, **kwargs):
        began = time.perf_counter()
        batches = super().get_batch_samples(*args, **kwargs)
        self._clock.waited(time.perf_counter() - began)
        return batches

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # strings tell which clips these are, which is not for the model to know
        names = {key: inputs.pop(key) for key in ("clip", "broken") if key in inputs}
        for found in names.get("broken", ()):
            for clip, reason in json.loads(found or "{}").items():
                if clip not in self.broken and clip not in self._newly_broken:
                    logger.warning(f"clip {clip} cannot be read and is replaced: {reason}")
                    self._newly_broken[clip] = reason
        return super()._prepare_inputs(inputs)

    def _count_broken(self):
        """Bring together what the processes have found, write it down, and stop the run if it is too much."""
        if getattr(self.train_dataset, "on_error", "raise") != "replace":
            return
        found = dict(gather_object(list(self._newly_broken.items())))
        new = {clip: reason for clip, reason in found.items() if clip not in self.broken}
        self._newly_broken.clear()
        if not new:
            return
        self.broken.update(new)
        if self.is_world_process_zero():
            lines = "".join(json.dumps({"clip": clip, "reason": reason}) + "\n" for clip, reason in new.items())
            try:
                with open(self._broken_file, "a", encoding="utf-8") as file:
                    file.write(lines)
            except OSError as error:  # what the log says too, and no reason to end the run
                logger.warning(
                    f"{self._broken_file}: cannot be written ({error}; {_free(self._broken_file.parent)}), and lacks "
                    f"{', '.join(new)}"
                )
        clips = getattr(self.train_dataset, "num_clips", None) or len(self.train_dataset)
        limit = getattr(self.args, "max_broken_share", 0.01)
        if len(self.broken) > limit * clips:
            listed = "; ".join(f"{clip}: {reason}" for clip, reason in list(self.broken.items())[:20])
            raise RuntimeError(
                f"{len(self.broken)} of {clips} training clips cannot be read, more than max_broken_share={limit:g}: "
                f"{listed}{'; ...' if len(self.broken) > 20 else ''}. All are in {self._broken_file}"
            )

    @property
    def _broken_file(self) -> Path:
        return Path(self.args.output_dir, "broken_clips.jsonl")

    # how it is trained

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        for group in optimizer.param_groups:
            group["lr"] *= getattr(self.args, "learning_rate_scale", 1.0)
        return optimizer

    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if not self.lr_scheduler and getattr(self.args, "published_schedule", False):
            floor = self.args.min_learning_rate / self.args.learning_rate
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: published_schedule(step, num_training_steps, warmup_steps, floor),
            )
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, model, inputs, *args, **kwargs):
        clips = list(inputs.get("clip", ()))
        mixup, cutmix = (getattr(self.args, name, 0.0) for name in ("mixup_alpha", "cutmix_alpha"))
        if mixup or cutmix:
            step = (self.args.seed, self.state.global_step, self._micro_batch(), self.args.process_index)
            inputs["pixel_values"], shares = mix_clips(
                inputs["pixel_values"],
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                seed=int(np.random.SeedSequence(step).generate_state(1)[0]),
            )
            self.mix_targets(inputs, shares, self.accelerator.unwrap_model(model).config.num_labels)
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._micro_batches.append((loss, clips))
        return loss

    def before_update(self):
        """
        What is asked once a step, when the gradients are there and the weights are still those of the step before: is
        the loss a number, and is any process told to stop?

        All processes come to the same answer, so that none waits for another that has stopped.
        """
        finite = torch.stack([loss.isfinite() for loss, _ in self._micro_batches])
        found = torch.stack([~finite.all(), torch.tensor(self._signal, device=finite.device)])
        if self.args.world_size > 1:
            found = self.accelerator.gather(found[None]).amax(0)
        diverged, self._stopped_by = (int(value) for value in found.tolist())
        micro_batches, self._micro_batches = self._micro_batches, []
        self._last_clips = [clip for _, clips in micro_batches for clip in clips]
        if diverged:
            here = [
                f"{loss.item()} on process {self.args.process_index} for the clips {_listed(clips)}"
                for loss, clips in micro_batches
                if not loss.isfinite()
            ]
            raise RuntimeError(
                f"The loss of step {self.state.global_step + 1} is no finite number: {'; '.join(gather_object(here))}."
                " The weights have not taken it up, and nothing is saved of this step. Look at these clips and their "
                f"labels, or lower the learning rate, now {self._get_learning_rate():g}; then the run can go on from "
                "its last checkpoint"
            )

    def mix_targets(self, inputs: dict[str, Any], shares: torch.Tensor, num_labels: int):
        """Labels of mixed clips: what each is made of, (batch, batch), by what each of those is."""
        inputs["labels"] = shares @ smooth_labels(inputs["labels"], num_labels, smoothing=0.0).to(shares)

    def _micro_batch(self) -> int:
        """Which of the batches that make up the current step this one is."""
        return len(self._micro_batches)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        smoothing = self.args.label_smoothing_factor
        if smoothing and model.training:
            num_labels = self.accelerator.unwrap_model(model).config.num_labels
            inputs = {**inputs, "labels": smooth_labels(inputs["labels"], num_labels, smoothing)}
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    # how it is stopped

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Within, SIGTERM and Ctrl-C are noted, for `before_update` to see."""
        self._signal = self._stopped_by = 0
        first = 0.0

        def note(number: int, frame: object):
            nonlocal first
            # a launcher passes on the Ctrl-C that the terminal has already told everybody of
            if number == signal.SIGINT and self._signal and time.monotonic() - first > 1:
                raise KeyboardInterrupt
            if not self._signal:
                self._signal, first = int(number), time.monotonic()
                if self.is_world_process_zero():  # a logger may be at work just now, and cannot be entered twice
                    os.write(2, f"\n{signal.Signals(number).name}: stops after this step\n".encode())

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # no other can be told
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, note) or signal.SIG_DFL
        try:
            yield
        finally:
            for told, handler in before.items():
                signal.signal(told, handler)

    def leave(self, number: int):
        """End the process as the signal asks, when all processes have written what they had to."""
        self.accelerator.wait_for_everyone()
        logger.warning(
            f"{self.args.output_dir}: stopped by {signal.Signals(number).name} after step {self.state.global_step} of "
            f"{self.state.max_steps}, with a checkpoint that the run can go on from"
        )
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _save_checkpoint(self, model, trial):
        self._refuse_broken_weights()
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        about = {"processes": self.args.world_size, "clips_per_step": _clips_per_step(self.args)}
        self.state.stateful_callbacks[_RUN] = about  # the one place in trainer_state.json for what others add
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            whole = last_whole_checkpoint(folder.parent, self.args.world_size)
            raise OSError(
                f"{folder}: the checkpoint cannot be written ({error}; {_free(folder.parent)}). Make room, or see to "
                f"what else is wrong there; then the run can go on from {whole or 'its beginning'}"
            ) from error

    def _refuse_other_steps(self, checkpoint: str | os.PathLike):
        """Raise `ValueError` if an epoch had another number of steps when the checkpoint was written."""
        if self.args.max_steps > 0 or not Path(checkpoint, "trainer_state.json").is_file():
            return
        about, here = _about_run(Path(checkpoint)), _clips_per_step(self.args)
        before = about.get("clips_per_step", here)
        if before != here:
            raise ValueError(
                f"{checkpoint}: was written with {before} clips a step (processes: {about['processes']}), and now "
                f"there are {here} (processes: {self.args.world_size}), so that an epoch would have other steps. Set "
                f"per_device_train_batch_size and gradient_accumulation_steps so that there are {before} again, or "
                "train into another folder"
            )

    def _refuse_broken_weights(self):
        weights = (getattr(parameter, "_local_tensor", parameter) for parameter in self.model.parameters())
        if not all(weight.isfinite().all() for weight in weights):
            raise RuntimeError(
                f"The weights are not finite after step {self.state.global_step}, although its loss was: "
                f"nothing is written of them. Its clips on process {self.args.process_index} were "
                f"{_listed(self._last_clips)}"
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        if not _internal_call:
            self._refuse_broken_weights()
        folder = output_dir or self.args.output_dir
        try:
            super().save_model(output_dir, _internal_call)
        except (OSError, RuntimeError, SafetensorError) as error:
            if _internal_call:  # as part of a checkpoint
                raise
            raise OSError(f"{folder}: the model cannot be written ({error}; {_free(Path(folder))})") from error

    # what is seen and kept of it

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs or "train_loss" in logs:
            self._count_broken()
            if self.broken:
                logs["broken_clips"] = len(self.broken)
        if "loss" in logs and (times := self._clock.read()) is not None:
            logs["data_seconds"], logs["step_seconds"] = times
            if times[0] > times[1] / 2 and not self._clock.warned and self.is_local_process_zero():
                self._clock.warned = True
                logger.warning(
                    f"{times[0]:.2f} of the {times[1]:.2f} s of a step are spent waiting for clips. More decoding "
                    f"processes help (dataloader_num_workers, now {self.args.dataloader_num_workers}), and so do "
                    "clips that are small and quick to seek in (`dvflnet prepare`)"
                )
        super().log(logs, start_time)

    def save_report(self):
        """
        Write `training_curves.png` (loss and its parts, accuracies, agreement, learning rate, seconds a step) and
        `training_report.md` (how it ended, how long it took, which clips were broken) into the output folder.

        Both are of the whole run, also where it was resumed.
        """
        if not self.is_world_process_zero():
            return
        folder, history = Path(self.args.output_dir), self.state.log_history
        save_training_curves(history, folder / "training_curves.png", title=folder.name)
        last: dict[str, float] = {}
        for entry in history:
            last.update(entry)
        lines = [
            f"# Training of {folder.name}",
            "",
            f"{self.state.global_step} steps of {self.args.world_size} x {self.args.gradient_accumulation_steps} x "
            f"{self.args.train_batch_size} clips (processes, accumulated batches, clips), "
            f"{last.get('epoch', 0):g} epochs, seed {self.args.seed}.",
            "",
            "![curves](training_curves.png)",
            "",
            "| last logged | |",
            "|---|---|",
            *(f"| {name} | {value:.6g} |" for name, value in last.items() if isinstance(value, (int, float))),
            "",
            f"Unreadable training clips: {len(self.broken) or 'none'}"
            + (f", replaced by others and listed in {self._broken_file.name}" if self.broken else ""),
        ]
        (folder / "training_report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def published_schedule(step: int, num_training_steps: int, num_warmup_steps: int, floor: float) -> float:
    """
    The published learning rate at a step, as a multiple of its peak (Video-FocalNets' and DVFL-Net's recipe).

    The cosine runs over all steps, and the warm-up, linear from `floor` to 1, replaces its beginning: the rate steps
    down where it ends, with a sixth of the steps to 0.93 of the peak. (transformers' own begin the cosine there.)

    Args:
        step: The step, from 0.
        num_training_steps: All steps.
        num_warmup_steps: Those of the warm-up.
        floor: Where warm-up begins and cosine ends, as a multiple of the peak.
    """
    if step < num_warmup_steps:
        return floor + (1 - floor) * step / num_warmup_steps
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(step / num_training_steps, 1))) / 2


def smooth_labels(labels: torch.Tensor, num_labels: int, smoothing: float) -> torch.Tensor:
    """Class ids (batch,) or probabilities (batch, num_labels) -> probabilities with `smoothing` spread over all."""
    if not labels.is_floating_point():
        labels = F.one_hot(labels.long(), num_labels).float()
    return labels * (1 - smoothing) + smoothing / num_labels


def _listed(clips: list[str]) -> str:
    return ", ".join(clips) or "that the dataset gives no names of"


def _free(folder: Path) -> str:
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
    # PyTorch's own message does not say that a disk is full
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB are free there"


def _deaf_workers() -> multiprocessing.context.BaseContext:
    """
    A context whose processes are ended by SIGKILL alone.

    A scheduler tells SIGTERM to all processes of a job, and a terminal Ctrl-C: without its workers the training could
    not come to the end of its step.
    """

    class Worker(multiprocessing.context.ForkProcess):
        def start(self):
            super().start()
            # at its end a process tells its daemons SIGTERM past `Process.terminate`, and waits for them
            self._popen.terminate = self._popen.kill  # type: ignore[attr-defined]

    class Workers(multiprocessing.context.ForkContext):
        Process = Worker

    return Workers()


def _start_deaf_worker(also: Callable[[int], None] | None, worker: int):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if also is not None:
        also(worker)


class _Clock:
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


class _FollowRun(TrainerCallback):
    """
    Tells the dataset each epoch (accelerate tells it to the sampler at best), times the steps, and stops the run.
    """

    def __init__(self, trainer: VideoClassificationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        trainer._clock.begin()
        trainer._micro_batches.clear()
        trainer.broken, trainer._newly_broken = {}, {}
        if state.global_step and trainer._broken_file.is_file():
            text = trainer._broken_file.read_text(encoding="utf-8")
            for line in text.splitlines():
                with suppress(ValueError):  # half a line, at which the run was ended
                    row = json.loads(line)
                    trainer.broken[row["clip"]] = row["reason"]
            if text and not text.endswith("\n") and state.is_world_process_zero:
                with open(trainer._broken_file, "a", encoding="utf-8") as file:
                    file.write("\n")
        elif state.is_world_process_zero:
            trainer._broken_file.unlink(missing_ok=True)

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset, epoch = self.trainer.train_dataset, int(state.epoch)
        if isinstance(dataset, VideoClipStream):
            steps = math.ceil(len(dataset) / args.gradient_accumulation_steps)
            seen = 0 if args.ignore_data_skip else state.global_step % steps
            dataset.set_epoch(epoch, skip=seen * args.gradient_accumulation_steps)
        elif hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.before_update()

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer._clock.stepped()
        if self.trainer._stopped_by:
            # who sends SIGTERM waits for seconds, not for an evaluation
            control.should_save, control.should_evaluate, control.should_training_stop = True, False, True

    def on_save(self, args, state, control, **kwargs):
        # the Trainer's own way to the end may delete the checkpoint, and returns as if all steps were done
        if self.trainer._stopped_by:
            self.trainer.callback_handler.on_train_end(args, state, control)
            self.trainer.leave(self.trainer._stopped_by)


def last_whole_checkpoint(folder: str | os.PathLike, processes: int = 1) -> str | None:
    """
    The last checkpoint of a run that was written to its end, for `train(resume_from_checkpoint=...)`.

    A run that is killed while it writes leaves half a checkpoint; it is passed over, with a warning that says why. One
    of another number of processes is not, with a warning too.

    Args:
        folder: The output folder of the run.
        processes: How many go on. Each has a random state, so that as many go on exactly as they would have.

    Returns:
        Its path; None if there is none.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for checkpoint in sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True):
        flaw = _flaw(checkpoint, processes)
        if flaw is not None:
            logger.warning(f"{checkpoint}: is not whole ({flaw}), and passed over")
            continue
        before = _about_run(checkpoint).get("processes", processes)
        if before != processes:
            logger.warning(
                f"{checkpoint}: was written by another number of processes ({before}, now {processes}), whose random "
                "numbers were others: the run does not end at the very weights that it would have ended at"
            )
        return str(checkpoint)
    return None


_RUN = "VideoClassificationTrainer"


def _clips_per_step(args: TrainingArguments) -> int:
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def _about_run(checkpoint: Path) -> dict[str, int]:
    """Of the run that wrote a checkpoint, `processes` and `clips_per_step`; nothing if another Trainer wrote it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state.get("stateful_callbacks", {}).get(_RUN, {})


def _flaw(checkpoint: Path, processes: int) -> str | None:
    """What is wrong with a checkpoint: a file that is missing or cut short."""
    if not any(path for name in ("model*.safetensors*", "pytorch_model*") for path in checkpoint.glob(name)):
        return "model.safetensors is missing"
    try:
        processes = _about_run(checkpoint).get("processes", processes)
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut short"
    random_states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    for name in ("optimizer*", "scheduler.pt", *random_states):
        if not any(checkpoint.glob(name)):
            return f"{name} is missing"
    for path in checkpoint.rglob("*"):
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is cut short"
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                safe_open(path, "numpy").__enter__()
        except (ValueError, SafetensorError):
            return f"{path.name} is cut short"
    return None


__all__ = [
    "VideoClassificationTrainer",
    "VideoTrainingArguments",
    "last_whole_checkpoint",
    "published_schedule",
    "smooth_labels",
]
