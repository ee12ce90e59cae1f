"""
Distillation of video classifiers: by forward KL, as described in the DVFL-Net paper (arXiv 2507.12426), or otherwise.

The published code computes a different loss: it multiplies the teacher's probabilities by (log p_teacher - p_student),
which is an inner product and not a divergence. It also re-initializes the teacher's head before training.
"""

import copy
import os
from collections import defaultdict
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import AutoVideoProcessor, EvalPrediction, PreTrainedModel, TrainerCallback
from transformers.video_processing_utils import BaseVideoProcessor

from ..data.clips import VideoClipDataset, VideoClipStream
from ..hub.loaded_models import HeadInput, feature_width
from ..hub.loading import load_teacher
from .arguments import DistillationConfig
from .class_matching import label_names, label_order
from .clip_matching import clips_of_its_own
from .divergences import divergence_of, mixed_answers
from .feature_matching import (
    feature_distance,
    load_projection,
    new_projection,
    save_projection,
)
from .finite_numbers import refuse_broken_weights
from .losses import soft_loss
from .metrics import compute_top_k_metrics
from .modulator_matching import MatchedModulators, mean_distance
from .sharding import refuse_unsharded_projection
from .teacher_cache import TeacherCache
from .teachers import logits_of, refuse_other_than_classifier, refuse_shared_weights, warn_of_chance
from .trainer import VideoClassificationTrainer


