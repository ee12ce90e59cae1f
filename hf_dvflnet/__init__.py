"""DVFL-Net and Video-FocalNet for transformers. Importing this package registers them with the Auto classes."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor

from .clip_sampling import evaluation_indices, multi_clip_indices, training_indices
from .configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from .image_processing_videofocalnet import VideoFocalNetImageProcessor
from .modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModel
from .video_decoding import VideoDecodeError, read_video
from .video_processing_videofocalnet import VideoFocalNetVideoProcessor


__version__ = "0.1.0.dev0"

AutoConfig.register(VideoFocalNetConfig.model_type, VideoFocalNetConfig)
AutoModel.register(VideoFocalNetConfig, VideoFocalNetModel)
AutoModelForVideoClassification.register(VideoFocalNetConfig, VideoFocalNetForVideoClassification)
AutoImageProcessor.register(VideoFocalNetConfig, image_processor_classes={"torchvision": VideoFocalNetImageProcessor})
AutoVideoProcessor.register(VideoFocalNetConfig, video_processor_classes={"torchvision": VideoFocalNetVideoProcessor})
VideoFocalNetConfig.register_for_auto_class("AutoConfig")
VideoFocalNetModel.register_for_auto_class("AutoModel")
VideoFocalNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
VideoFocalNetImageProcessor.register_for_auto_class("AutoImageProcessor")
VideoFocalNetVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = [
    "PRESETS",
    "VideoDecodeError",
    "VideoFocalNetConfig",
    "VideoFocalNetForVideoClassification",
    "VideoFocalNetImageProcessor",
    "VideoFocalNetModel",
    "VideoFocalNetVideoProcessor",
    "__version__",
    "evaluation_indices",
    "multi_clip_indices",
    "read_video",
    "training_indices",
]
