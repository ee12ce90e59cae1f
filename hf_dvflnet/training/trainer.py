"""Training of video classifiers with transformers' Trainer, optionally with the published recipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import sort_checkpoints

from ..configuration_videofocalnet import let_others_read, refuse_other_num_frames
from ..data.augmentation import mix_clips
from ..data.clips import collate_clips, parts_of
from ..data.label_sets import are_named
from ..hub.calibration import uncalibrate
from .arguments import VideoTrainingArguments, published_schedule
from .callbacks import BrokenClips, FiniteNumbers, FollowEpochs, OwnSession, OwnSettings, StepTimes, StopOnSignal
from .checkpoints import (
    RUN,
    adapter_settings,
    base_weights_digest,
    last_whole_checkpoint,
    naming_full_disk,
    refuse_other_run,
    trained_weights,
)
from .labels import FittingLabels, balanced_class_weights, class_names, label_names, with_labels_of
from .losses import as_probabilities, problem_type, soft_loss
from .metrics import compute_metrics


class VideoClassificationTrainer(Trainer):
    """
    transformers' [`Trainer`] for video classification, with [`VideoTrainingArguments`]. It adds:

    - **Classes and labels.** Classes of data and model are matched by name: labels are translated, or an error is
      raised ([`with_labels_of`]). Labels may be class ids of shape (batch,) or probabilities of shape (batch,
      num_labels), for any model; labels that do not fit the model are refused where they are loaded, with their clip.
    - **The published recipe.** Schedule, scaling of the learning rate with the global batch size, no weight decay on
      1-D parameters (biases, norms and layer scales), and mixup and CutMix, whose random numbers depend on the run's
      seed, the step, the micro-batch and the rank. Label smoothing and class weights apply in training only.
    - **Metrics** that fit the problem type, unless `compute_metrics` or `preprocess_logits_for_metrics` is given. The
      evaluation loss of clips with one label is the mean over those that have it (not -100).
    - **Clips.** `set_epoch` of the training dataset is called at the start of each epoch. Unreadable clips that were
      replaced are counted in the log and listed in `broken_clips.jsonl` in the output folder; the run stops if they
      exceed `args.max_broken_share`. `step_seconds` and `data_seconds`, the part of it spent waiting for clips, are
      logged.
    - **Resuming.** `train(resume_from_checkpoint=True)` resumes from the last complete checkpoint, and refuses one of
      another kind of run: an adapter is resumed only on the base weights that it began with. SIGTERM and Ctrl-C stop
      the run after the current step with a checkpoint ([`StopOnSignal`]).
    - **Early errors.** A model or processor that cannot be saved is refused before training, and a loss that is not
      finite stops the run before the weights are updated, with the step and the clips. Weights that are not finite are
      never saved.

    Takes the arguments of [`Trainer`]. Dataset items are `{"pixel_values", "labels"}`, as in [`VideoClipDataset`];
    strings in the items are not passed to the model. A step goes through `training_step`, `compute_loss` and the
    callbacks of `callbacks.py`.
    """

    args: VideoTrainingArguments
    data_collator: Any
    compute_metrics: Any
    train_dataset: Any
    eval_dataset: Any
    lr_scheduler: Any
    _signature_columns: list[str] | None

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        *more,
        **kwargs,
    ):
        args = args or VideoTrainingArguments()
        if not isinstance(args, VideoTrainingArguments):  # plain TrainingArguments: our options keep their defaults
            told = {field.name: getattr(args, field.name) for field in fields(TrainingArguments) if field.init}
            args = VideoTrainingArguments(**{**told, "remove_unused_columns": False})
        super().__init__(model, args, data_collator or collate_clips, *more, **kwargs)
        self.kind = problem_type(self.model.config) if hasattr(self.model, "config") else ""
        if self.kind and self.model.config.problem_type is None and self.model.config.num_labels == 1:
            raise ValueError(
                "the model has one output (num_labels=1) and no problem_type, so it is not known what it says of a "
                'clip: set config.problem_type to "regression" for a value, or to "multi_label_classification" for '
                "one label that a clip has or not, or create the model with at least two classes"
            )
        # our losses are means over the micro-batch, so the Trainer must divide them by the number of micro-batches; a
        # `compute_loss_func` returns the micro-batch's share of the loss of the step
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = self.compute_loss_func is not None
        self.label_smoother = None  # see `compute_loss`
        if self.kind and self.compute_loss_func is None:  # which may take any labels
            self.data_collator = FittingLabels(self.data_collator, self.kind, self.model.config.num_labels)
        # ours are of logits, and not of what `preprocess_logits_for_metrics` makes of them
        if self.kind and self.compute_metrics is None and self.preprocess_logits_for_metrics is None:
            self.compute_metrics = partial(compute_metrics, self.kind)
        self._match_classes()
        self._class_weights: torch.Tensor | None = None
        if args.class_weights == "balanced" and self.train_dataset is not None:
            self._class_weights = balanced_class_weights(self.train_dataset, self.model.config.num_labels)
        datasets = {"train_dataset": self.train_dataset, **self._eval_datasets()}
        refuse_what_cannot_be_saved(self.model, self.processing_class, datasets, args.output_dir)

        self._learning_rates: list[float] = []  # unscaled rates of an optimizer created here
        self._labelled: list[torch.Tensor] = []  # of an evaluation: whether each clip has a label
        self._base_weights = base_weights_digest(self.model)
        self.finite_numbers = FiniteNumbers(self.accelerator)
        self.broken_clips = BrokenClips(self)
        self.step_times = StepTimes()
        self.stop = StopOnSignal(self)
        self.own_settings = OwnSettings()
        callbacks = (self.finite_numbers, self.broken_clips, self.step_times, self.stop, self.own_settings)
        for callback in (FollowEpochs(self), *callbacks):
            self.add_callback(callback)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

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
        loader = self._with_workers(super().get_train_dataloader())
        if self.args.dataloader_drop_last and len(loader) == 0:
            raise ValueError(
                f"{len(self.train_dataset)} training clips do not fill a batch of {self._train_batch_size} for each "
                f"of {self.args.world_size} processes; choose a smaller per_device_train_batch_size, or set "
                "dataloader_drop_last to False"
            )
        return loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        self._match_classes()
        if not isinstance(eval_dataset, str):
            eval_dataset = with_labels_of(self.model, eval_dataset)
        with self._all_clips():
            return self._with_workers(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        with self._all_clips():
            return self._with_workers(super().get_test_dataloader(with_labels_of(self.model, test_dataset)))

    @contextmanager
    def _all_clips(self) -> Iterator[None]:
        """Context manager in which data loaders take all clips: `dataloader_drop_last` is for training only."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = drop_last

    def _with_workers(self, loader: Any) -> DataLoader:
        base = getattr(loader, "base_dataloader", loader)
        if base.num_workers:
            base.timeout = self.args.dataloader_timeout
            if not isinstance(base.worker_init_fn, OwnSession):
                base.worker_init_fn = OwnSession(base.worker_init_fn)
        return loader

    def _set_signature_columns_if_needed(self):
        if self._signature_columns is None:  # with `remove_unused_columns`, the marks of unreadable clips are kept
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*(self._signature_columns or ()), "clip", "broken"]

    # One training step

    def get_batch_samples(self, *args, **kwargs):
        began = time.perf_counter()
        batches = super().get_batch_samples(*args, **kwargs)
        self.step_times.waited(time.perf_counter() - began)
        return batches

    def training_step(self, model, inputs, *args, **kwargs):
        clips = list(inputs.get("clip", ()))
        if self.args.mixup_alpha or self.args.cutmix_alpha:
            micro_batch = len(self.finite_numbers.micro_batches)  # its index within the step
            draw = (self.args.seed, self.state.global_step, micro_batch, self.args.process_index)
            inputs["pixel_values"], shares = mix_clips(
                inputs["pixel_values"],
                mixup_alpha=self.args.mixup_alpha,
                cutmix_alpha=self.args.cutmix_alpha,
                seed=int(np.random.SeedSequence(draw).generate_state(1)[0]),
            )
            self.mix_targets(inputs, shares, self.accelerator.unwrap_model(model).config.num_labels)
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.finite_numbers.micro_batches.append((loss, clips))
        return loss

    def mix_targets(self, inputs: dict[str, Any], shares: torch.Tensor, num_labels: int):
        """
        Replace the labels of mixed clips: the product of `shares`, of shape (batch, batch), and the original labels.

        Row i of `shares` gives the share of each original clip in mixed clip i.
        """
        if (labels := inputs.get("labels")) is not None:
            if self.kind == "single_label_classification":
                labels = as_probabilities(labels, num_labels)
            inputs["labels"] = shares @ labels.to(shares)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # strings that identify the clips are not inputs of the model
        names = {key: inputs.pop(key) for key in ("clip", "broken") if key in inputs}
        self.broken_clips.note(names.get("broken", ()))
        return super()._prepare_inputs(inputs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.get("labels")
        one = self.kind == "single_label_classification" and labels is not None and self.compute_loss_func is None
        args = self.args
        recipe = model.training and (
            args.label_smoothing_factor or args.mixup_alpha or args.cutmix_alpha or self._class_weights is not None
        )
        if not (one and (recipe or labels.is_floating_point())):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # computed here, since transformers' models treat soft labels as multiple labels per clip
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        loss = self.label_loss(logits, labels, model.training)
        return (loss, outputs) if return_outputs else loss

    def label_loss(self, logits: torch.Tensor, labels: torch.Tensor, training: bool) -> torch.Tensor:
        """The loss of labels, [`soft_loss`], in training with label smoothing and class weights."""
        if not training:
            return soft_loss(logits, labels, self.kind)
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        return soft_loss(logits, labels, self.kind, self.args.label_smoothing_factor, weights)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if ("loss" in logs or "train_loss" in logs) and (broken := self.broken_clips.count()):
            logs["broken_clips"] = broken
        if "loss" in logs:
            logs.update(self.step_times.read(self.args.dataloader_num_workers))
        super().log(logs, start_time)

    # Optimizer and schedule

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        made_here = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if made_here:
            self._learning_rates = [group["lr"] for group in optimizer.param_groups]
        if self.args.reference_batch_size is not None:
            # repeated in each attempt of auto_find_batch_size: the batch size changes, but the optimizer is the same
            for group, rate in zip(optimizer.param_groups, self._learning_rates, strict=False):
                group["lr"] = group["initial_lr"] = rate * self.clips_per_step / self.args.reference_batch_size
        return optimizer

    @property
    def clips_per_step(self) -> int:
        """Number of clips per update of the weights, over all processes."""
        return self.get_total_train_batch_size(self.args)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if not self.lr_scheduler and self.args.published_schedule:
            floor = self.args.min_learning_rate / self.args.learning_rate
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: published_schedule(step, num_training_steps, warmup_steps, floor),
            )
            self._created_lr_scheduler = True  # else the next attempt or call of `train` would reuse it
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        self.own_settings.take(optimizer or self.optimizer)
        return scheduler

    # Evaluation

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        self._labelled = []
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
        one = self.kind == "single_label_classification" and self.compute_loss_func is None
        if loss is not None and one and labels is not None and not labels.is_floating_point():
            # The loss is the mean over the clips with a label, NaN if there are none. The Trainer takes the mean over
            # all clips, in which those without a label count as 0 here; `evaluation_loop` takes them out again.
            labelled = (labels != -100).to(loss.device)
            self._labelled.append(self.accelerator.gather_for_metrics(labelled))
            loss = loss * labelled.float().mean() if labelled.any() else torch.zeros_like(loss)
        return loss, logits, answers

    # Resuming and saving

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        resume_from_checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
        uncalibrate(self.model, "it is trained further")
        with self.stop.listening():
            output = super().train(resume_from_checkpoint, *args, **kwargs)
        self.stop.agreed = self.stop.agree()
        if self.stop.agreed:  # the signal came during the evaluation after the last step
            if self.args.save_strategy == "no":
                self._save_checkpoint(self.model, trial=None)
            self.stop.leave()
        return output

    def about_run(self) -> dict[str, Any]:
        """What a checkpoint says of its run, for [`refuse_other_run`]."""
        names, clips = label_names(self.model) if self.kind else [], self.train_dataset
        about = {
            "processes": self.args.world_size,
            "clips_per_step": self.clips_per_step,
            "clips": len(clips) if hasattr(clips, "__len__") else None,
            # a model without class names has those of the data
            "classes": names if are_named(names) else class_names(clips),
            "adapter": adapter_settings(self.model),
            "weights": trained_weights(self.model),
            "optimizer": str(self.args.optim.value).removesuffix("_fused"),
            "broken_clips": self.broken_clips.found,
        }
        return about if self._base_weights is None else {**about, "base_weights": self._base_weights}

    def checkpoint_to_resume(self, resume_from_checkpoint: str | bool | None) -> str | None:
        """
        The checkpoint that `train(resume_from_checkpoint=...)` means; True is the last complete one.

        Raises:
            ValueError: If there is none, or if this run cannot resume from it ([`refuse_other_run`]).
        """
        if not resume_from_checkpoint:
            return None
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args.output_dir, self.args.world_size)
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir}: contains no complete checkpoint to resume from")
        refuse_other_run(Path(resume_from_checkpoint), self.args, self.about_run(), self.model)
        return resume_from_checkpoint

    def _save_checkpoint(self, model, trial):
        self.finite_numbers.refuse_broken_weights(self.model, self.state.global_step)
        self.state.stateful_callbacks[RUN] = self.about_run()  # the place in trainer_state.json for additional data
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        advice = ". Free disk space, or fix the cause; the run can then resume from its last complete checkpoint"
        with naming_full_disk(folder, "checkpoint", advice):
            super()._save_checkpoint(model, trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        if _internal_call:  # for a checkpoint
            super().save_model(output_dir, _internal_call)
            return
        self.finite_numbers.refuse_broken_weights(self.model, self.state.global_step)
        with naming_full_disk(Path(output_dir or self.args.output_dir), "model"):
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None):
        super()._save(output_dir, state_dict)
        let_others_read(output_dir or self.args.output_dir)  # an adapter, too


