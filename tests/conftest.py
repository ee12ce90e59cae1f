import os
from pathlib import Path

import pytest
import torch
from videos import KINDS, write_video

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
)


os.environ["HF_HUB_OFFLINE"] = "1"  # also for the processes that tests start

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def tiny_config() -> VideoFocalNetConfig:
    """A network of 32 pixels a side and 4 frames that runs in milliseconds."""
    return VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=6, drop_path_rate=0.0)


@pytest.fixture
def tiny_processor() -> VideoFocalNetVideoProcessor:
    return VideoFocalNetVideoProcessor(num_frames=4, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})


@pytest.fixture
def tiny_folder(tmp_path, tiny_config, tiny_processor) -> Path:
    """A saved model with both processors."""
    torch.manual_seed(0)
    folder = tmp_path / "tiny"
    VideoFocalNetForVideoClassification(tiny_config).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def video_files(tmp_path_factory) -> dict[str, Path]:
    """One real file of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / name, **arguments) for name, arguments in KINDS.items()}
