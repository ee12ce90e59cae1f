"""DVFL-Net and Video-FocalNet for transformers. Importing this package registers them with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification

from .configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from .modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModel


__version__ = "0.1.0.dev0"

AutoConfig.register(VideoFocalNetConfig.model_type, VideoFocalNetConfig)
AutoModel.register(VideoFocalNetConfig, VideoFocalNetModel)
AutoModelForVideoClassification.register(VideoFocalNetConfig, VideoFocalNetForVideoClassification)
VideoFocalNetConfig.register_for_auto_class("AutoConfig")
VideoFocalNetModel.register_for_auto_class("AutoModel")
VideoFocalNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")

__all__ = [
    "PRESETS",
    "VideoFocalNetConfig",
    "VideoFocalNetForVideoClassification",
    "VideoFocalNetModel",
    "__version__",
]