class DistillationTrainer(VideoClassificationTrainer):
    """
    [`VideoClassificationTrainer`] with a teacher: the loss is
    `alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy`, or with another `args.divergence` in place of
    the KL ([`reverse_kl`], [`jensen_shannon`], [`logit_mse`]). With `args.feature_weight`, its product with the cosine
    distance of the pooled features is added: the student's, through a projection that is trained along and saved in
    checkpoints but not with the student, and the teacher's. A model's pooled features are what its `classifier` is
    given. With `args.modulator_weight`, its product with the distance of the modulators of two Video-FocalNets is
    added: the mean of [`modulator_distance`] over `args.modulator_stages` and `args.modulator_kinds`.

    Teacher and student see the same clips. The teacher is frozen, in evaluation mode, and not part of the optimizer or
    of the checkpoints; FSDP does not shard it. The evaluation loss is the student's cross-entropy alone. Training
    clips without a label (-100, or a dataset without `labels`) have the divergence alone; if no clip has one, set
    `alpha` to 1. The cross-entropy is the mean over the clips of a micro-batch that have a label.

    Args:
        model ([`PreTrainedModel`]):
            The student.
        teacher_model ([`PreTrainedModel`], `str` or path, *optional*, defaults to `args.teacher_model_name_or_path`):
            Any video classifier that takes `pixel_values` of shape (batch, frames, channels, height, width), or the
            folder or Hub id of one. Weights are loaded from safetensors only. If the teacher has the student's class
            names in a different order, its logits are permuted. Optional with `args.teacher_cache`: a teacher given in
            addition to the cache is evaluated, but not run during training.
        teacher_processor ([`BaseVideoProcessor`], *optional*):
            The teacher's video processor. If `teacher_model` is a folder or Hub id, the default is the processor saved
            there. If it prepares clips of another size, mean or standard deviation than the student's
            (`processing_class`), frames, crop, flip and colours are drawn once for each clip, and the clip is prepared
            for both; `train_dataset` must then be a [`VideoClipDataset`] or [`VideoClipStream`].
        kwargs: Passed to [`VideoClassificationTrainer`].

    The following values are logged with the training loss. Each is the mean over all clips of all ranks since the last
    log: `loss_kl`, the divergence (including the factor `T^2`), `loss_ce`, `loss_features` and `loss_modulators` where
    these are matched (before their weights), and `agreement`, the share of clips for which teacher and student predict
    the same class. The teacher's accuracy on the evaluation split is logged as `teacher_top1_accuracy` when training
    starts.

    With `args.teacher_cache` ([`TeacherCache`]), `train_dataset` shows the cached view e mod K of each clip in epoch
    e, and the teacher's logits for this view are read from the cache. With mixup or CutMix, the cached teacher has not
    seen the mixed clip. What the divergence compares, the probabilities at the given temperature or, for `"mse"`, the
    logits, is then mixed in the same way as the labels, and so are its features. The same holds for a teacher that is
    given clips of its own.

    Raises:
        ValueError: If there is no teacher, or its folder contains no weights; if student or teacher is not a
            classifier with one label per clip, or has no head; if they share weights; if they differ in their classes
            or their number of frames, or in the size, mean or standard deviation of their clips where these cannot be
            prepared for both; if the cache belongs to a different teacher, or to clips or settings other than those of
            `train_dataset`; or if features or modulators are to be matched that a model or the cache does not have,
            or features with FSDP or DeepSpeed.
    """

    args: DistillationConfig

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: DistillationConfig | None = None,
        *,
        teacher_model: PreTrainedModel | str | os.PathLike | None = None,
        teacher_processor: BaseVideoProcessor | None = None,
        **kwargs,
    ):
        args = args or DistillationConfig()
        teacher_model = teacher_model or args.teacher_model_name_or_path
        if teacher_model is None and args.teacher_cache is None:
            raise ValueError(
                "no teacher is given; set `teacher_model`, `args.teacher_model_name_or_path` or `args.teacher_cache`"
            )
        super().__init__(model=model, args=args, **kwargs)
        refuse_other_than_classifier(self.model, "student")
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self.teacher_model: Any = None
        self._teacher_processor: Any = None  # of a teacher that is given clips of its own
        self._teacher_metrics: dict[str, float] | None = None
        self._projection: torch.nn.Linear | None = None  # of the student's features to the teacher's
        self._modulators: MatchedModulators | None = None
        if teacher_model is not None:
            self._take_teacher(teacher_model, teacher_processor)
        if args.teacher_cache is not None:
            self._take_cache(TeacherCache(args.teacher_cache))
        if args.feature_weight:
            self._match_features()
        if args.modulator_weight:
            self._match_modulators()

    def _take_teacher(self, teacher_model: Any, teacher_processor: BaseVideoProcessor | None):
        args = self.args
        if isinstance(teacher_model, (str, os.PathLike)):
            if teacher_processor is None:
                teacher_processor = AutoVideoProcessor.from_pretrained(teacher_model)
            teacher = load_teacher(os.fspath(teacher_model), args.teacher_dtype or "auto")
        else:
            teacher = (
                teacher_model if args.teacher_dtype is None else teacher_model.to(getattr(torch, args.teacher_dtype))
            )
        refuse_other_than_classifier(teacher, "teacher")
        refuse_shared_weights(self.model, teacher)
        if clips_of_its_own(self.model, self.processing_class, teacher, teacher_processor, self.train_dataset):
            self._teacher_processor = self.train_dataset.teacher_processor = teacher_processor
            self.train_dataset.shows_teacher = args.teacher_cache is None
        self._teacher_order = label_order(self.model, label_names(teacher))

        # Not sharded: without gradients and optimizer, a teacher takes little memory, and whole it needs no gathering
        # at each step. Moved to the device here, since accelerate does not do it under FSDP.
        teacher.eval().requires_grad_(False).to(self.args.device)
        self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)
        if self.eval_dataset is not None:
            self.add_callback(_LogTeacher(self))

    def _take_cache(self, cache: TeacherCache):
        if not isinstance(self.train_dataset, (VideoClipDataset, VideoClipStream)):
            raise ValueError(
                "with a teacher cache, `train_dataset` must be a VideoClipDataset or VideoClipStream, which show the "
                f"cached views; got {type(self.train_dataset).__name__}"
            )
        cache.refuse_other_clips(self.train_dataset)
        if self.teacher_model is not None:
            cache.refuse_other_teacher(self.accelerator.unwrap_model(self.teacher_model))
        self._teacher_order = label_order(self.model, cache.labels)
        self.train_dataset.teacher_cache = cache

    def _match_features(self):
        refuse_unsharded_projection(self.accelerator)
        self._student_features = HeadInput(self.model)
        if self.args.teacher_cache is not None:
            width = self.train_dataset.teacher_cache.feature_width
        else:
            teacher = self.accelerator.unwrap_model(self.teacher_model)
            self._teacher_features, width = HeadInput(teacher), feature_width(teacher)
        projection = new_projection(feature_width(self.model), width, self.args.seed)
        self._projection = projection.to(self.args.device)

    def _match_modulators(self):
        args = self.args
        if self._teacher_processor is not None and (args.mixup_alpha or args.cutmix_alpha):
            raise ValueError(
                "modulators cannot be matched here: with mixup or CutMix, a teacher that is given clips of its own "
                "does not see the mixed clip; set mixup_alpha and cutmix_alpha, or modulator_weight, to 0"
            )
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        self._modulators = MatchedModulators(self.model, teacher, args.modulator_kinds, args.modulator_stages)

    def teacher_logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The teacher's logits in the student's class order: float32 of shape (batch, num_labels)."""
        return self._in_order(self._ask(pixel_values)["teacher_logits"])

    def _ask(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"pixel_values": pixel_values.to(next(self.teacher_model.parameters()).dtype)}
        if self._modulators is not None:
            inputs |= {"output_modulators": True, "return_dict": True}
        with torch.no_grad():
            outputs = self.teacher_model(**inputs)
            answers: dict[str, Any] = {"teacher_logits": logits_of(outputs, "teacher", self.model.config.num_labels)}
            if self._modulators is not None:
                answers["teacher_energies"] = self._modulators(outputs)
        if self._projection is not None and self.args.teacher_cache is None:
            answers["teacher_features"] = self._teacher_features.take()
        return answers

    def _in_order(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float()[:, self._teacher_order.to(logits.device)]

    def mix_targets(self, inputs, shares, num_labels):
        super().mix_targets(inputs, shares, num_labels)
        if "teacher_pixel_values" in inputs:
            inputs.update(self._ask(inputs.pop("teacher_pixel_values")))
        if "teacher_logits" in inputs:
            inputs["teacher_logits"] = mixed_answers(
                self.args.divergence, inputs["teacher_logits"], shares, self.args.temperature
            )
        if "teacher_features" in inputs:
            inputs["teacher_features"] = shares @ inputs["teacher_features"].to(shares)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        clips, micro_batches = len(inputs["pixel_values"]), getattr(self, "current_gradient_accumulation_steps", 1)
        shown = inputs.pop("teacher_pixel_values", None)
        answers = {name: inputs.pop(name) for name in ("teacher_logits", "teacher_features") if name in inputs}
        if self._modulators is not None:
            inputs |= {"output_modulators": True, "return_dict": True}
        if self.compute_loss_func is None or "labels" not in inputs:
            labels = inputs.pop("labels", None)
            if labels is None:  # the divergence alone, as where all labels are -100
                labels = torch.full((clips,), -100, device=inputs["pixel_values"].device)
            outputs = model(**inputs)
            logits = logits_of(outputs, "student", self.model.config.num_labels)
            cross_entropy = soft_loss(logits, labels, "single_label_classification", self.args.label_smoothing_factor)
        else:
            # `compute_loss_func` returns this micro-batch's share of the loss of the step. Multiplied by the number of
            # micro-batches, it becomes a mean over the micro-batch, as in the other branch.
            share, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            logits = logits_of(outputs, "student", self.model.config.num_labels)
            cross_entropy = share * micro_batches
        if not answers:
            own = self._teacher_processor is not None
            if self.args.teacher_cache is not None or (own and shown is None):
                raise ValueError(
                    f"the batch contains no {'clips for the teacher' if own else 'cached teacher logits'}; set "
                    "`remove_unused_columns` to False"
                )
            answers = self._ask(shown if own else inputs["pixel_values"])
        teacher_logits = self._in_order(answers["teacher_logits"])

        args = self.args
        divergence = self.compute_divergence(logits, teacher_logits)
        loss = args.alpha * divergence + (1 - args.alpha) * cross_entropy

        agreement = (logits.argmax(-1) == teacher_logits.argmax(-1)).float().mean()
        logged = {"loss_kl": divergence, "loss_ce": cross_entropy, "agreement": agreement}
        if self._projection is not None:
            # in float32 under mixed precision too: features of half precision differ by rounding from clip to clip
            projected = self._projection(self._student_features.take().float())
            logged["loss_features"] = feature_distance(projected, answers["teacher_features"])
            loss = loss + args.feature_weight * logged["loss_features"]
        if self._modulators is not None:
            logged["loss_modulators"] = mean_distance(self._modulators(outputs), answers["teacher_energies"])
            loss = loss + args.modulator_weight * logged["loss_modulators"]
        for name, value in logged.items():
            self._sums[name] += value.detach() * clips
        self._sums["clips"] += clips
        if self.loss_is_scaled_for_ga:
            loss = loss / micro_batches
        return (loss, outputs) if return_outputs else loss

    def compute_divergence(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """The divergence of logits (batch, num_labels), averaged over the batch. Override it to try another one."""
        args = self.args
        return divergence_of(args.divergence, student_logits, teacher_logits, args.temperature, args.beta)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._sums:
            names = sorted(self._sums)
            sums = self.accelerator.reduce(torch.stack([self._sums[name] for name in names]), reduction="sum")
            totals = dict(zip(names, sums.tolist(), strict=True))
            clips = totals.pop("clips")
            logs.update({name: total / clips for name, total in totals.items()})
            self._sums.clear()
        super().log(logs, start_time)

    def train(self, *args, **kwargs):
        self._teacher_metrics = None
        return super().train(*args, **kwargs)

    # The projection is trained like the student, and written beside it

    def _with_projection(self, model: torch.nn.Module) -> torch.nn.Module:
        return model if self._projection is None else torch.nn.ModuleList([model, self._projection])

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        return super().create_optimizer(self._with_projection(self.model if model is None else model))

    def training_step(self, *args, **kwargs):
        if self._projection is not None and self._micro_batch() == 0:
            self._projection.zero_grad()  # the Trainer does so for the student alone
        loss = super().training_step(*args, **kwargs)
        if self._projection is not None and self.accelerator.sync_gradients and self.args.world_size > 1:
            for weight in self._projection.parameters():
                weight.grad = self.accelerator.reduce(weight.grad, reduction="mean")
        return loss

    def _clip_grad_norm(self, model):
        return super()._clip_grad_norm(self._with_projection(model))

    def _get_grad_norm(self, model, grad_norm=None):
        return super()._get_grad_norm(self._with_projection(model), grad_norm)

    def _save_checkpoint(self, model, trial):
        if self._projection is not None:
            refuse_broken_weights(self._projection, self.state.global_step, self._last_clips)
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self._projection is not None and self.args.should_save:
            save_projection(self._projection, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if self._projection is not None and checkpoint is not None:
            load_projection(self._projection, checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)

    def log_teacher(self):
        """
        Log the teacher's accuracy on the evaluation split, and warn if it is no better than chance.

        The teacher is evaluated only once, even if `auto_find_batch_size` starts the training several times.
        """
        found = self._teacher_metrics is None
        if self._teacher_metrics is None:
            self._teacher_metrics = self.evaluate_teacher()
        if self._teacher_metrics["teacher_clips"]:
            self.log(dict(self._teacher_metrics))
        if found:
            warn_of_chance(self._teacher_metrics, self.model.config.num_labels)

    def evaluate_teacher(self, eval_dataset: Dataset | dict[str, Dataset] | str | None = None) -> dict[str, float]:
        """
        Evaluate the teacher on `eval_dataset`, by default the trainer's own, which can also be one of its names. A
        dict of datasets is evaluated as one.

        Returns:
            `teacher_top1_accuracy` and `teacher_top5_accuracy`, in [0, 1], and `teacher_clips`, the number of clips
            that have a label; this alone if it is 0.

        Raises:
            ValueError: If there is no teacher, but only a cache of its logits.
        """
        if self.teacher_model is None:
            raise ValueError(
                "there is no teacher to evaluate, only its cached logits for the training clips; pass `teacher_model`"
            )
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        logits, labels = [], []
        for part in eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]:
            if self._teacher_processor is not None:
                if not isinstance(part, VideoClipDataset):
                    raise ValueError(
                        "the teacher needs clips of its own, and only a VideoClipDataset can be prepared for it, got "
                        f"{type(part).__name__}"
                    )
                part = copy.copy(part)
                part.processor = self._teacher_processor
            for inputs in tqdm(self.get_eval_dataloader(part), desc="teacher", disable=self._no_progress_bar()):
                inputs = self._prepare_inputs(inputs)
                if "labels" not in inputs:
                    continue
                # drops the clips that were repeated to fill the last batch, so that each clip counts once
                batch = self.accelerator.gather_for_metrics(
                    (self.teacher_logits(inputs["pixel_values"]), inputs["labels"])
                )
                logits.append(batch[0].cpu())
                labels.append((batch[1].argmax(-1) if batch[1].is_floating_point() else batch[1]).cpu())
        if not labels:
            return {"teacher_clips": 0}
        prediction = EvalPrediction(torch.cat(logits).numpy(), torch.cat(labels).numpy())
        metrics = {f"teacher_{name}": value for name, value in compute_top_k_metrics(prediction).items()}
        return {**metrics, "teacher_clips": int((prediction.label_ids != -100).sum())}

    def _no_progress_bar(self) -> bool:
        return self.args.disable_tqdm or not self.is_local_process_zero()


class _LogTeacher(TrainerCallback):
    """Logs the teacher's accuracy when training starts. The Trainer would discard an earlier log entry."""

    def __init__(self, trainer: DistillationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.log_teacher()


__all__ = ["DistillationTrainer"]
