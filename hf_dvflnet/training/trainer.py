"""Training of video classifiers with transformers' Trainer, optionally with the published recipe."""

import math
import time
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from ..data.augmentation import mix_clips
from ..data.clips import VideoClipStream, collate_clips
from ..data.loader_workers import naming_clips_of_dead_workers
from .arguments import published_schedule
from .broken_clips import BrokenClips
from .class_matching import with_labels_of
from .finite_numbers import not_finite
from .fitting_labels import FittingLabels
from .interruption import Interruption, let_workers_outlive_signals
from .losses import as_probabilities, problem_type, soft_loss
from .metrics import EvaluationMetrics
from .resumable_trainer import ResumableTrainer
from .run_report import StepClock, write_report
from .saving import refuse_what_cannot_be_saved
from .sharding import place_unsharded


class VideoClassificationTrainer(ResumableTrainer):
    """
    transformers' [`Trainer`] for video classification. It differs from [`Trainer`] as follows:

    - weight decay is not applied to 1-D parameters (biases, norms and layer scales), as in the published recipe;
    - classes of data and model are matched by name: labels are translated, or an error is raised ([`with_labels_of`]);
    - labels may be class ids of shape (batch,) or probabilities of shape (batch, num_labels), for any model;
      `args.label_smoothing_factor` applies to both, in training only;
    - labels that do not fit the model are refused where they are loaded, with their clip ([`fitting_labels`]), and
      so is at once what `save_pretrained` would refuse at the first checkpoint ([`refuse_what_cannot_be_saved`]);
    - unless `compute_metrics` or `preprocess_logits_for_metrics` is given, the metrics that fit the problem type are
      computed: top-1 and top-5 accuracy; mean average precision and micro-F1 for multiple labels per clip; the mean
      absolute error for regression;
    - if the training dataset has a method `set_epoch`, it is called at the start of each epoch. A [`VideoClipStream`]
      is split among the processes; clips that a resumed run has already seen are skipped without decoding;
    - `train(resume_from_checkpoint=True)` resumes from the last complete checkpoint. An adapter is resumed only on the
      base weights that it began with;
    - with FSDP, `save_model` writes whole weights, and what FSDP would silently not do is refused
      ([`refuse_unfit_sharding`]);
    - `step_seconds` and `data_seconds`, the part of it spent waiting for clips, are logged, and so is `broken_clips`,
      the number of unreadable clips, if these are replaced. `broken_clips.jsonl` in the output folder lists them. The
      run stops if they exceed `args.max_broken_share` of the training clips;
    - if a worker dies or hangs, the error names the clip that it was reading;
    - the evaluation loss of clips with one label is the mean over those that have it (not -100), and is left out if
      none has;
    - a loss that is not finite stops the run before the weights are updated, and the error gives the step and the
      clips on every process; weights that are not finite are never saved;
    - SIGTERM and Ctrl-C stop the run after the current step. A checkpoint is saved regardless of `args.save_strategy`;
      a due evaluation is skipped. `train` then raises `SystemExit(143)` or `KeyboardInterrupt`. A second Ctrl-C stops
      at once. Forked data loading workers (Linux up to Python 3.13) ignore the signal. Workers that are not forked are
      ended by it if they receive it, and the run then ends without a checkpoint;
    - if a checkpoint cannot be written, for example because the disk is full, the run stops and names the folder;
    - `save_report` writes training curves and a summary to the output folder;
    - [`VideoTrainingArguments`] adds the published schedule, scaling of the learning rate with the global batch size,
      and mixup and CutMix, whose random numbers depend on the run's seed, the step, the micro-batch and the rank.

    Takes the arguments of [`Trainer`]. Dataset items are `{"pixel_values", "labels"}`, as in [`VideoClipDataset`];
    strings in the items are not passed to the model.
    """

    compute_metrics: Any
    train_dataset: Any
    eval_dataset: Any

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        *more,
        **kwargs,
    ):
        super().__init__(model, args, data_collator or collate_clips, *more, **kwargs)
        # our loss is a mean over the micro-batch, so the Trainer must divide it by the number of micro-batches; a
        # `compute_loss_func` returns the micro-batch's share of the loss of the step
        self.loss_is_scaled_for_ga = self.compute_loss_func is not None
        self.label_smoother = None  # see `compute_loss`
        self._kind = problem_type(self.model.config) if hasattr(self.model, "config") else ""
        # ours are of logits, and not of what a function of the caller makes of them
        if self.compute_metrics is None and self.preprocess_logits_for_metrics is None and self._kind:
            self.compute_metrics = EvaluationMetrics(self._kind)
        self._match_classes()
        datasets = {"train_dataset": self.train_dataset, **self._eval_datasets()}
        refuse_what_cannot_be_saved(self.model, self.processing_class, datasets, self.args.output_dir)
        self._learning_rates: list[float] = []  # unscaled rates of an optimizer created here
        self.broken_clips = BrokenClips(self.args.output_dir)
        self.interruption = Interruption()
        self._clock = StepClock()
        self._labelled: list[torch.Tensor] = []  # of an evaluation: whether each clip has a label
        self._micro_batches: list[tuple[torch.Tensor, list[str]]] = []  # loss and clips since the last update
        self.add_callback(_FollowRun(self))

    @property
    def broken(self) -> dict[str, str]:
        """The unreadable training clips of all processes, each with the reason."""
        return self.broken_clips.found

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        resume_from_checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
        with naming_clips_of_dead_workers(self.train_dataset, *self._eval_datasets().values()):
            with self.interruption.heeded(say=self.is_world_process_zero()):
                output = super().train(resume_from_checkpoint, *args, **kwargs)
            # on all processes, since those that received a signal would otherwise wait for the others
            told = max(gather_object([self.interruption.told]))
            if told:  # the signal came during the evaluation after the last step
                if self.args.save_strategy == "no":
                    self._save_checkpoint(self.model, trial=None)
                self.leave(told)
            return output

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        if isinstance(self.compute_metrics, EvaluationMetrics):
            self.compute_metrics.begin()
        self._labelled.clear()
        place_unsharded(self.model, self.accelerator)
        # a data loader draws a seed, which would change the training of a run resumed from before an evaluation
        with torch.random.fork_rng(devices=[]):
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._labelled and output.metrics:
            share, name = torch.cat(self._labelled).float().mean().item(), f"{metric_key_prefix}_loss"
            if share:
                output.metrics[name] /= share
            else:
                del output.metrics[name]
        return output

    def prediction_step(self, model, inputs, *args, **kwargs):
        labels = inputs.get("labels")
        loss, logits, answers = super().prediction_step(model, inputs, *args, **kwargs)
        one = self._kind == "single_label_classification" and self.compute_loss_func is None
        if loss is not None and one and labels is not None and not labels.is_floating_point():
            # The loss is the mean over the clips with a label, NaN if there are none. The Trainer takes the mean over
            # all clips, in which those without a label count as 0 here; `evaluation_loop` takes them out again.
            labelled = (labels != -100).to(loss.device)
            self._labelled.append(self.accelerator.gather_for_metrics(labelled))
            loss = loss * labelled.float().mean() if labelled.any() else torch.zeros_like(loss)
        return loss, logits, answers

    # Data and classes

    def _eval_datasets(self) -> dict[str, Any]:
        return self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval_dataset": self.eval_dataset}

    def _match_classes(self):
        self.train_dataset = with_labels_of(self.model, self.train_dataset)
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {name: with_labels_of(self.model, one) for name, one in self.eval_dataset.items()}
        else:
            self.eval_dataset = with_labels_of(self.model, self.eval_dataset)

    def get_train_dataloader(self) -> DataLoader:
        self._match_classes()
        stream = self.train_dataset
        if isinstance(stream, VideoClipStream):
            stream.share(self._train_batch_size, self.args.process_index, self.args.world_size)
            # not prepared by accelerate, which would make the main process read the clips of all processes
            names = ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
            settings: Any = {name: getattr(self.args, f"dataloader_{name}") for name in names}
            loader: Any = DataLoader(stream, batch_size=None, **settings)
        else:
            loader = super().get_train_dataloader()
        return self._checked(loader)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        self._match_classes()
        if not isinstance(eval_dataset, str):
            eval_dataset = with_labels_of(self.model, eval_dataset)
        return self._checked(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return self._checked(super().get_test_dataloader(with_labels_of(self.model, test_dataset)))

    def _checked(self, loader: Any) -> DataLoader:
        base = getattr(loader, "base_dataloader", loader)
        if self._kind and self.compute_loss_func is None:  # which may take any labels
            base.collate_fn = FittingLabels.of(base.collate_fn, self._kind, self.model.config.num_labels)
        if self.args.dataloader_num_workers:
            base.timeout = getattr(self.args, "dataloader_timeout", 0)
            let_workers_outlive_signals(base)
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
        # strings that identify the clips are not inputs of the model
        names = {key: inputs.pop(key) for key in ("clip", "broken") if key in inputs}
        self.broken_clips.note(names.get("broken", ()))
        return super()._prepare_inputs(inputs)

    def _count_broken(self):
        """Gather and record the broken clips of all processes, and stop the run if there are too many."""
        if getattr(self.train_dataset, "on_error", "raise") != "replace":
            return
        if self.broken_clips.count(writes=self.is_world_process_zero()):
            clips = getattr(self.train_dataset, "num_clips", None) or len(self.train_dataset)
            self.broken_clips.refuse_too_many(clips, getattr(self.args, "max_broken_share", 0.01))

    # Optimization and loss

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        made_here = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if made_here:
            self._learning_rates = [group["lr"] for group in optimizer.param_groups]
        reference = getattr(self.args, "reference_batch_size", None)
        if reference is not None:
            # repeated in each attempt of auto_find_batch_size: the batch size changes, but the optimizer is the same
            for group, rate in zip(optimizer.param_groups, self._learning_rates, strict=False):
                group["lr"] = group["initial_lr"] = rate * self.clips_per_step / reference
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
            self._created_lr_scheduler = True  # else the next attempt or call of `train` would reuse it
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
        Check whether the loss is finite, and whether any process has been asked to stop. Called once per step, after
        the gradients are computed and before the weights are updated.

        All processes get the same result, so that none waits for a process that has stopped.
        """
        finite = torch.stack([loss.isfinite() for loss, _ in self._micro_batches])
        found = torch.stack([~finite.all(), torch.tensor(self.interruption.told, device=finite.device)])
        if self.args.world_size > 1:
            found = self.accelerator.gather(found[None]).amax(0)
        diverged, self.interruption.agreed = (int(value) for value in found.tolist())
        micro_batches, self._micro_batches = self._micro_batches, []
        self._last_clips = [clip for _, clips in micro_batches for clip in clips]
        if diverged:
            raise not_finite(micro_batches, self.state.global_step + 1, self._get_learning_rate())

    def mix_targets(self, inputs: dict[str, Any], shares: torch.Tensor, num_labels: int):
        """
        Replace the labels of mixed clips: the product of `shares`, of shape (batch, batch), and the original labels.

        Row i of `shares` gives the share of each original clip in mixed clip i.
        """
        if (labels := inputs.get("labels")) is not None:
            if self._kind == "single_label_classification":
                labels = as_probabilities(labels, num_labels)
            inputs["labels"] = shares @ labels.to(shares)

    def _micro_batch(self) -> int:
        """Index of the current micro-batch within the step."""
        return len(self._micro_batches)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.get("labels")
        smooth = model.training and self._kind == "single_label_classification"  # for other kinds, the Trainer warns
        smoothing = self.args.label_smoothing_factor if smooth else 0.0
        mixed = model.training and any(getattr(self.args, name, 0.0) for name in ("mixup_alpha", "cutmix_alpha"))
        soft = self._kind == "single_label_classification" and labels is not None and labels.is_floating_point()
        if self.compute_loss_func is not None or labels is None or not (smoothing or mixed or soft):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # computed here, since transformers' models treat soft labels as multiple labels per clip
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        loss = soft_loss(logits, labels, self._kind, smoothing)
        return (loss, outputs) if return_outputs else loss

    # Logging and report

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs or "train_loss" in logs:
            self._count_broken()
            if self.broken:
                logs["broken_clips"] = len(self.broken)
        if "loss" in logs and (times := self._clock.read()) is not None:
            logs["data_seconds"], logs["step_seconds"] = times
            if self.is_local_process_zero():
                self._clock.warn_of_waiting(*times, self.args.dataloader_num_workers)
        super().log(logs, start_time)

    def save_report(self):
        """
        Write `training_curves.png` (loss and its parts, accuracies, agreement, learning rate, seconds per step) and
        `training_report.md` (number of steps, last logged values, number of broken clips) to the output folder.

        Both cover the whole run, including the part before it was resumed.
        """
        if self.is_world_process_zero():
            write_report(self, self.broken_clips, self._train_batch_size)


class _FollowRun(TrainerCallback):
    """
    Tells the dataset about each new epoch (accelerate informs at most the sampler), times the steps and stops the run.
    """

    def __init__(self, trainer: VideoClassificationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        trainer._clock.begin()
        trainer._micro_batches.clear()
        trainer.broken_clips.begin(resumed=state.global_step > 0, writes=state.is_world_process_zero)

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
        if self.trainer.interruption.agreed:
            # the sender of SIGTERM waits only seconds, which is too short for an evaluation
            control.should_save, control.should_evaluate, control.should_training_stop = True, False, True

    def on_save(self, args, state, control, **kwargs):
        # the Trainer's normal ending may delete the checkpoint, and returns as if all steps were done
        if self.trainer.interruption.agreed:
            self.trainer.callback_handler.on_train_end(args, state, control)
            self.trainer.leave(self.trainer.interruption.agreed)


__all__ = ["VideoClassificationTrainer"]
