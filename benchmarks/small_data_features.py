"""
What `small_data.py` reads instead of videos: each clip is decoded once, and shown to an image network in a few views.

A clip's file, `CACHE/<set>/<class>/<clip>.npz`, holds
- `features`, float16 (views, 8 frames, 1280), of ImageNet's EfficientNet-Lite0. View 0 is that of the evaluation
  (frames spread over the clip, centre crop), views 1 to 3, of training clips, are drawn: frames, a crop of at least
  half of the picture, a flip;
- `paced`, float16 (3, 8, 1280), of UCF101: frames at 2, 4 and 8 a second from the middle of the clip, centre crop;
- `frames`, uint8 (frames, height, width, 3): up to 64 frames spread over the clip, with a short side of 80 pixels, and
  `seconds`, the length of the clip.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np
import openvino
import torch
from torch.nn import functional as F
from tqdm import tqdm

from hf_dvflnet import ClipAugmentation
from hf_dvflnet.clip_sampling import evaluation_indices, frame_times, paced_indices
from hf_dvflnet.data.augmentation import render, training_indices
from hf_dvflnet.hub.image_networks import EFFICIENTNET_LITE0, load_image_network
from hf_dvflnet.video_decoding import read_video


FRAMES, VIEWS, PACES = 8, 3, (2, 4, 8)
MILD = ClipAugmentation(area=(0.5, 1.0), jitter=0.0, grayscale=0.0)
TWINS = {"v_Basketball_g23_c01", "v_Basketball_g05_c03"}  # equal to clips of another group, byte for byte


class Features(torch.nn.Module):
    """Features of frames, (frames, 1280)."""

    def __init__(self):
        super().__init__()
        self.body, _ = load_image_network(EFFICIENTNET_LITE0)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.body(frames).last_hidden_state.mean((-2, -1))


def compiled() -> openvino.CompiledModel:
    """The network in OpenVINO, which has PyTorch's outputs (to 2e-5) in a third of the time, on one thread."""
    program = openvino.convert_model(Features().eval(), example_input=torch.zeros(FRAMES, 3, 224, 224))
    return openvino.compile_model(program, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})


def features_of(network: openvino.CompiledModel, clip: torch.Tensor) -> np.ndarray:
    """Features of frames, (8, 3, 224, 224) uint8, as float16 (8, 1280)."""
    return network(((clip / 255 - 0.498) / 0.502).numpy())[0].astype(np.float16)  # EfficientNet-Lite's own values


def centre(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Centre crop of frames, (frames, 3, height, width), after resizing the short side to 240."""
    frames = resized(frames, 240)
    top, left = (frames.shape[-2] - size) // 2, (frames.shape[-1] - size) // 2
    return frames[..., top : top + size, left : left + size]


def resized(frames: torch.Tensor, short_side: int) -> torch.Tensor:
    height, width = frames.shape[-2:]
    scale = short_side / min(height, width)
    if scale == 1:
        return frames
    size = [round(height * scale), round(width * scale)]
    return F.interpolate(frames.float(), size, mode="bilinear", antialias=True).round().to(torch.uint8)


def of_video(network: openvino.CompiledModel, path: Path, num_views: int, paced: bool) -> dict[str, np.ndarray]:
    """What is kept of a video."""
    frames, info = read_video(path, lambda info: np.arange(info.total_num_frames))
    total, clip = len(frames), torch.from_numpy(frames).permute(0, 3, 1, 2)
    times = frame_times(info)[:total]
    seed = int.from_bytes(hashlib.blake2b(path.name.encode(), digest_size=8).digest(), "little")
    views = [centre(clip[evaluation_indices(total, num_frames=FRAMES, frame_interval=1)], 224)]
    for view in range(num_views):
        generator = np.random.default_rng([seed, view])
        shown = clip[training_indices(total, num_frames=FRAMES, frame_interval=1, generator=generator)]
        shown = resized(shown, 240)
        views.append(render(shown, MILD.draw(*shown.shape[-2:], generator), 224))
    kept = evaluation_indices(total, num_frames=min(total, 64), frame_interval=1)
    found = {
        "features": np.stack([features_of(network, view) for view in views]),
        "frames": resized(clip[kept], 80).permute(0, 2, 3, 1).numpy(),
        "seconds": np.float32(times[-1] - times[0] + (times[-1] - times[0]) / max(1, total - 1)),
    }
    if paced:
        at = [centre(clip[paced_indices(times, num_frames=FRAMES, fps=fps)], 224) for fps in PACES]
        found["paced"] = np.stack([features_of(network, view) for view in at])
    return found


def write(file: Path, arrays: dict[str, np.ndarray]):
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") as stream:
        np.savez(stream, **arrays)
    unfinished.rename(file)


def jhmdb(folder: Path) -> list[dict]:
    """Clips of JHMDB: name, class, group (the title of the source video), and whether it is a test clip of split 1."""
    groups = {row["clip"]: row["group"] for row in csv.DictReader((folder / "groups.csv").open())}
    clips = []
    for file in sorted((folder / "splits").glob("*_test_split1.txt")):
        label = file.name.removesuffix("_test_split1.txt")
        for line in file.read_text().splitlines():
            name, part = line.rsplit(" ", 1)
            video = folder / "ReCompress_Videos" / label / name
            title = groups[f"{label}/{name}"].split("/", 1)[1]
            clips.append({"video": video, "class": label, "group": title, "test": part == "2"})
    return clips


def ucf101(folder: Path) -> list[dict]:
    """Clips of sixteen classes of UCF101; groups 1 to 7 are the test clips of split 1."""
    clips = []
    for video in sorted(folder.glob("UCF-101/*/*.avi")):
        label, group, number = video.stem.removeprefix("v_").split("_")
        if video.stem not in TWINS:
            row = {"video": video, "class": label, "group": f"{label} {group}", "test": int(group[1:]) <= 7}
            clips.append(row | {"number": int(number[1:])})
    # two clips of each group are enough for most of what is measured
    first = {}
    for clip in sorted(clips, key=lambda clip: clip["number"]):
        first.setdefault(clip["group"], []).append(clip)
    for of_group in first.values():
        for place, clip in enumerate(of_group):
            clip["place"] = place
    return clips


def kept_at(cache: Path, name: str, clip: dict) -> Path:
    return cache / name / clip["class"] / f"{clip['video'].stem}.npz"


def write_videos(cache: Path, name: str, clips: list[dict], views: int, paced: bool = False):
    missing = [clip for clip in clips if not kept_at(cache, name, clip).exists()]
    network = compiled() if missing else None
    for clip in tqdm(missing, desc=name, mininterval=10):
        write(kept_at(cache, name, clip), of_video(network, clip["video"], views, paced))


def write_all(cache: Path, jhmdb_folder: Path, ucf101_folder: Path):
    """Compute what is missing; the same call continues where it was stopped."""
    torch.set_num_threads(1)
    clips = ucf101(ucf101_folder)
    write_videos(cache, "ucf101", [clip for clip in clips if clip["place"] == 0], VIEWS, paced=True)
    clips = jhmdb(jhmdb_folder)
    write_videos(cache, "jhmdb", [clip for clip in clips if not clip["test"]], VIEWS)
    write_videos(cache, "jhmdb", [clip for clip in clips if clip["test"]], 0)
    clips = ucf101(ucf101_folder)
    write_videos(cache, "ucf101", [clip for clip in clips if clip["place"] == 1], 0)
