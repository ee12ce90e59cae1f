"""DVFL-Net and Video-FocalNet for transformers. Importing this package registers them with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from .clip_sampling import evaluation_indices, multi_clip_indices, training_indices
from .configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from .data.augmentation import ClipAugmentation, mix_clips
from .data.class_folders import load_video_folder
from .data.clips import VideoClipDataset, VideoClipStream
from .data.loading import load_benchmark, split_facts
from .data.motion_videos import write_motion_videos
from .data.preparation import prepare_videos
from .hub.version import __version__
from .image_processing_videofocalnet import VideoFocalNetImageProcessor
from .inference.export import export_model, load_exported
from .inference.modulation_maps import ModulationMaps, modulation_maps, pixels_to_frames
from .inference.streams import VideoStreamClassifier
from .modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModel
from .training.distillation import DistillationConfig, DistillationTrainer, forward_kl
from .training.metrics import TopKAccuracy
from .training.teacher_cache import TeacherCache, cache_teacher
from .training.trainer import VideoClassificationTrainer, VideoTrainingArguments, last_whole_checkpoint
from .video_decoding import VideoDecodeError, read_video
from .video_limits import VideoLimits, set_video_limits
from .video_processing_videofocalnet import VideoFocalNetVideoProcessor


AutoConfig.register(VideoFocalNetConfig.model_type, VideoFocalNetConfig)
AutoModel.register(VideoFocalNetConfig, VideoFocalNetModel)
AutoModelForVideoClassification.register(VideoFocalNetConfig, VideoFocalNetForVideoClassification)
AutoImageProcessor.register(VideoFocalNetConfig, image_processor_classes={"torchvision": VideoFocalNetImageProcessor})
AutoVideoProcessor.register(VideoFocalNetConfig, video_processor_classes={"torchvision": VideoFocalNetVideoProcessor})

# a saved folder carries the code, for `trust_remote_code=True` where this package is not installed
VideoFocalNetConfig.register_for_auto_class("AutoConfig")
VideoFocalNetModel.register_for_auto_class("AutoModel")
VideoFocalNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
VideoFocalNetImageProcessor.register_for_auto_class("AutoImageProcessor")
VideoFocalNetVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = [
    "PRESETS",
    "ClipAugmentation",
    "DistillationConfig",
    "DistillationTrainer",
    "ModulationMaps",
    "TeacherCache",
    "TopKAccuracy",
    "VideoClassificationTrainer",
    "VideoClipDataset",
    "VideoClipStream",
    "VideoDecodeError",
    "VideoFocalNetConfig",
    "VideoFocalNetForVideoClassification",
    "VideoFocalNetImageProcessor",
    "VideoFocalNetModel",
    "VideoFocalNetVideoProcessor",
    "VideoLimits",
    "VideoStreamClassifier",
    "VideoTrainingArguments",
    "__version__",
    "cache_teacher",
    "evaluation_indices",
    "export_model",
    "forward_kl",
    "last_whole_checkpoint",
    "load_benchmark",
    "load_exported",
    "load_video_folder",
    "mix_clips",
    "modulation_maps",
    "multi_clip_indices",
    "pixels_to_frames",
    "prepare_videos",
    "read_video",
    "set_video_limits",
    "split_facts",
    "training_indices",
    "write_motion_videos",
]
