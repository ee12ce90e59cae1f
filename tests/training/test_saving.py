"""What would fail when a model is saved fails before it is trained."""

import numpy as np
import pytest
from small_trainings import arguments, new_model

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    VideoTrainingArguments,
    load_video_folder,
)


def trainer_of(folder, model, **options) -> VideoClassificationTrainer:
    return VideoClassificationTrainer(model, VideoTrainingArguments(**arguments(folder)), **options)


def of_eight(processor) -> VideoFocalNetVideoProcessor:
    return VideoFocalNetVideoProcessor(num_frames=8, size=processor.size, crop_size=processor.crop_size)


def test_a_processor_of_another_number_of_frames_is_refused(tmp_path, tiny_config, tiny_processor):
    with pytest.raises(ValueError, match="the model has num_frames=4, but processing_class has num_frames=8"):
        trainer_of(tmp_path, new_model(tiny_config, 0), processing_class=of_eight(tiny_processor))


@pytest.mark.parametrize("which", ["train_dataset", "day"])
def test_clips_of_another_number_of_frames_are_refused(tmp_path, tiny_config, tiny_processor, motion_tree, which):
    clips = VideoClipDataset(load_video_folder(motion_tree)["test"], of_eight(tiny_processor))
    data = {"train_dataset": clips} if which == "train_dataset" else {"eval_dataset": {"day": clips}}
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "num_labels": 16})
    with pytest.raises(ValueError, match=f"the processor of {which} has num_frames=8"):
        trainer_of(tmp_path, new_model(config, 0), **data)


@pytest.mark.parametrize("place", [".", "checkpoint-3"])
@pytest.mark.parametrize("part", ["model", "processor"])
def test_an_output_folder_of_another_number_of_frames_is_refused(tmp_path, tiny_config, tiny_processor, place, part):
    earlier = VideoFocalNetForVideoClassification(VideoFocalNetConfig(**{**tiny_config.to_dict(), "num_frames": 8}))
    (earlier if part == "model" else of_eight(tiny_processor)).save_pretrained(tmp_path / place)
    with pytest.raises(ValueError, match=r"config\.json has num_frames=8, but num_frames=4 is about to be saved"):
        trainer_of(tmp_path, new_model(tiny_config, 0))


def untidy(model, name, value):
    setattr(model.config, name, value)
    return model


class NoProcessor:
    """Has no `save_pretrained`."""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: untidy(model, "label2id", {"a": np.int64(0)}), "int64 is not JSON serializable"),
        (lambda model: untidy(model, "temperature", 2.0), "generation parameters"),
        (lambda model: untidy(model, "image_size", 0), "image_size=0 must be at least 1"),
        (lambda model: setattr(model.videofocalnet.layernorm, "bias", model.videofocalnet.layernorm.weight), "shared"),
    ],
    ids=["JSON", "generation", "validation", "shared weights"],
)
def test_a_model_that_cannot_be_saved_is_refused(tmp_path, tiny_config, spoil, message):
    model = new_model(tiny_config, 0)
    spoil(model)
    with pytest.raises(ValueError, match=f"(?s)cannot be saved, so that no checkpoint could be written: .*{message}"):
        trainer_of(tmp_path, model)


def test_a_processor_that_cannot_be_saved_is_refused(tmp_path, tiny_config, tiny_processor):
    tiny_processor.note = {1, 2}
    for processor, message in (
        (tiny_processor, "set is not JSON serializable"),
        (NoProcessor(), "no attribute 'save_pretrained'"),
    ):
        with pytest.raises(ValueError, match=f"cannot be saved, .*{message}"):
            trainer_of(tmp_path, new_model(tiny_config, 0), processing_class=processor)


def test_a_file_that_a_killed_run_has_not_finished_is_replaced(tmp_path, tiny_config, tiny_processor):
    for name in ("config.json", "video_preprocessor_config.json"):
        (tmp_path / name).write_text("")
    new_model(tiny_config, 0).save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    assert VideoFocalNetVideoProcessor.from_pretrained(tmp_path).num_frames == tiny_config.num_frames
