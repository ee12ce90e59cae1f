"""Compares the clips that a teacher and a student expect, and lets training prepare both."""

from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel
from transformers.image_utils import SizeDict

from ..data.clips import VideoClipDataset, VideoClipStream
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


def clips_of_its_own(
    student: PreTrainedModel, student_processor: Any, teacher: PreTrainedModel, teacher_processor: Any, clips: Any
) -> bool:
    """
    Whether a teacher is to be given clips of its own, since it expects another size, mean or standard deviation.

    Args:
        student, teacher: The models; a config with `num_frames` is compared.
        student_processor, teacher_processor: Their video processors. Without both, only the models are compared.
        clips: The training clips, a [`VideoClipDataset`] or [`VideoClipStream`] where both are to be prepared.

    Raises:
        ValueError: If the number of frames differs, or if anything else differs and `clips` cannot be prepared for
            both. The message lists every difference.
    """
    differences = {}
    for name in ("num_frames", "size", "crop_size", "image_mean", "image_std"):
        ours, theirs = (_comparable(getattr(p, name, None)) for p in (student_processor, teacher_processor))
        if ours != theirs and student_processor is not None and teacher_processor is not None:
            differences[f"processor.{name}"] = f"{theirs} and {ours}"
    teacher_frames = getattr(teacher.config, "num_frames", None)
    if teacher_frames not in (None, student.config.num_frames):
        differences["config.num_frames"] = f"{teacher_frames} and {student.config.num_frames}"
    if not differences:
        return False
    told = "; ".join(f"{name}: {values}" for name, values in differences.items())
    if any(name.endswith("num_frames") for name in differences):
        raise ValueError(
            f"teacher and student must be shown the same frames, but they differ (teacher's value first) in {told}"
        )
    if not isinstance(clips, (VideoClipDataset, VideoClipStream)) or not isinstance(
        teacher_processor, VideoFocalNetVideoProcessor
    ):
        raise ValueError(
            f"teacher and student expect different clips (teacher's value first): {told}. Both can be prepared if the "
            "training data is a VideoClipDataset or VideoClipStream and the teacher's processor a "
            f"VideoFocalNetVideoProcessor; got {type(clips).__name__} and {type(teacher_processor).__name__}"
        )
    return True


def _comparable(value: Any) -> Any:
    if isinstance(value, SizeDict):
        return {name: number for name, number in asdict(value).items() if number is not None}
    return list(value) if isinstance(value, (list, tuple)) else value


__all__ = ["clips_of_its_own"]
