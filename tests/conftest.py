from pathlib import Path

import pytest

from hf_dvflnet import VideoFocalNetConfig


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def tiny_config() -> VideoFocalNetConfig:
    """A network of 32 pixels a side and 4 frames that runs in milliseconds."""
    return VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=6, drop_path_rate=0.0)
