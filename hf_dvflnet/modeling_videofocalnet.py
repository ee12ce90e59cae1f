"""
Video-FocalNet: the network of spatio-temporal focal modulation and its classifier, which averages views.

Papers: Video-FocalNets (arXiv 2307.06947), DVFL-Net (arXiv 2507.12426), FocalNets (arXiv 2203.11926). An independent
implementation with the outputs of the published code (TalalWasim/Video-FocalNets). What is done differently:
- Activations are channels-last, (batch, frames, height, width, channels), so that nothing is transposed between both
  branches of the modulation.
- There are no 3-D convolutions: a tubelet stem is a 2-D convolution over frames folded into channels, and a
  convolution along frames is a 2-D convolution with a (k, 1) kernel over (frames, height * width).
- A stage begins with its downsampling, and modulators are returned on request instead of being stored on modules.
- With `config.causal`, a frame sees itself and frames before it only, so that a stream is answered frame by frame
  ([`VideoFocalNetForVideoClassification.step`]).
"""

import math
import os
from collections import namedtuple
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_videofocalnet import VideoFocalNetConfig, let_others_read, refuse_other_num_frames


LossConfig = namedtuple("LossConfig", "problem_type num_labels")  # unlike a config, torch.compile can create it


@dataclass
class VideoFocalNetModelOutput(ModelOutput):
    """
    Output of [`VideoFocalNetModel`]. `frames` counts the frames after the stem: `num_frames / tubelet_size`. With
    `pair_frames`, the third stage and those after it, and therefore the last, have half as many.

    Args:
        last_hidden_state: Normalised features of the last stage, ordered by frame, of shape (batch, frames * height *
            width, hidden_size).
        pooler_output: Mean of `last_hidden_state` over positions and frames, of shape (batch, hidden_size). In a
            causal network, over the last `num_frames` frames.
        frame_pooler_output: In a causal network, the `pooler_output` after each frame, of shape (batch, frames,
            hidden_size).
        hidden_states: Output of the stem and of each stage, of shape (batch, frames, height, width, channels), if
            `output_hidden_states=True`.
        spatial_modulators, temporal_modulators: Modulators of the last block of each stage, of the same shapes, if
            `output_modulators=True`.
        state: What a causal network remembers of the frames so far, if it was given a `state`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    frame_pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    spatial_modulators: tuple[torch.Tensor, ...] | None = None
    temporal_modulators: tuple[torch.Tensor, ...] | None = None
    state: tuple[torch.Tensor, ...] | None = None


@dataclass
class VideoFocalNetClassifierOutput(ModelOutput):
    """
    Output of [`VideoFocalNetForVideoClassification`].

    Args:
        loss: Classification loss, a scalar, if there are `labels`.
        logits: Scores before softmax, of shape (batch, num_labels). With several views of a clip, their softmax is the
            mean softmax of the views. In a causal network, the logits after the last frame.
        frame_logits: In a causal network, the logits after each frame, of shape (batch, frames, num_labels). With
            several views, the first dimension is batch * views.
        hidden_states, spatial_modulators, temporal_modulators, state: As in [`VideoFocalNetModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    frame_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    spatial_modulators: tuple[torch.Tensor, ...] | None = None
    temporal_modulators: tuple[torch.Tensor, ...] | None = None
    state: tuple[torch.Tensor, ...] | None = None


class VideoFocalNetPatchEmbeddings(nn.Module):
    """
    A strided convolution followed by a layer norm: the stem, or the downsampling at the start of a later stage.

    Pixels at the bottom and right border that do not fill a patch are dropped, as in the published code. Only a map
    smaller than one patch is padded with zeros. (transformers' FocalNet for images pads every map.)
    """

    def __init__(self, config: VideoFocalNetConfig, in_channels: int, out_channels: int, is_stem: bool = False):
        super().__init__()
        stride = config.patch_size if is_stem else 2
        if config.use_conv_embed:
            kernel_size, padding = (7, 2) if is_stem else (3, 1)
        else:
            kernel_size, padding = stride, 0
        self.smallest = kernel_size - 2 * padding  # minimum height and width of the input
        self.projection = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(out_channels, eps=config.layer_norm_eps)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        # frames: (batch * frames, in_channels, height, width)
        missing = [max(0, self.smallest - side) for side in frames.shape[-2:]]
        if any(missing):
            frames = F.pad(frames, (0, missing[1], 0, missing[0]))
        hidden_states = self.projection(frames).permute(0, 2, 3, 1)  # (batch * frames, height, width, out_channels)
        return self.norm(hidden_states)


class PastFrames:
    """
    The frames before those of a forward pass, as the layers of a causal network need them.

    Layers ask in the order in which they compute. Before the first frame of a clip or stream, all values are zero.

    Args:
        window: Number of frames that means are taken over, at most.
        hidden_states: The frames of this pass, (batch, frames, ...).
        state: What the last pass left, see [`VideoFocalNetForVideoClassification.step`]; empty before the first one.
            `None` if these frames are a whole clip.
    """

    def __init__(self, window: int, hidden_states: torch.Tensor, state: tuple[torch.Tensor, ...] | None = None):
        batch, frames = hidden_states.shape[:2]
        self.window, self.keep = window, state is not None
        device = hidden_states.device
        count = state[0] if state else torch.zeros(batch, dtype=torch.long, device=device)
        if count.shape != (batch,):
            raise ValueError(f"the state is of {len(count)} streams, but there are frames of {batch}")
        numbers = count[:, None] + torch.arange(1, frames + 1, device=device)
        self.averaged = numbers.clamp(max=window)[:, None, :, None]  # number of frames in the mean at each frame
        self.before = list(state[:0:-1]) if state else None  # taken from the end
        self.state = [numbers[:, -1]]

    def extend(self, frames: torch.Tensor, size: int) -> torch.Tensor:
        """Put the `size` frames before `frames`, (batch, channels, frames, positions), in front of them."""
        if self.before is None:
            extended = F.pad(frames, (0, 0, size, 0))
        else:
            expected = (*frames.shape[:2], size, frames.shape[3])
            before = self.before.pop() if self.before else None
            if before is None or before.shape != expected:
                raise ValueError(
                    f"the state has a tensor of shape {None if before is None else tuple(before.shape)} where "
                    f"{expected} is needed: it is of another model, or of frames of another size"
                )
            extended = torch.cat([before, frames], 2)
        if self.keep:
            last = extended[:, :, extended.shape[2] - size :]
            self.state.append(last.contiguous(memory_format=torch.channels_last))  # as the layers have it
        return extended

    def mean(self, frames: torch.Tensor) -> torch.Tensor:
        """The mean over each frame of (batch, channels, frames, positions) and the `window - 1` frames before it."""
        extended = self.extend(frames, self.window - 1)
        # sums of the window itself: a sum that is carried on would drift. (OpenVINO has no divisor_override.)
        return F.avg_pool2d(extended, (self.window, 1), stride=1) * self.window / self.averaged

    def finish(self) -> tuple[torch.Tensor, ...]:
        """The state for the next pass."""
        if self.before:
            raise ValueError(f"the state has {len(self.before)} tensors too many: it is of another model")
        return tuple(self.state)


class VideoFocalNetModulation(nn.Module):
    """Spatio-temporal focal modulation (Video-FocalNets, equations 4 to 8): multiplies a query by two contexts."""

    def __init__(self, config: VideoFocalNetConfig, stage: int):
        super().__init__()
        channels = config.hidden_sizes[stage]
        levels = config.focal_levels[stage]
        self.kernel_sizes = [config.focal_windows[stage] + 2 * level for level in range(levels)]
        self.normalize_modulator = config.normalize_modulator
        self.activation = ACT2FN[config.hidden_act]

        self.projection_in = nn.Linear(channels, 2 * channels + levels + 1)
        self.focal_layers = nn.ModuleList(
            nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)
            for size in self.kernel_sizes
        )
        self.projection_context = nn.Linear(channels, channels)

        # as published, dense convolutions, whereas the spatial ones are depthwise
        padding = 0 if config.causal else 1
        groups = channels if config.depthwise_along_frames else 1
        self.temporal_projection_in = nn.Linear(channels, channels + levels + 1)
        self.temporal_focal_layers = nn.ModuleList(
            nn.Conv2d(channels, channels, (size, 1), padding=(padding * (size // 2), 0), groups=groups, bias=False)
            for size in self.kernel_sizes
        )
        self.temporal_projection_context = nn.Linear(channels, channels)

        has_norm = config.use_post_layernorm_in_modulation
        self.layernorm = nn.LayerNorm(channels, eps=config.layer_norm_eps) if has_norm else nn.Identity()
        self.projection_out = nn.Linear(channels, channels)

    def gather_context(
        self,
        context: torch.Tensor,
        gates: torch.Tensor,
        focal_layers: nn.ModuleList,
        dim: tuple[int, ...],
        past: PastFrames | None = None,
    ) -> torch.Tensor:
        """
        Sum the gated contexts of all levels of a channels-last map.

        `context` is (n, rows, columns, channels), `gates` (n, rows, columns, levels + 1), and `dim` names the
        dimensions that the global level averages over. With `past`, rows are frames, and each sees those before it.
        Returns (n, rows, columns, channels).
        """
        context = context.permute(0, 3, 1, 2)  # a view for the convolutions; memory stays channels-last
        gates = gates.permute(0, 3, 1, 2)
        dim = tuple(d + 1 for d in dim)  # here, the channels come before rows and columns
        gathered = context.new_zeros(())
        for level, focal_layer in enumerate(focal_layers):
            if past is not None:
                context = past.extend(context, self.kernel_sizes[level] - 1)
            context = self.activation(focal_layer(context))
            gathered = torch.addcmul(gathered, context, gates[:, level : level + 1])  # in one pass over the memory
        context = self.activation(context.mean(dim, keepdim=True) if past is None else past.mean(context))
        gathered = torch.addcmul(gathered, context, gates[:, -1:])
        if self.normalize_modulator:
            gathered = gathered / (len(focal_layers) + 1)
        return gathered.permute(0, 2, 3, 1)

    def forward(
        self, hidden_states: torch.Tensor, past: PastFrames | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # hidden_states: (batch, frames, height, width, channels)
        shape = hidden_states.shape
        channels, levels = shape[-1], len(self.focal_layers) + 1

        # spatial context: the surroundings of a position within its frame
        query, context, gates = self.projection_in(hidden_states).split([channels, channels, levels], dim=-1)
        context = self.gather_context(context.flatten(0, 1), gates.flatten(0, 1), self.focal_layers, dim=(1, 2))
        spatial_modulator = self.projection_context(context).view(shape)

        # temporal context: the same position in the frames before and after, or before
        context, gates = self.temporal_projection_in(hidden_states).split([channels, levels], dim=-1)
        context, gates = context.flatten(2, 3), gates.flatten(2, 3)
        context = self.gather_context(context, gates, self.temporal_focal_layers, dim=(1,), past=past)
        temporal_modulator = self.temporal_projection_context(context).view(shape)

        output = self.projection_out(self.layernorm(query * spatial_modulator * temporal_modulator))
        return output, spatial_modulator, temporal_modulator


class VideoFocalNetMlp(nn.Module):
    def __init__(self, config: VideoFocalNetConfig, channels: int):
        super().__init__()
        hidden_channels = int(channels * config.mlp_ratio)
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class VideoFocalNetLayer(GradientCheckpointingLayer):
    """One block: a modulation followed by an MLP, both with residual connections."""

    def __init__(self, config: VideoFocalNetConfig, stage: int, drop_path_rate: float):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.use_post_layernorm = config.use_post_layernorm
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.modulation = VideoFocalNetModulation(config, stage)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = VideoFocalNetMlp(config, channels)
        self.drop_path_rate = drop_path_rate
        self.layerscale_value = config.layerscale_value
        for name in ("gamma_1", "gamma_2"):
            scale = torch.full((channels,), float(config.layerscale_value)) if config.use_layerscale else None
            self.register_parameter(name, scale if scale is None else nn.Parameter(scale))

    def forward(
        self, hidden_states: torch.Tensor, past: PastFrames | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # hidden_states: (batch, frames, height, width, channels)
        post = self.use_post_layernorm
        output, *modulators = self.modulation(hidden_states if post else self.norm1(hidden_states), past)
        hidden_states = self.add(hidden_states, self.norm1(output) if post else output, self.gamma_1)
        output = self.norm2(self.mlp(hidden_states)) if post else self.mlp(self.norm2(hidden_states))
        return self.add(hidden_states, output, self.gamma_2), *modulators

    def add(self, hidden_states: torch.Tensor, output: torch.Tensor, gamma: torch.Tensor | None) -> torch.Tensor:
        output = output if gamma is None else gamma * output
        if self.training and self.drop_path_rate:
            # stochastic depth (arXiv 1603.09382); as published, each frame of each clip is dropped independently
            keep = output.new_empty(*output.shape[:2], 1, 1, 1).bernoulli_(1 - self.drop_path_rate)
            output = output * keep / (1 - self.drop_path_rate)
        return hidden_states + output


class VideoFocalNetStage(nn.Module):
    """One stage: downsampling, except in the first stage, followed by a sequence of blocks."""

    def __init__(self, config: VideoFocalNetConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        sizes = config.hidden_sizes
        self.downsample = VideoFocalNetPatchEmbeddings(config, sizes[stage - 1], sizes[stage]) if stage else None
        self.pairs_frames = config.pair_frames and stage == 2
        self.layers = nn.ModuleList(VideoFocalNetLayer(config, stage, rate) for rate in drop_path_rates)

    def forward(
        self, hidden_states: torch.Tensor, past: PastFrames | None = None, output_modulators: bool = False
    ) -> tuple[torch.Tensor, ...]:
        # hidden_states: (batch, frames, height, width, channels). Its modulators are those of the last block.
        if self.pairs_frames:
            hidden_states = hidden_states.unflatten(1, (-1, 2)).mean(2)
        if self.downsample is not None:
            frames = self.downsample(hidden_states.flatten(0, 1).permute(0, 3, 1, 2))
            hidden_states = frames.unflatten(0, hidden_states.shape[:2])
        for layer in self.layers:
            hidden_states, *modulators = layer(hidden_states, past)
        return (hidden_states, *modulators) if output_modulators else (hidden_states,)


class VideoFocalNetPreTrainedModel(PreTrainedModel):
    """Base class with the weight initialisation and the attributes that transformers requires."""

    config: VideoFocalNetConfig
    base_model_prefix = "videofocalnet"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VideoFocalNetPatchEmbeddings", "VideoFocalNetLayer"]
    _input_embed_layer = "embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        # As published: truncated normal for linear layers, and PyTorch's default for convolutions. The two context
        # projections are convolutions in the published code.
        if isinstance(module, VideoFocalNetModulation):
            module.projection_context.reset_parameters()
            module.temporal_projection_context.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, VideoFocalNetLayer) and module.gamma_1 is not None:
            init.constant_(module.gamma_1, module.layerscale_value)
            init.constant_(module.gamma_2, module.layerscale_value)
        elif isinstance(module, nn.LayerNorm):
            super()._init_weights(module)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs):
        refuse_other_num_frames(save_directory, self.config.num_frames, "video_preprocessor_config.json")
        # whichever class is saved, every Auto class can load the folder without this package
        self.config.auto_map = {
            "AutoConfig": "configuration_videofocalnet.VideoFocalNetConfig",
            "AutoModel": "modeling_videofocalnet.VideoFocalNetModel",
            "AutoModelForVideoClassification": "modeling_videofocalnet.VideoFocalNetForVideoClassification",
        }
        super().save_pretrained(save_directory, *args, **kwargs)
        let_others_read(save_directory)


class VideoFocalNetModel(VideoFocalNetPreTrainedModel):
    """Video-FocalNet without a classification head: returns the features of clips."""

    def __init__(self, config: VideoFocalNetConfig):
        super().__init__(config)
        self.embeddings = VideoFocalNetPatchEmbeddings(
            config, config.num_channels * config.tubelet_size, config.embed_dim, is_stem=True
        )
        drop_path_rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList(
            VideoFocalNetStage(config, stage, [drop_path_rates.pop(0) for _ in range(depth)])
            for stage, depth in enumerate(config.depths)
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_modulators: bool = False,
        state: tuple[torch.Tensor, ...] | None = None,
        **kwargs,
    ) -> VideoFocalNetModelOutput:
        """
        Args:
            pixel_values: Normalised clips of any size, of shape (batch, frames, channels, height, width). The number
                of frames must be a multiple of `config.tubelet_size`, and of twice that with `config.pair_frames`.
            output_hidden_states: Whether to return the output of the stem and of each stage. By default,
                `config.output_hidden_states`.
            output_modulators: Whether to return the spatial and temporal modulators of the last block of each stage.
            state: In a causal network, the `state` of the output for the frames before these, or `()` for the first
                frames of a stream, see [`VideoFocalNetForVideoClassification.step`].
            return_dict (`bool`, *optional*): Whether to return a [`VideoFocalNetModelOutput`] instead of a tuple. By
                default, `config.return_dict`.

        Raises:
            ValueError: If `pixel_values` has another shape, or `state` is of another model, batch or frame size.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        shape, channels, tubelet_size = pixel_values.shape, self.config.num_channels, self.config.tubelet_size
        multiple = tubelet_size * (2 if self.config.pair_frames else 1)
        if len(shape) != 5 or shape[2] != channels or shape[1] == 0 or shape[1] % multiple:
            twice = "twice " if self.config.pair_frames else ""
            raise ValueError(
                f"pixel_values must have the shape (batch, frames, {channels}, height, width), with frames a positive "
                f"multiple of {twice}tubelet_size={tubelet_size}, but have the shape {tuple(shape)}"
            )

        pixel_values = pixel_values.to(self.embeddings.projection.weight.dtype)
        # the frames of a tubelet become the channels of one frame, ordered by frame
        pixel_values = pixel_values.reshape(-1, tubelet_size * channels, *shape[-2:])
        hidden_states = self.embeddings(pixel_values).unflatten(0, (shape[0], shape[1] // tubelet_size))

        past = None
        if self.config.causal:
            past = PastFrames(self.config.num_frames // tubelet_size, hidden_states, state)
        elif state is not None:
            raise ValueError("only a causal network has a state: config.causal is False")
        all_hidden_states: tuple[torch.Tensor, ...] = (hidden_states,)
        modulators: list[tuple[torch.Tensor, torch.Tensor]] = []
        for stage in self.stages:
            hidden_states, *spatial_and_temporal = stage(hidden_states, past, output_modulators)
            if output_hidden_states:
                all_hidden_states += (hidden_states,)
            if output_modulators:
                modulators.append(spatial_and_temporal)

        hidden_states = self.layernorm(hidden_states)
        frame_pooler_output = None
        if past is not None:
            pooled = (
                hidden_states.flatten(2, 3).mean(2, keepdim=True).permute(0, 3, 1, 2)
            )  # (batch, channels, frames, 1)
            frame_pooler_output = past.mean(pooled)[..., 0].transpose(1, 2)
        last_hidden_state = hidden_states.flatten(1, 3)  # (batch, frames * height * width, channels)
        return VideoFocalNetModelOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=last_hidden_state.mean(1) if frame_pooler_output is None else frame_pooler_output[:, -1],
            frame_pooler_output=frame_pooler_output,
            state=None if past is None or state is None else past.finish(),
            hidden_states=all_hidden_states if output_hidden_states else None,
            spatial_modulators=tuple(spatial for spatial, _ in modulators) or None,
            temporal_modulators=tuple(temporal for _, temporal in modulators) or None,
        )


def average_views(logits: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    # (batch, views, num_labels) -> (batch, num_labels): logits whose scores are the mean of the scores of the views
    if problem_type == "regression" or (problem_type is None and logits.shape[2] == 1):
        return logits.mean(1)
    if problem_type == "multi_label_classification":
        yes, no = (F.logsigmoid(sign * logits).logsumexp(1) for sign in (1, -1))
        return yes - no
    return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])


class VideoFocalNetForVideoClassification(VideoFocalNetPreTrainedModel):
    """Video-FocalNet with a linear classification head on the mean of its features."""

    # The loss is a mean over the batch. Without this flag, the Trainer assumes a loss scaled by `num_items_in_batch`,
    # and does not average it over accumulated batches.
    accepts_loss_kwargs = False

    def __init__(self, config: VideoFocalNetConfig):
        super().__init__(config)
        self.loss_type = "ForVideoClassification"  # by default, inferred from the name of the (sub)class
        self.videofocalnet = VideoFocalNetModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_modulators: bool = False,
        state: tuple[torch.Tensor, ...] | None = None,
        **kwargs,
    ) -> VideoFocalNetClassifierOutput:
        """
        Args:
            pixel_values: Normalised clips, of shape (batch, frames, channels, height, width). Several views of each
                clip, (batch, views, frames, channels, height, width), are classified separately, and their scores are
                averaged.
            labels: Class ids of shape (batch,), or probabilities of shape (batch, num_labels), such as those of mixup.
                With `config.problem_type="multi_label_classification"`, zeros and ones of shape (batch, num_labels);
                with `"regression"`, target values.
            output_hidden_states, output_modulators, state, return_dict: As in [`VideoFocalNetModel.forward`]. With
                several views, the first dimension of hidden states and modulators is batch * views.

        Raises:
            ValueError: As in [`VideoFocalNetModel.forward`], or if the shape of `labels` does not fit the loss.
        """
        views = pixel_values.shape[1] if pixel_values.ndim == 6 else None
        if views is not None:
            pixel_values = pixel_values.flatten(0, 1)  # (batch * views, frames, channels, height, width)

        outputs = self.videofocalnet(pixel_values, output_hidden_states, output_modulators, state, return_dict=True)
        if outputs.frame_pooler_output is None:
            frame_logits, logits = None, self.classifier(outputs.pooler_output)
        else:
            frame_logits = self.classifier(outputs.frame_pooler_output)
            logits = frame_logits[:, -1]
        if views is not None:
            logits = average_views(logits.unflatten(0, (-1, views)), self.config.problem_type)

        return VideoFocalNetClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            frame_logits=frame_logits,
            hidden_states=outputs.hidden_states,
            spatial_modulators=outputs.spatial_modulators,
            temporal_modulators=outputs.temporal_modulators,
            state=outputs.state,
        )

    @torch.no_grad()
    def step(
        self, frames: torch.Tensor, state: tuple[torch.Tensor, ...] = ()
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """
        Classify the next frames of streams with a causal network: each frame costs a frame, not a window.

        Each frame is answered from its stream so far as `forward` would answer it, whose `frame_logits` are these
        logits. Time and memory do not depend on how many frames there were.

        Args:
            frames: Normalised frames, one or several per stream, (streams, frames, channels, height, width), at the
                pace at which the network was trained. Their number is a multiple of `config.tubelet_size`.
            state: What the last step returned; `()` before the first frames.

        Returns:
            Logits after each frame (with tubelets: after each tubelet), (streams, frames, num_labels), and the state:
            a tuple of tensors with a stream per row of the first dimension. The first counts the frames. The others
            are, per block, the last `kernel_size - 1` inputs of each convolution along frames and the last
            `num_frames - 1` outputs of the last of them, each (streams, channels, frames, positions), and the last
            pooled features. Zeros are the state before the first frame: `for tensor in state: tensor[1] = 0` resets
            the second stream.

        Raises:
            ValueError: If the network is not causal, or if `state` is of another model, number of streams or frame
                size.
        """
        outputs = self(frames, state=state, return_dict=True)
        return outputs.frame_logits, outputs.state

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        problem_type = self.config.problem_type
        if problem_type is None:
            problem_type = "regression" if self.config.num_labels == 1 else "single_label_classification"
        if problem_type == "single_label_classification" and labels.is_floating_point():
            if labels.shape != logits.shape:
                raise ValueError(
                    f"labels of dtype {labels.dtype} are used as probabilities and must have the shape of the logits, "
                    f"{tuple(logits.shape)}, but have the shape {tuple(labels.shape)}. Class ids must be integers."
                )
            return F.cross_entropy(logits, labels.to(logits))
        # transformers' loss writes the problem type that it infers into its config. It gets another one, so that a
        # saved model does not contain the problem type of its last batch.
        return self.loss_function(labels, logits, LossConfig(problem_type, self.config.num_labels))
