"""
A video classifier made of an image network: features of each frame, pooled over the frames, and a linear head.

This file is saved with a model, hence flat: `trust_remote_code=True` loads it without the package.

There are far more good image networks than video networks. The mean of the features over the frames says what
they show, and the mean absolute difference between neighbouring frames says how much of it changes. Neither depends
on the direction of time; the trend over the frames, an option, does.
"""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .clip_sampling import check_positive
from .configuration_videofocalnet import let_others_read, refuse_other_num_frames
from .modeling_videofocalnet import average_views


@strict
class FrameModelConfig(PreTrainedConfig):
    """
    Configuration of a [`FrameModelForVideoClassification`].

    Args:
        body_config (`PreTrainedConfig` or `dict`, *optional*):
            Config of the image network, of any architecture of transformers. None for a network that is given as a
            bare `torch.nn.Module`.
        feature_size (`int`, *optional*, defaults to 768):
            Number of features of a frame. [`FrameModelForVideoClassification.from_image_model`] finds it out.
        image_size (`int`, *optional*, defaults to 224):
            Height and width of the frames, in pixels.
        num_frames (`int`, *optional*, defaults to 8):
            Number of frames that the processor samples for a clip. The model itself accepts any number from 2.
        freeze_body (`bool`, *optional*, defaults to `True`):
            Whether only the head is trained. The image network is then always in evaluation mode.
        head_dropout (`float`, *optional*, defaults to 0.5):
            Dropout rate of the pooled features, in [0, 1).
        frame_trend (`bool`, *optional*, defaults to `False`):
            Whether the head is also given the trend of each feature over the frames, which tells a clip from the same
            played backwards, such as sitting down from standing up.
        pooling (`str`, *optional*, defaults to `"mean_and_change"`):
            What the head is given: the mean of the frames' features and of their changes; or `"unit_mean"`, the mean
            of the features scaled to length 1, as [`FrameModelForVideoClassification.from_text`] compares them.
        projection_size (`int`, *optional*):
            Number of features after a linear projection of those of the image network, as CLIP has one; no projection
            if None.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution that initialises the head.
    """

    model_type = "frame_model"
    sub_configs = {"body_config": AutoConfig}
    keys_to_ignore_at_inference = ["pooler_output"]

    body_config: dict | PreTrainedConfig | None = None
    feature_size: int = 768
    image_size: int = 224
    num_frames: int = 8
    freeze_body: bool = True
    head_dropout: float | int = 0.5
    frame_trend: bool = False
    pooling: str = "mean_and_change"
    projection_size: int | None = None
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs):
        if isinstance(self.body_config, dict):
            kind = self.body_config.get("model_type")
            if kind not in CONFIG_MAPPING:
                raise ValueError(f"body_config must name a model_type that transformers knows, got {kind!r}")
            self.body_config = CONFIG_MAPPING[kind].from_dict(self.body_config)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Check the values. `@strict` calls this method when a config is constructed."""
        check_positive(feature_size=self.feature_size, image_size=self.image_size)
        if self.num_frames < 2:
            raise ValueError(f"num_frames={self.num_frames} must be at least 2, as neighbouring frames are compared")
        if self.pooling not in ("mean_and_change", "unit_mean"):
            raise ValueError(f"pooling={self.pooling!r} must be 'mean_and_change' or 'unit_mean'")
        if self.pooling == "unit_mean" and self.frame_trend:
            raise ValueError("frame_trend is for pooling='mean_and_change'")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout={self.head_dropout} must be in [0, 1)")


@dataclass
class FrameModelOutput(ModelOutput):
    """
    Output of [`FrameModelForVideoClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, with `labels`):
            Cross-entropy, or the loss of `config.problem_type`.
        logits (`torch.FloatTensor` of shape `(batch, num_labels)`):
            Scores before the softmax.
        pooler_output (`torch.FloatTensor` of shape `(batch, 2 * feature_size)`):
            What the head is given: the mean of the frames' features, then the mean absolute difference of neighbouring
            frames, and with `frame_trend` the features' trend, in `3 * feature_size` numbers in all. With several
            views, the first dimension is `batch * views`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None


class FrameModelForVideoClassification(PreTrainedModel):
    """
    An image network as a video classifier: the features of each frame, pooled over the frames, and a linear head.

    It can be used wherever a model or a teacher can. The Auto classes load it after `import hf_dvflnet`, if the image
    network has a config of transformers.

    Args:
        config ([`FrameModelConfig`]): The configuration.
        body (`torch.nn.Module`, *optional*): The image network, which takes (frames, channels, height, width). By
            default, it is made from `config.body_config`. A bare module returns features of shape (frames,
            feature_size), or maps, (frames, feature_size, height, width), which are averaged over the positions.

    Raises:
        ValueError: If there is neither a body nor a config of one.
    """

    config_class = FrameModelConfig
    base_model_prefix = "body"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    accepts_loss_kwargs = False  # the loss is a mean over the batch
    _supports_sdpa = True  # passed on to the image network, which says what it supports itself

    def __init__(self, config: FrameModelConfig, body: nn.Module | None = None):
        super().__init__(config)
        self.loss_type = "ForVideoClassification"
        if body is None:
            if config.body_config is None:
                raise ValueError(
                    "the config has no body_config; give the image network as `body`, or use `from_image_model`"
                )
            body = AutoModel.from_config(config.body_config, trust_remote_code=False)
        self.body = body
        self.dropout = nn.Dropout(config.head_dropout)
        parts = 1 if config.pooling == "unit_mean" else 3 if config.frame_trend else 2
        self.projection: nn.Linear | None = None
        if config.projection_size is not None:
            self.projection = nn.Linear(config.feature_size, config.projection_size, bias=False)
        self.classifier = nn.Linear(parts * (config.projection_size or config.feature_size), config.num_labels)
        self.post_init()
        self.train()

    @classmethod
    def from_image_model(cls, body: str | os.PathLike | nn.Module, **fields: Any) -> Self:
        """
        Make a classifier with a new head of an image network.

        Args:
            body: The folder or Hub id of a model of transformers, such a model, or a bare `torch.nn.Module`, which
                cannot be saved.
            fields: Fields of the [`FrameModelConfig`], such as `num_labels`, `id2label`, `image_size`.

        Raises:
            ValueError: If the network does not take images of `image_size`.
        """
        network: nn.Module = body if isinstance(body, nn.Module) else AutoModel.from_pretrained(body)
        # a copy, since the classifier's own attention implementation is written into it
        config = FrameModelConfig(body_config=copy.deepcopy(getattr(network, "config", None)), **fields)
        weight = next(network.parameters())
        frame = torch.zeros(1, 3, config.image_size, config.image_size, dtype=weight.dtype, device=weight.device)
        try:
            with torch.no_grad():
                config.feature_size = _features_of(network.eval(), frame).shape[-1]
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:  # each network has its own
            side = getattr(getattr(network, "config", None), "image_size", None)
            raise ValueError(
                f"{type(network).__name__} does not take an image of 3 x {config.image_size} x {config.image_size}: "
                f"{error}. Expected is an image network that takes images of this size"
                + (f"; its config has image_size={side}" if side is not None else "")
            ) from error
        return cls(config, network)

    @classmethod
    def from_text(
        cls,
        name: str | os.PathLike,
        labels: Sequence[str],
        templates: Sequence[str] = ("a photo of {}.",),
        **fields: Any,
    ) -> Self:
        """
        Make a classifier of named classes that needs no training, of a network that compares images with text, such as
        CLIP (arXiv 2103.00020) or SigLIP (arXiv 2303.15343).

        The logit of a class is the mean over the frames of `logits_per_image`. The text tower is not part of the
        model. SigLIP's scores are sigmoids, so its `problem_type` is `"multi_label_classification"`.

        Args:
            name: Folder or Hub id of the network, with its tokenizer. Weights are read from safetensors only.
            labels: Names of the classes, as text: `"juggling balls"`, not `"JugglingBalls"`.
            templates: Sentences with `{}` for the name; the mean of their embeddings stands for the class.
            fields: Fields of the [`FrameModelConfig`], such as `num_frames`.

        Raises:
            ValueError: If the network has no text tower, no tokenizer or not all weights, or a template has no `{}`.
        """
        if wrong := [template for template in templates if "{}" not in template]:
            raise ValueError(f"the template {wrong[0]!r} has no {{}} for the name of a class")
        options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        network, loading = AutoModel.from_pretrained(name, **options)
        if loading["missing_keys"]:  # transformers would initialise them at random
            raise ValueError(f"{name}: lacks the weights {', '.join(sorted(map(str, loading['missing_keys'])))}")
        if not hasattr(network, "get_text_features") or not hasattr(network, "vision_model"):
            raise ValueError(f"{name}: is a {type(network).__name__}, which does not compare images with text")
        lacks = f"{name}: has no tokenizer for its text tower, which the names of the classes need; save it there"
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(lacks) from error
        vocabulary = network.config.text_config.vocab_size
        if not 0.5 * vocabulary < len(tokenizer) <= vocabulary:  # transformers may make an empty one
            raise ValueError(lacks)
        sentences = [template.format(label) for label in labels for template in templates]
        is_sigmoid = hasattr(network, "logit_bias")
        # SigLIP was trained with sentences of one length
        inputs = tokenizer(
            sentences, padding="max_length" if is_sigmoid else True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            embeddings = F.normalize(network.get_text_features(**inputs).pooler_output, dim=-1)
        embeddings = F.normalize(embeddings.unflatten(0, (len(labels), len(templates))).mean(1), dim=-1)
        projection: Any = getattr(network, "visual_projection", None)
        body = network.vision_model
        config = FrameModelConfig(
            body_config=copy.deepcopy(body.config),
            image_size=body.config.image_size,
            feature_size=body.config.hidden_size,
            projection_size=None if projection is None else projection.out_features,
            pooling="unit_mean",
            problem_type="multi_label_classification" if is_sigmoid else None,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            **fields,
        )
        model = cls(config, body)
        with torch.no_grad():
            if model.projection is not None:
                model.projection.weight.copy_(projection.weight)
            model.classifier.weight.copy_(network.logit_scale.exp() * embeddings)
            model.classifier.bias.copy_(network.logit_bias.expand(len(labels)) if is_sigmoid else torch.zeros(1))
        return model

    def _init_weights(self, module: nn.Module):
        if module is self.classifier:
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.config.freeze_body:
            # here, since `from_pretrained` replaces the weights by trainable ones, and then calls `eval()`
            self.body.eval().requires_grad_(False)
            if self.projection is not None:
                self.projection.requires_grad_(False)
        return self

    def pooled_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        What the head is given for each clip.

        Args:
            pixel_values: Normalised clips, (batch, frames, channels, height, width).

        Returns:
            (batch, 2 * feature_size), or (batch, 3 * feature_size) with `frame_trend`; (batch, projection_size or
            feature_size) with the pooling `"unit_mean"`.
        """
        batch, frames = pixel_values.shape[:2]
        if frames < 2:
            raise ValueError(f"a clip must have at least 2 frames, as neighbouring ones are compared, got {frames}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_body):
            # the layout that convolutions are fastest in: 1.8 times as fast for EfficientNet-Lite0 on a CPU
            images = pixel_values.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            features = _features_of(self.body, images).unflatten(0, (batch, frames))
            if self.projection is not None:
                features = self.projection(features)
        if self.config.pooling == "unit_mean":
            return F.normalize(features, dim=-1).mean(1)
        pooled = [features.mean(1), features.diff(dim=1).abs().mean(1)]
        if self.config.frame_trend:
            time = torch.linspace(-1, 1, frames, dtype=features.dtype, device=features.device)
            pooled.append(2 * (features * time[:, None]).mean(1))
        return torch.cat(pooled, dim=-1)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> FrameModelOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch, frames, channels, height, width)`):
                Normalised clips. Several views of each clip, `(batch, views, frames, channels, height, width)`, are
                classified separately, and their scores are averaged.
            labels (`torch.Tensor`, *optional*):
                Class ids of shape `(batch,)`, or what the loss of `config.problem_type` takes.
            features (`torch.Tensor`, *optional*):
                What [`pooled_features`] returned for the clips, instead of `pixel_values`: a frozen image network then
                runs once for each clip of a training.

        Raises:
            ValueError: If `pixel_values` have another number of dimensions, or a clip has a single frame.
        """
        views = None
        if features is None:
            if pixel_values is None or pixel_values.ndim not in (5, 6):
                raise ValueError(
                    "pixel_values must have shape (batch, frames, channels, height, width), or with views after the "
                    f"batch, got {None if pixel_values is None else tuple(pixel_values.shape)}"
                )
            views = pixel_values.shape[1] if pixel_values.ndim == 6 else None
            features = self.pooled_features(pixel_values if views is None else pixel_values.flatten(0, 1))
        logits = self.classifier(self.dropout(features))
        if views is not None:
            logits = average_views(logits.unflatten(0, (-1, views)), self.config.problem_type)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return FrameModelOutput(loss=loss, logits=logits, pooler_output=features)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs):
        if self.config.body_config is None:
            raise ValueError(
                f"{save_directory}: not written, as {type(self.body).__name__} is no model of transformers and could "
                "not be loaded again; wrap it in one, or save its state_dict yourself"
            )
        refuse_other_num_frames(save_directory, self.config.num_frames, "video_preprocessor_config.json")
        super().save_pretrained(save_directory, *args, **kwargs)
        let_others_read(save_directory)


def _features_of(body: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """Features of frames, (frames, feature_size): what the network pools, or the mean over positions or tokens."""
    # a config may ask for tuples
    found = body(frames, return_dict=True) if isinstance(body, PreTrainedModel) else body(frames)
    if not isinstance(found, torch.Tensor):
        pooled = getattr(found, "pooler_output", None)
        found = found.last_hidden_state if pooled is None else pooled
    if found.ndim == 4:  # (frames, channels, height, width)
        return found.mean((-2, -1))
    return found.mean(1) if found.ndim == 3 else found  # (frames, tokens, channels)
