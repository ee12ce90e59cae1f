"""DVFL-Net and Video-FocalNet for transformers. Importing this package registers them with the Auto classes."""

from .hub.version import __version__  # before transformers: see hub/__init__.py


# isort: split
import ast
import importlib
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from .configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from .data.limits import VideoLimits, limits_of_environment
from .image_processing_videofocalnet import VideoFocalNetImageProcessor
from .modeling_frame_model import FrameModelConfig, FrameModelForVideoClassification
from .modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModel
from .video_decoding import VideoDecodeError, read_video, set_video_limits
from .video_processing_videofocalnet import VideoFocalNetVideoProcessor


if TYPE_CHECKING:
    # Imported when they are used: `__getattr__` reads here which module has a name.
    from .clip_sampling import evaluation_indices, multi_clip_indices, paced_indices
    from .data.augmentation import ClipAugmentation, mix_clips, training_indices
    from .data.benchmarks import BENCHMARKS
    from .data.class_folders import load_video_folder
    from .data.clips import VideoClipDataset
    from .data.label_sets import LABEL_SETS, LabelSet, read_labels
    from .data.loading import load_benchmark, split_facts
    from .data.motion_videos import write_motion_videos
    from .data.preparation import prepare_videos
    from .data.verification import verify_benchmark
    from .data.video_column import video_source
    from .data.video_files import list_videos, read_video_list
    from .hub.checkpoint_conversion import convert_checkpoint
    from .hub.loading import load_model, load_processor, load_teacher
    from .hub.model_folder import describe_config, push_model_folder, save_model_folder
    from .inference.bulk_prediction import predict_to_file
    from .inference.demo_page import serve_demo
    from .inference.evaluation import (
        compute_figures,
        describe_split,
        evaluate_model,
        predict_clips,
        report_predictions,
    )
    from .inference.export import export_model
    from .inference.exported_program import load_exported
    from .inference.inference_form import prepare_for_inference
    from .inference.live_sources import open_stream
    from .inference.modulation_maps import ModulationMaps, modulation_maps, pixels_to_frames, save_modulation_maps
    from .inference.pipeline import predict_videos
    from .inference.streams import VideoStreamClassifier
    from .plots.charts import save_comparison
    from .training.arguments import DistillationConfig, VideoTrainingArguments
    from .training.checkpoints import last_whole_checkpoint
    from .training.distillation import DistillationTrainer
    from .training.frame_heads import train_head
    from .training.losses import forward_kl, jensen_shannon, logit_mse, modulator_distance, reverse_kl
    from .training.metrics import TopKAccuracy
    from .training.teacher_cache import TeacherCache, cache_teacher
    from .training.trainer import VideoClassificationTrainer

set_video_limits(limits_of_environment())

AutoConfig.register(VideoFocalNetConfig.model_type, VideoFocalNetConfig)
AutoModel.register(VideoFocalNetConfig, VideoFocalNetModel)
AutoModelForVideoClassification.register(VideoFocalNetConfig, VideoFocalNetForVideoClassification)
AutoConfig.register(FrameModelConfig.model_type, FrameModelConfig)
AutoModelForVideoClassification.register(FrameModelConfig, FrameModelForVideoClassification)
AutoImageProcessor.register(FrameModelConfig, image_processor_classes={"torchvision": VideoFocalNetImageProcessor})
AutoImageProcessor.register(VideoFocalNetConfig, image_processor_classes={"torchvision": VideoFocalNetImageProcessor})
AutoVideoProcessor.register(FrameModelConfig, video_processor_classes={"torchvision": VideoFocalNetVideoProcessor})
AutoVideoProcessor.register(VideoFocalNetConfig, video_processor_classes={"torchvision": VideoFocalNetVideoProcessor})

# `save_pretrained` copies the code into the folder, so that `trust_remote_code=True` loads it without this package
VideoFocalNetConfig.register_for_auto_class("AutoConfig")
VideoFocalNetModel.register_for_auto_class("AutoModel")
VideoFocalNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
FrameModelConfig.register_for_auto_class("AutoConfig")
FrameModelForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
VideoFocalNetImageProcessor.register_for_auto_class("AutoImageProcessor")
VideoFocalNetVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = [
    "ClipAugmentation",
    "DistillationConfig",
    "DistillationTrainer",
    "FrameModelForVideoClassification",
    "VideoClassificationTrainer",
    "VideoClipDataset",
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
    "convert_checkpoint",
    "evaluate_model",
    "export_model",
    "load_benchmark",
    "load_exported",
    "load_model",
    "load_processor",
    "load_video_folder",
    "modulation_maps",
    "predict_to_file",
    "predict_videos",
    "prepare_for_inference",
    "prepare_videos",
    "read_video",
    "save_model_folder",
    "set_video_limits",
    "train_head",
]


@cache
def _modules() -> dict[str, str]:
    blocks = [node for node in ast.parse(Path(__file__).read_text("utf-8")).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {name.name: f".{node.module}" for node in imports for name in node.names}


def __getattr__(name: str) -> Any:
    if name not in _modules():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in __all__:
        place = f"{__name__}{_modules()[name]}"
        warnings.warn(f"{__name__}.{name} will be removed; import it from {place}", FutureWarning, stacklevel=2)
    value = globals()[name] = getattr(importlib.import_module(_modules()[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
