import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import datasets
import pytest
import torch
from transformers.utils import logging
from videos import KINDS, write_video

import dvflnet_cli
from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
    set_video_limits,
)
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.video_decoding import video_limits


os.environ["HF_HUB_OFFLINE"] = "1"  # also for the processes that tests start
collect_ignore = ["transformers_suite"]  # `make test-transformers` runs it in a process of its own


def pytest_addoption(parser):
    parser.addoption(
        "--start-method",
        choices=["fork", "spawn", "forkserver"],
        help="how processes are started: macOS and Windows spawn them",
    )


def pytest_configure(config):
    if config.option.start_method:
        multiprocessing.set_start_method(config.option.start_method, force=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    # A worker that dies between two tests takes the tests that it still had with it, and xdist calls that a success.
    if error:
        code = node.gateway._io.popen.wait()
        node.config.pluginmanager.get_plugin("dsession").shouldstop = f"{node.gateway.id} died, exit code {code}"


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


@pytest.fixture
def video_tree(tmp_path, video_files):
    """Two classes, one of whose names holds a space, in three splits and four kinds of files."""
    files = iter(["vp9.webm", "xvid.avi", "h264.mkv", "h264_short_gop.mp4"] * 3)
    for split in ("train", "val", "test"):
        for name, count in (("wave hands", 3), ("jump", 1)):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                source = video_files[next(files)]
                shutil.copy(source, folder / f"{number}{source.suffix}")
    return tmp_path / "tree"


@pytest.fixture
def dvflnet(monkeypatch, capsys):
    """Run the command in this process: `dvflnet("info", folder)` -> exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dvflnet", *map(str, arguments)])
        capsys.readouterr()
        try:
            dvflnet_cli.main()
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr()

    verbosity, limits, environment = logging.get_verbosity(), video_limits(), dict(os.environ)
    yield command
    logging.set_verbosity(verbosity)
    set_video_limits(limits)  # commands decode in the sandbox, and have their child processes do so
    os.environ.clear()
    os.environ.update(environment)
    logging.enable_progress_bar()
    datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def motion_tree(tmp_path_factory) -> Path:
    """Rendered motions: 16 classes, of which 2 clips train."""
    clips = {"train": 2, "validation": 1, "test": 1}
    return write_motion_videos(tmp_path_factory.mktemp("motions"), clips_per_class=clips, size=36, num_workers=0)
