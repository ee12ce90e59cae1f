"""Arguments of training and of distillation, and the learning rate schedule of the published recipe."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from .encoders import FEATURES
from .losses import DIVERGENCES, MODULATOR_KINDS, refuse_other_beta


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """
    transformers' [`TrainingArguments`] with additional settings for the published recipe.

    Raises:
        ValueError: If a value is out of range.
    """

    published_schedule: bool = field(
        default=False,
        metadata={
            "help": "Use the published schedule instead of `lr_scheduler_type`: a cosine over all training steps. "
            "During the first `warmup_steps`, a linear warm-up replaces the cosine."
        },
    )
    min_learning_rate: float = field(
        default=0.0, metadata={"help": "Learning rate at which the published schedule starts and ends."}
    )
    reference_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Global batch size for which the learning rates are given. They are scaled linearly to the actual "
            "global batch size, including one found by `auto_find_batch_size`. Not scaled if unset."
        },
    )
    mixup_alpha: float = field(
        default=0.0, metadata={"help": "Parameter alpha of mixup's Beta distribution; 0 disables mixup."}
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Parameter alpha of CutMix's Beta distribution; 0 disables CutMix. If mixup is enabled too, each "
            "batch uses one of the two at random, with equal probability."
        },
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "Weights of the classes in the training loss: none, or balanced, inversely proportional to the "
            "number of training clips of each class."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after this number of evaluations without a better `metric_for_best_model` (the evaluation "
            "loss if unset), and keep the best weights; needs eval_strategy. Never stops early if unset."
        },
    )
    max_broken_share: float = field(
        default=0.01,
        metadata={"help": "Maximum share of unreadable (replaced) training clips; the run stops if there are more."},
    )
    dataloader_timeout: float = field(
        default=600.0,
        metadata={
            "help": "Seconds to wait for a batch before the decoding worker counts as hung and the run stops; 0 means "
            "no limit."
        },
    )
    # clip names and cached teacher logits are not arguments of the model, but must reach the trainer
    remove_unused_columns: bool = field(default=False, metadata={"help": "As in transformers, but False by default."})
    # the filter would hide a loss that is not finite, which must stop the run, and synchronize every micro-batch
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "As in transformers, but False by default."})

    def __post_init__(self):
        if self.early_stopping_patience is not None:
            self.load_best_model_at_end = True
            self.restore_callback_states_from_checkpoint = True  # a resumed run keeps its patience
        super().__post_init__()
        # which PyTorch warns of where there is no accelerator
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False
        for name in ("min_learning_rate", "mixup_alpha", "cutmix_alpha", "max_broken_share", "dataloader_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.reference_batch_size is not None and self.reference_batch_size < 1:
            raise ValueError(f"reference_batch_size must be at least 1, got {self.reference_batch_size}")
        if self.class_weights not in ("none", "balanced"):
            raise ValueError(f"class_weights must be none or balanced, got {self.class_weights!r}")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience must be at least 1, got {self.early_stopping_patience}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate={self.min_learning_rate} is above learning_rate={self.learning_rate}")


@dataclass
class DistillationConfig(VideoTrainingArguments):
    """
    [`VideoTrainingArguments`] with the settings of the distillation. The defaults are the published values.

    Raises:
        ValueError: If a value is out of range.
    """

    teacher_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of the teacher. Used if no teacher_model is passed to the trainer."},
    )
    teacher_dtype: str | None = field(
        default=None,
        metadata={"help": "Data type of the teacher's weights: float32, bfloat16 or float16; as saved if unset."},
    )
    teacher_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder written by `dvflnet cache-teacher`. Its logits are used instead of running the teacher."
        },
    )
    use_labels: bool = field(
        default=True,
        metadata={
            "help": "False: match features, relations or modulators alone. The data need no labels, those that there "
            "are are ignored, and the teacher is any vision model of transformers, of clips or of frames."
        },
    )
    teacher_features: str = field(
        default="auto",
        metadata={
            "help": "Features of a teacher without labels: pooled (its pooled output), cls (its CLS token) or mean "
            "(of all its tokens); auto: the first of these that it has."
        },
    )
    alpha: float = field(
        default=0.2,
        metadata={"help": "Weight of the divergence, in [0, 1]; the weight of the cross-entropy is 1 - alpha."},
    )
    temperature: float = field(default=10.0, metadata={"help": "Temperature of both softmaxes; must be above 0."})
    divergence: str = field(
        default="forward_kl",
        metadata={
            "help": "Divergence of student and teacher: forward_kl, reverse_kl, jensen_shannon, or mse, the mean "
            "squared difference of the logits, which has no temperature."
        },
    )
    beta: float = field(
        default=0.5,
        metadata={"help": "The teacher's share of the mixture in jensen_shannon, strictly between 0 and 1."},
    )
    feature_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the cosine distance between the pooled features of student and teacher; 0: none."
        },
    )
    relation_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the difference between the distances that the clips of a batch have from each other in "
            "the features of student and teacher; 0: none."
        },
    )
    modulator_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the distance between the maps of where the modulators of student and teacher are "
            "strong; 0: none. Both must be Video-FocalNets, and the teacher must run in training."
        },
    )
    modulator_kinds: str = field(
        default="both", metadata={"help": "Modulators that are matched: spatial, temporal or both."}
    )
    modulator_stages: list[int] | None = field(
        default=None, metadata={"help": "Stages whose modulators are matched, numbered from 1; all if unset."}
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.divergence not in DIVERGENCES:
            raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {self.divergence!r}")
        refuse_other_beta(self.beta)
        matched = ("feature_weight", "relation_weight", "modulator_weight")
        for name in matched:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        names = ("alpha", *matched) if self.use_labels else matched
        if not any(getattr(self, name) for name in names):
            alone = ", or train with VideoClassificationTrainer" if self.use_labels else ", or use_labels"
            raise ValueError(
                f"{', '.join(names[:-1])} and {names[-1]} are all 0, so the teacher would teach nothing; set one of "
                f"them{alone}"
            )
        if self.teacher_features not in ("auto", *FEATURES):
            raise ValueError(f"teacher_features must be auto, {', '.join(FEATURES)}, got {self.teacher_features!r}")
        if self.use_labels and self.teacher_features != "auto":
            raise ValueError(
                f"teacher_features={self.teacher_features} is for use_labels=False; with labels, the features are "
                "what the teacher's `classifier` is given"
            )
        if self.modulator_kinds not in MODULATOR_KINDS:
            raise ValueError(
                f"modulator_kinds must be one of {', '.join(MODULATOR_KINDS)}, got {self.modulator_kinds!r}"
            )
        stages = self.modulator_stages
        if stages is not None and (not stages or min(stages) < 1 or len(set(stages)) < len(stages)):
            raise ValueError(f"modulator_stages must be different numbers from 1, at least one, got {stages}")
        if self.modulator_weight and self.teacher_cache is not None:
            raise ValueError(
                f"modulator_weight={self.modulator_weight} needs the teacher's modulators at each step, and a "
                "teacher_cache contains none; unset one of the two"
            )
        if self.teacher_dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"teacher_dtype must be float32, bfloat16 or float16, got {self.teacher_dtype!r}")


def published_schedule(step: int, num_training_steps: int, num_warmup_steps: int, floor: float) -> float:
    """
    The learning rate at a step in the recipe of Video-FocalNets and DVFL-Net, as a multiple of the peak rate.

    The cosine spans all steps, and a linear warm-up from `floor` to 1 replaces its beginning. The rate therefore drops
    when the warm-up ends: to 0.93 of the peak if the warm-up takes a sixth of the steps. (In transformers' schedules
    the cosine begins at the end of the warm-up.) At its end, the cosine is at `floor`, too.
    """
    if step < num_warmup_steps:
        return floor + (1 - floor) * step / num_warmup_steps
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(step / num_training_steps, 1))) / 2
