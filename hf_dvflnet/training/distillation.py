"""
Distillation of video classifiers: by forward KL, as described in the DVFL-Net paper (arXiv 2507.12426), or otherwise.

The published code computes a different loss: it multiplies the teacher's probabilities by (log p_teacher - p_student),
which is an inner product and not a divergence. It also re-initializes the teacher's head before training.
"""

import copy
import math
import os
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import AutoVideoProcessor, EvalPrediction, PreTrainedModel, TrainerCallback
from transformers.image_utils import SizeDict
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor

from ..configuration_videofocalnet import VideoFocalNetConfig
from ..data.clips import VideoClipDataset
from ..hub.calibration import uncalibrate
from ..hub.image_networks import load_vision_model
from ..hub.loaded_models import HeadInput, feature_width
from ..hub.loading import load_teacher
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .arguments import DistillationConfig
from .checkpoints import has_adapters
from .encoders import Encoder
from .labels import label_names, label_order, logits_of, refuse_other_than_classifier
from .losses import MatchedModulators, divergence_of, feature_distance, mixed_answers, relation_distance
from .metrics import compute_top_k_metrics
from .teacher_cache import TeacherCache
from .trainer import VideoClassificationTrainer


logger = logging.get_logger(__name__)


class DistillationTrainer(VideoClassificationTrainer):
    """
    [`VideoClassificationTrainer`] with a teacher: the loss is
    `alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy`, or with another `args.divergence` in place of
    the KL ([`reverse_kl`], [`jensen_shannon`], [`logit_mse`]). With `args.feature_weight`, its product with the cosine
    distance of the pooled features is added: the student's, through a projection ([`FeatureProjection`]), and the
    teacher's. A model's pooled features are what its `classifier` is given. With `args.modulator_weight`, its product
    with the distance of the modulators of two Video-FocalNets is added: the mean of [`modulator_distance`] over
    `args.modulator_stages` and `args.modulator_kinds`. With `args.relation_weight`, its product with
    [`relation_distance`] of the features is added, which needs no projection.

    With `args.use_labels=False`, these alone are the loss. The teacher is then any vision model of transformers, with
    or without a head ([`Encoder`]), labels are ignored, and the student's head is not trained: `AutoModel` loads the
    rest, as does `dvflnet train`. Features of frames are matched frame by frame if the student is a Video-FocalNet,
    else their mean. They are standardised by their mean and deviation over the clips seen so far, since all features
    of a network are alike in their mean.

    Teacher and student see the same clips. The teacher is frozen, in evaluation mode, and not part of the optimizer or
    of the checkpoints. The evaluation loss is the student's cross-entropy alone. Training
    clips without a label (-100, or a dataset without `labels`) have the divergence alone; if no clip has one, set
    `alpha` to 1. The cross-entropy is the mean over the clips of a micro-batch that have a label.

    Args:
        model ([`PreTrainedModel`]):
            The student.
        teacher_model ([`PreTrainedModel`], `str` or path, *optional*, defaults to `args.teacher_model_name_or_path`):
            Any video classifier that takes `pixel_values` of shape (batch, frames, channels, height, width), or the
            folder or Hub id of one; without labels, any vision model. Weights are loaded from safetensors only. If the
            teacher has the student's class names in a different order, its logits are permuted. Optional with
            `args.teacher_cache`: a teacher given in addition to the cache is evaluated, but not run during training.
        teacher_processor ([`BaseVideoProcessor`], *optional*):
            The teacher's video processor. If `teacher_model` is a folder or Hub id, the default is the processor saved
            there, without labels also the image processor. If it prepares clips of another size, mean or standard
            deviation than the student's (`processing_class`), frames, crop, flip and colours are drawn once for each
            clip, and the clip is prepared for both; `train_dataset` must then be a [`VideoClipDataset`].
        kwargs: Passed to [`VideoClassificationTrainer`].

    The following values are logged with the training loss. Each is the mean over all clips of all ranks since the last
    log: `loss_kl`, the divergence (including the factor `T^2`), `loss_ce`, `loss_features`, `loss_relations` and
    `loss_modulators` where these are matched (before their weights), and `agreement`, the share of clips for which
    teacher and student predict the same class. The teacher's accuracy on the evaluation split is logged as
    `teacher_top1_accuracy` when training starts.

    With `args.teacher_cache` ([`TeacherCache`]), `train_dataset` shows the cached view e mod K of each clip in epoch
    e, and the teacher's logits for this view are read from the cache. With mixup or CutMix, the cached teacher has not
    seen the mixed clip. What the divergence compares, the probabilities at the given temperature or, for `"mse"`, the
    logits, is then mixed in the same way as the labels, and so are its features. The same holds for a teacher that is
    given clips of its own.

    Raises:
        ValueError: If there is no teacher, or its folder contains no weights; with labels, if student or teacher is
            not a classifier with one label per clip, or has no head, or if their classes differ; without, if no
            features of the teacher are found, if the clips do not fill a batch, if there are evaluation data, or if
            clips are mixed and the teacher is given its own; if they share weights; if they differ in their number of
            frames, or in the size, mean or standard deviation of their clips where these cannot be prepared for both;
            if the cache belongs to a different teacher, or to clips or settings other than those of
            `train_dataset`; or if features or modulators are to be matched that a model or the cache does not have.
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
        if args.use_labels:
            refuse_other_than_classifier(self.model, "student")
        else:
            self._leave_labels_out()
        self.current_gradient_accumulation_steps = 1  # set by the Trainer in each step
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self.teacher_model: Any = None
        self._teacher_processor: Any = None  # of a teacher that is given clips of its own
        self._teacher_metrics: dict[str, float] | None = None
        self.encoder: Encoder | None = None  # without labels, the teacher
        self._teacher_features: HeadInput | None = None
        self._projection: FeatureProjection | None = None
        self._modulators: MatchedModulators | None = None
        if teacher_model is not None:
            self._take_teacher(teacher_model, teacher_processor)
        if args.teacher_cache is not None:
            self._take_cache(TeacherCache(args.teacher_cache))
        if args.feature_weight or args.relation_weight:
            self._match_features()
        if args.modulator_weight:
            self._match_modulators()

    # The teacher

    def _take_teacher(self, teacher: Any, processor: BaseVideoProcessor | None):
        args = self.args
        if isinstance(teacher, (str, os.PathLike)):
            name, dtype = os.fspath(teacher), args.teacher_dtype or "auto"
            if args.use_labels:
                processor = processor or AutoVideoProcessor.from_pretrained(name)
                teacher = load_teacher(name, dtype)
            else:
                teacher, prepared = load_vision_model(name, dtype)
                if processor is None and (ours := self.processing_class) is not None:
                    frames = {name: getattr(ours, name) for name in ("num_frames", "frame_interval", "fps")}
                    processor = VideoFocalNetVideoProcessor(**frames, **prepared)
        elif args.teacher_dtype is not None:
            teacher = teacher.to(getattr(torch, args.teacher_dtype))
        if args.use_labels:
            refuse_other_than_classifier(teacher, "teacher")
            uncalibrate(teacher, "it teaches")
        else:
            config: Any = self.model.config
            side = config.image_size
            if isinstance(processor, VideoFocalNetVideoProcessor):
                side = processor.crop_size["height"]
            self.encoder = Encoder(teacher, args.teacher_features, config.num_frames, side)
            teacher = self.encoder.model
            logger.info(f"{self.encoder}")
        refuse_shared_modules(self.model, teacher)
        if clips_of_its_own(self.model, self.processing_class, teacher, processor, self.train_dataset):
            self._teacher_processor = self.train_dataset.teacher_processor = processor
            self.train_dataset.shows_teacher = args.teacher_cache is None
            if (not args.use_labels or args.modulator_weight) and (args.mixup_alpha or args.cutmix_alpha):
                or_weight = ", or modulator_weight," if args.modulator_weight else ""
                raise ValueError(
                    "with mixup or CutMix, a teacher that is given clips of its own does not see the mixed clip; set "
                    f"mixup_alpha and cutmix_alpha{or_weight} to 0"
                )
        if args.use_labels:
            self._teacher_order = label_order(self.model, label_names(teacher))

        teacher.eval().requires_grad_(False).to(args.device)
        self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)
        if self.eval_dataset is not None:
            self.add_callback(_LogTeacher(self))

    def _take_cache(self, cache: TeacherCache):
        if not isinstance(self.train_dataset, VideoClipDataset):
            raise ValueError(
                "with a teacher cache, `train_dataset` must be a VideoClipDataset, which shows the cached views; got "
                f"{type(self.train_dataset).__name__}"
            )
        cache.refuse_other_clips(self.train_dataset)
        if self.teacher_model is not None:
            cache.refuse_other_teacher(self.accelerator.unwrap_model(self.teacher_model))
        if self.args.use_labels:
            self._teacher_order = label_order(self.model, cache.labels)
        self.train_dataset.teacher_cache = cache

    def _match_features(self):
        by_frame = False
        if self.args.teacher_cache is not None:
            cache = self.train_dataset.teacher_cache
            width, by_frame = cache.feature_width, "frames" in cache.key
        elif self.encoder is not None:
            width, by_frame = self.encoder.width, self.encoder.of_frames
        else:
            teacher = self.accelerator.unwrap_model(self.teacher_model)
            self._teacher_features, width = HeadInput(teacher), feature_width(teacher)
        self._projection = FeatureProjection(
            self.model,
            width,
            self.args.seed,
            by_frame=by_frame,
            standardizes=not self.args.use_labels,
        )

    def _leave_labels_out(self):
        """Neither labels nor classes of the data are read."""
        if self.eval_dataset is not None:
            raise ValueError("use_labels=False leaves nothing to evaluate the student by; leave eval_dataset out")
        self.data_collator = getattr(self.data_collator, "collate", self.data_collator)  # without a check of labels
        clips: Any = self.train_dataset
        batch = self.args.train_batch_size * self.args.world_size
        if hasattr(clips, "__len__") and len(clips) < batch:
            raise ValueError(
                f"{len(clips)} training clips do not fill a batch of {batch}, the least that is learned from without "
                "labels; add videos, or choose a smaller per_device_train_batch_size"
            )

    def _match_classes(self):
        if self.args.use_labels:
            super()._match_classes()

    def _match_modulators(self):
        args, teacher = self.args, self.accelerator.unwrap_model(self.teacher_model)
        self._modulators = MatchedModulators(self.model, teacher, args.modulator_kinds, args.modulator_stages)

    def ask_teacher(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        """The teacher's `teacher_logits`, in its own class order, unless there are no labels; and what is matched."""
        pixel_values = pixel_values.to(next(self.teacher_model.parameters()).dtype)
        options: dict[str, Any] = {}
        if self._modulators is not None:
            options |= {"output_modulators": True, "return_dict": True}
        answers: dict[str, Any] = {}
        with torch.no_grad():
            if self.encoder is None:
                outputs = self.teacher_model(pixel_values=pixel_values, **options)
                answers["teacher_logits"] = logits_of(outputs, "teacher", self.model.config.num_labels)
            else:
                options = self.encoder.options | options
                outputs = self.teacher_model(self.encoder.given(pixel_values), **options)
                answers["teacher_features"] = self.encoder.read(outputs, len(pixel_values))
            if self._modulators is not None:
                answers["teacher_energies"] = self._modulators.energies(outputs)
        if self._teacher_features is not None:
            answers["teacher_features"] = self._teacher_features.take()
        return answers

    def teacher_logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The teacher's logits in the student's class order: float32 of shape (batch, num_labels)."""
        return self._in_order(self.ask_teacher(pixel_values)["teacher_logits"])

    def _in_order(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float()[:, self._teacher_order.to(logits.device)]

    # One training step

    def mix_targets(self, inputs, shares, num_labels):
        if self.args.use_labels:
            super().mix_targets(inputs, shares, num_labels)
        if "teacher_pixel_values" in inputs:
            inputs.update(self.ask_teacher(inputs.pop("teacher_pixel_values")))
        if "teacher_logits" in inputs:
            inputs["teacher_logits"] = mixed_answers(
                self.args.divergence, inputs["teacher_logits"], shares, self.args.temperature
            )
        if "teacher_features" in inputs:
            features = inputs["teacher_features"].to(shares)
            inputs["teacher_features"] = torch.tensordot(shares, features, 1)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs, args = dict(inputs), self.args
        clips = len(inputs["pixel_values"])
        answers = self._answers(inputs)

        # student
        if self._modulators is not None:
            inputs |= {"output_modulators": True, "return_dict": True}
        labels = inputs.pop("labels", None)
        outputs = model(**inputs)
        if self._projection is not None:
            outputs, projected, features = outputs
        if args.use_labels:
            loss, logged = self._label_losses(outputs, labels, answers, clips, num_items_in_batch)
        else:  # DDP waits for the gradients of all that is returned
            loss, logged = 0 * logits_of(outputs, "student", self.model.config.num_labels).sum(), {}
        if self._projection is not None:
            theirs = self._projection.shown(answers["teacher_features"], features)
            if args.feature_weight:
                logged["loss_features"] = feature_distance(projected, theirs)
                loss = loss + args.feature_weight * logged["loss_features"]
            else:
                loss = loss + 0 * projected.sum()
            if args.relation_weight:
                logged["loss_relations"] = relation_distance(features, theirs)
                loss = loss + args.relation_weight * logged["loss_relations"]
        if self._modulators is not None:
            logged["loss_modulators"] = self._modulators.distance(outputs, answers["teacher_energies"])
            loss = loss + args.modulator_weight * logged["loss_modulators"]
        for name, value in logged.items():
            self._sums[name] += value.detach() * clips
        self._sums["clips"] += clips
        if self.loss_is_scaled_for_ga:
            loss = loss / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _label_losses(
        self, outputs: Any, labels: Any, answers: dict[str, Any], clips: int, num_items_in_batch: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Divergence and cross-entropy, weighted, and what is logged of them."""
        args = self.args
        logits = logits_of(outputs, "student", self.model.config.num_labels)
        if self.compute_loss_func is None or labels is None:
            if labels is None:  # the divergence alone, as where all labels are -100
                labels = torch.full((clips,), -100, device=logits.device)
            cross_entropy = self.label_loss(logits, labels, training=True)
        else:
            # it returns this micro-batch's share of the loss of the step, on all processes if it divides by the number
            # of items; multiplied by the number of micro-batches, it becomes a mean, as in the other branch
            cross_entropy = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
            if num_items_in_batch is not None and args.average_tokens_across_devices:
                cross_entropy = cross_entropy * self.accelerator.num_processes
            cross_entropy = cross_entropy * self.current_gradient_accumulation_steps

        teacher_logits = self._in_order(answers["teacher_logits"])
        divergence = self.compute_divergence(logits, teacher_logits)
        loss = args.alpha * divergence + (1 - args.alpha) * cross_entropy
        agreement = (logits.argmax(-1) == teacher_logits.argmax(-1)).float().mean()
        return loss, {"loss_kl": divergence, "loss_ce": cross_entropy, "agreement": agreement}

    def _answers(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Take the teacher's answers out of a batch, where the cache or `mix_targets` put them, or ask the teacher."""
        shown = inputs.pop("teacher_pixel_values", None)
        names = ("teacher_logits", "teacher_features")
        if answers := {name: inputs.pop(name) for name in names if name in inputs}:
            return answers
        own = self._teacher_processor is not None
        if self.args.teacher_cache is not None or (own and shown is None):
            raise ValueError(
                f"the batch contains no {'clips for the teacher' if own else 'cached teacher logits'}; set "
                "`remove_unused_columns` to False"
            )
        return self.ask_teacher(shown if own else inputs["pixel_values"])

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

    # The whole training

    def train(self, *args, **kwargs):
        self._teacher_metrics = None
        if self._projection is None:
            return super().train(*args, **kwargs)
        self._projection.attach()
        try:
            return super().train(*args, **kwargs)
        finally:
            self._projection.detach()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        projection = self._projection
        if projection is None or projection.hook is None or _internal_call:  # the latter for a checkpoint
            super().save_model(output_dir, _internal_call)
            return
        projection.detach()  # a callback saves the student during training
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            projection.attach()

    def about_run(self) -> dict[str, Any]:
        return {**super().about_run(), "features": self._projection is not None}

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
        if not self.args.use_labels:
            raise ValueError("use_labels=False: the teacher's classes are not used, so there is nothing to evaluate")
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
            quiet = self.args.disable_tqdm or not self.is_local_process_zero()
            for inputs in tqdm(self.get_eval_dataloader(part), desc="teacher", disable=quiet):
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

    def log_teacher(self):
        """
        Log the teacher's accuracy on the evaluation split, and warn if it is no better than chance.

        The teacher is evaluated only once, even if `auto_find_batch_size` starts the training several times.
        """
        first = self._teacher_metrics is None
        metrics = self._teacher_metrics = self._teacher_metrics or self.evaluate_teacher()
        clips, chance = metrics["teacher_clips"], 1 / self.model.config.num_labels
        if clips:
            self.log(dict(metrics))
        elif first:
            logger.warning("No evaluation clip has a label, so the teacher's accuracy is not known")
        bound = chance + 2 * math.sqrt(chance * (1 - chance) / max(clips, 1))
        if clips and first and metrics["teacher_top1_accuracy"] <= bound:
            logger.warning(
                f"The teacher's accuracy is {metrics['teacher_top1_accuracy']:.1%} on {clips} evaluation clips, no "
                f"better than chance ({chance:.1%}). Check that its head was trained, and on these classes"
            )


class _LogTeacher(TrainerCallback):
    """Logs the teacher's accuracy when training starts. The Trainer would discard an earlier log entry."""

    def __init__(self, trainer: DistillationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.log_teacher()


class FeatureProjection:
    """
    A linear layer from the student's features to the teacher's width, as in FitNets (arXiv 1412.6550).

    During training it is the submodule `feature_projection` of the student, called in its forward pass. Optimizer,
    clipping, checkpoints, several processes and sharding therefore treat it like any other layer. Afterwards, and
    wherever the student is saved as a model, the student is without it.

    Args:
        student: The student, which may be a `PeftModel`.
        width: Number of values of the teacher's features.
        seed: Seed of the first weights, which are then the same in all processes.
        by_frame: Whether the teacher's features are those of frames. Those of a student that is a Video-FocalNet are
            then the mean over the positions of each frame; of other students, all are of the whole clip.
        standardizes: Whether the teacher's features are standardised.
    """

    def __init__(self, student: Any, width: int, seed: int, by_frame: bool = False, standardizes: bool = False):
        self.features = HeadInput(student)
        self.by_frame = by_frame and student.config.model_type == VideoFocalNetConfig.model_type
        with torch.random.fork_rng(devices=[]):  # the training's own draws stay those of a training without features
            torch.manual_seed(seed)
            self.layer: nn.Module = nn.Linear(feature_width(student), width)
        if standardizes:
            for name in ("rows", "sum", "squares"):  # in checkpoints, with the layer
                self.layer.register_buffer(name, torch.zeros(width))
        self.layer.to(next(student.parameters()).device)
        self.statistics: Any = self.layer if standardizes else None
        self.owner = student
        if has_adapters(student):
            from peft.utils import ModulesToSaveWrapper

            self.owner = student.get_base_model()
            self.layer = ModulesToSaveWrapper(self.layer, student.active_adapter)  # else PEFT would not save it
        self.hook: Any = None  # while attached
        self.hidden: Any = None  # of the last forward pass

    def attach(self):
        """Make the layer a part of the student."""
        self.owner.feature_projection = self.layer
        self.hook = self.owner.register_forward_hook(self._project)
        if self.by_frame:
            self.keeper = self.owner.base_model.layernorm.register_forward_hook(self._keep)

    def detach(self):
        """Leave the student as it was."""
        del self.owner.feature_projection
        self.hook.remove()
        self.hook = None
        if self.by_frame:
            self.keeper.remove()
            self.hidden = None

    def _keep(self, layer: nn.Module, inputs: Any, hidden: torch.Tensor):
        self.hidden = hidden  # (batch, frames, height, width, channels)

    def _project(self, student: nn.Module, inputs: Any, outputs: Any) -> Any:
        """In training, return features, projected and not, beside the outputs: DDP looks there for what is trained."""
        if not student.training:
            return outputs
        features = self.hidden.mean((2, 3)) if self.by_frame else self.features.take()
        # in float32 under mixed precision too: features of half precision differ by rounding from clip to clip
        with torch.autocast(features.device.type, enabled=False):
            return outputs, self.layer(features.float()), features

    def shown(self, theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
        """The teacher's features as the student's are compared with them: of as many frames, or of the clip."""
        if (seen := self.statistics) is not None:
            rows = theirs.float().flatten(0, -2)
            seen.rows += len(rows)
            seen.sum += rows.sum(0)
            seen.squares += rows.square().sum(0)
            mean = seen.sum / seen.rows
            deviation = (seen.squares / seen.rows - mean.square()).clamp(min=0).sqrt()
            theirs = (theirs.float() - mean) / (deviation + 1e-3)
        if theirs.ndim > ours.ndim:
            return theirs.mean(1)
        if theirs.ndim == 3:  # a student with tubelets has fewer frames
            return theirs.unflatten(1, (ours.shape[1], -1)).mean(2)
        return theirs


def refuse_shared_modules(student: nn.Module, teacher: nn.Module):
    """Raise `ValueError` if the models share a weight or module: the teacher's are frozen, in evaluation mode."""
    for kind in ("parameters", "modules"):
        ids = {id(part) for part in getattr(teacher, kind)()}
        shared = [name for name, part in getattr(student, f"named_{kind}")() if id(part) in ids]
        if shared:
            raise ValueError(
                f"teacher and student share {len(shared)} {kind}, such as {shared[0]}, but the teacher is frozen; "
                "give the teacher its own, for example with copy.deepcopy"
            )


def clips_of_its_own(
    student: PreTrainedModel, student_processor: Any, teacher: PreTrainedModel, teacher_processor: Any, clips: Any
) -> bool:
    """
    Return `True` if teacher and student need different preprocessing: another size, mean or standard deviation.

    Raises `ValueError`, with every difference, if the number of frames differs, or if the training clips cannot be
    prepared for both. Without both video processors, only the number of frames in the models' configs is compared.
    """
    differences = {}
    for name in ("num_frames", "size", "crop_size", "image_mean", "image_std"):
        ours, theirs = (_comparable(getattr(each, name, None)) for each in (student_processor, teacher_processor))
        if ours != theirs and student_processor is not None and teacher_processor is not None:
            differences[f"processor.{name}"] = f"{theirs} and {ours}"
    teacher_frames = getattr(getattr(teacher, "config", None), "num_frames", None)
    if teacher_frames not in (None, student.config.num_frames):
        differences["config.num_frames"] = f"{teacher_frames} and {student.config.num_frames}"
    if not differences:
        return False
    listed = "; ".join(f"{name}: {values}" for name, values in differences.items())
    if any(name.endswith("num_frames") for name in differences):
        raise ValueError(
            f"teacher and student must be shown the same frames, but they differ (teacher's value first) in {listed}"
        )
    if not isinstance(clips, VideoClipDataset) or not isinstance(teacher_processor, VideoFocalNetVideoProcessor):
        raise ValueError(
            f"teacher and student expect different clips (teacher's value first): {listed}. Both can be prepared if "
            "the training data is a VideoClipDataset and the teacher's processor a VideoFocalNetVideoProcessor; got "
            f" {type(clips).__name__} and {type(teacher_processor).__name__}"
        )
    return True


def _comparable(value: Any) -> Any:
    if isinstance(value, SizeDict):
        return {name: number for name, number in asdict(value).items() if number is not None}
    return list(value) if isinstance(value, (list, tuple)) else value
