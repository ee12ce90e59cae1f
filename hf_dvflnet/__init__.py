"""DVFL-Net and Video-FocalNet for transformers. Importing this package registers them with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification

from .clip_sampling import evaluation_indices, multi_clip_indices, training_indices
from .configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from .modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModel
from .video_decoding import VideoDecodeError, read_video


__version__ = "0.1.0.dev0"

AutoConfig.register(VideoFocalNetConfig.model_type, VideoFocalNetConfig)
AutoModel.register(VideoFocalNetConfig, VideoFocalNetModel)
AutoModelForVideoClassification.register(VideoFocalNetConfig, VideoFocalNetForVideoClassification)
VideoFocalNetConfig.register_for_auto_class("AutoConfig")
VideoFocalNetModel.register_for_auto_class("AutoModel")
VideoFocalNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")

__all__ = [
    "PRESETS",
    "VideoDecodeError",
    "VideoFocalNetConfig",
    "VideoFocalNetForVideoClassification",
    "VideoFocalNetModel",
    "__version__",
    "evaluation_indices",
    "multi_clip_indices",
    "read_video",
    "training_indices",
]
