"""
Generates labelled action videos, as a data set that needs no download.

Each video shows a camera's view of a textured plane with shapes, and only the motion of the picture tells the class.

The state of the camera is a point on a torus: its position over the plane (x and y; the plane repeats), its angle, and
its height (an octave, wrapped from largest to smallest). In each class the picture moves in one way at constant speed,
from a start drawn uniformly. This has two consequences, whatever a network learns:
- every single frame has the same distribution in all classes, so a single frame gives chance accuracy;
- a class played backwards is its opposite class, so frames in random order cannot distinguish the two.
"""

import json
import math
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .jobs import default_workers, run_ahead
from .storages import refuse_other_settings, whole_file, write_whole


FRAMES_PER_SECOND = 8


class Motion(NamedTuple):
    """Motion of the picture per second: right and down in frame widths, clockwise in turns, nearer in octaves."""

    right: float = 0.0
    down: float = 0.0
    clockwise: float = 0.0
    nearer: float = 0.0


def _motions() -> dict[str, Motion]:
    motions = {}
    for degrees in range(0, 360, 45):
        heading = math.radians(degrees)
        motions[f"move_{degrees:03d}"] = Motion(right=math.cos(heading), down=-math.sin(heading))
    for pace, turns, octaves in (("slow", 0.3, 1.0), ("fast", 0.6, 2.0)):
        motions[f"turn_left_{pace}"] = Motion(clockwise=-turns)
        motions[f"turn_right_{pace}"] = Motion(clockwise=turns)
        motions[f"zoom_in_{pace}"] = Motion(nearer=octaves)
        motions[f"zoom_out_{pace}"] = Motion(nearer=-octaves)
    return dict(sorted(motions.items()))


# 8 headings 45 degrees apart, turns and zooms at two speeds: some classes are similar, and each has its opposite
MOTIONS = _motions()


def random_plane(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Smooth coloured noise with random shapes, (3, size, size) in [0, 1], periodic in both directions."""
    cells = 8
    colours = torch.from_numpy(rng.random((1, 3, cells, cells), dtype=np.float32))
    colours = F.pad(colours, (2, 2, 2, 2), mode="circular")
    plane = F.interpolate(colours, size=(size * (cells + 4) // cells,) * 2, mode="bicubic", align_corners=False)[0]
    border = size * 2 // cells
    plane = plane[:, border : border + size, border : border + size].clamp(0, 1)

    axis = torch.arange(size) / size - 0.5
    angle, radius = torch.atan2(axis[:, None], axis[None, :]), torch.hypot(axis[:, None], axis[None, :])
    for _ in range(int(rng.integers(3, 7))):
        outline = rng.uniform(0.06, 0.12) * (1 + 0.4 * torch.cos(int(rng.integers(2, 6)) * angle))
        coverage = ((outline - radius) * size).clamp(0, 1).roll(rng.integers(size, size=2).tolist(), (0, 1))
        colour = torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))
        plane = plane * (1 - coverage) + colour * coverage
    return plane


def render_clip(motion: Motion, rng: np.random.Generator, num_frames: int = 12, size: int = 64) -> np.ndarray:
    """
    Frames of one clip at `FRAMES_PER_SECOND`, uint8 of shape (num_frames, size, size, 3).

    The plane, the camera's start and a speed within 10 % of the motion's are drawn from `rng`.
    """
    plane = random_plane(rng, size)
    start = rng.random(4)
    time = torch.arange(num_frames)[:, None, None] / FRAMES_PER_SECOND * rng.uniform(0.9, 1.1)  # (num_frames, 1, 1)
    return to_uint8(look_at(plane, start, motion, time))


def look_at(plane: torch.Tensor, start: np.ndarray, motion: Motion, time: torch.Tensor) -> torch.Tensor:
    """The view at each time, (num_frames, 3, size, size) in [0, 1]. `time` is (num_frames, 1, 1), in seconds."""
    size, (x, y, turn, octave) = plane.shape[-1], start
    # point of the plane in each pixel, in periods: move against the picture, turn, scale by height, add the position
    pixels = (torch.arange(size) + 0.5) / size - 0.5
    right, down = pixels[None, None, :] - motion.right * time, pixels[None, :, None] - motion.down * time
    angle = 2 * math.pi * (turn - motion.clockwise * time)
    height = 2 ** -((octave + motion.nearer * time) % 1)
    plane_x = (x + height * (torch.cos(angle) * right - torch.sin(angle) * down)) % 1
    plane_y = (y + height * (torch.sin(angle) * right + torch.cos(angle) * down)) % 1

    # coordinates of grid_sample: from -1 to 1 over the plane and its border
    plane = F.pad(plane[None], (1, 1, 1, 1), mode="circular")
    grid = (2 * size * torch.stack([plane_x, plane_y], dim=-1) + 2) / (size + 2) - 1
    return F.grid_sample(plane.expand(len(time), -1, -1, -1), grid, align_corners=False)


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def write_motion_videos(
    data_dir: str | os.PathLike,
    *,
    clips_per_class: dict[str, int],
    num_frames: int = 12,
    size: int = 64,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """
    Write a data set of motion videos as class folders, `data_dir/<split>/<class>/<number>.mp4`, H.264.

    The same seed gives the same pictures, and more clips per class only add files. Existing files are kept, so an
    interrupted run continues where it stopped.

    Args:
        data_dir: The folder to write.
        clips_per_class: Clips per class in each split, such as `{"train": 150, "validation": 10, "test": 25}`.
        num_frames: Frames per clip, 8 per second. With `frame_interval=5`, both sampling rules take 8 consecutive
            frames of 12.
        size: Height and width in pixels, even.
        seed: Seed of all draws.
        num_workers: Number of threads that render, by default one per CPU; 0 renders in the calling thread.

    Returns:
        `data_dir`.

    Raises:
        ValueError: If `data_dir` contains videos with different settings, or other files.
    """
    data_dir = Path(data_dir)
    settings = {"num_frames": num_frames, "size": size, "seed": seed}
    settings_file = data_dir / "motion_videos.json"
    refuse_other_settings(settings_file, settings)
    data_dir.mkdir(parents=True, exist_ok=True)
    write_whole(settings_file, json.dumps(settings) + "\n")

    jobs = []
    for split_number, split in enumerate(("train", "validation", "test")):
        for class_number, name in enumerate(MOTIONS):
            folder = data_dir / split / name
            for clip in range(clips_per_class.get(split, 0)):
                path = folder / f"{clip:04d}.mp4"
                if not path.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    jobs.append((path, name, [seed, split_number, class_number, clip], num_frames, size))
    progress = partial(tqdm, total=len(jobs), desc="rendering videos", unit="clip")
    num_workers = default_workers() if num_workers is None else num_workers
    for written in progress(run_ahead((partial(_write_clip, job) for job in jobs), num_workers)) if jobs else ():
        written()
    return data_dir


def _write_clip(job: tuple[Path, str, list[int], int, int]):
    path, name, seed, num_frames, size = job
    frames = render_clip(MOTIONS[name], np.random.default_rng(seed), num_frames, size)
    with whole_file(path) as unfinished, av.open(str(unfinished), "w") as container:
        # x264's macroblock tree gives different bytes in different runs on some processors with AVX-512
        options = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