def refuse_what_cannot_be_saved(model: Any, processor: Any, datasets: dict[str, Any], folder: str):
    """
    Fail early if the model or its processor cannot be saved, or if they do not fit each other. The processor of a
    [`VideoClipDataset`] in `datasets` is compared too, since it is the one that a user would save.

    Raises:
        ValueError: If model, processor and clips differ in `num_frames`; if the output folder or a checkpoint in it
            has a model or processor of another `num_frames`; or if `save_pretrained` fails, for example because a
            value is no JSON.
    """
    frames: Any = getattr(getattr(model, "config", None), "num_frames", None)
    clips = [(name, part) for name, each in datasets.items() for part in parts_of(each)]
    processors = {f"the processor of {name}": part.processor for name, part in clips}
    for name, each in {"processing_class": processor, **processors}.items():
        theirs: Any = getattr(each, "num_frames", None)
        if None not in (frames, theirs) and frames != theirs:
            raise ValueError(
                f"the model has num_frames={frames}, but {name} has num_frames={theirs}. A model and its processor "
                f"are saved together and must agree: create the model with num_frames={theirs}, or the processor with "
                f"num_frames={frames}"
            )
    for place in [folder, *sort_checkpoints(folder)] if frames is not None else []:
        for name in ("video_preprocessor_config.json", "config.json"):
            refuse_other_num_frames(place, frames, name)
    for part in (model, processor):
        if part is None or (part is model and not isinstance(model, PreTrainedModel)):
            continue
        # of a model, the config is written and the weights are only checked
        options: dict[str, Any] = {"is_main_process": False} if part is model else {}
        try:
            with TemporaryDirectory() as trial:
                if part is model:
                    model.config.save_pretrained(trial)
                part.save_pretrained(trial, **options)
        except Exception as error:  # as many kinds as there are processors
            raise ValueError(
                f"{type(part).__name__}: cannot be saved, so that no checkpoint could be written: {error}"
            ) from error
