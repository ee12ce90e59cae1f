"""
How long it takes to get the frames of a clip out of a file: 8 frames by the evaluation rule, against torchcodec and
transformers' own PyAV reader.

    python benchmarks/loading.py

Two sets of files: each kind of the tests (`tests/helpers/videos.py`: codecs, containers, keyframe intervals,
timestamps) at 320 x 240, and a minute of 1080p with a keyframe every 60 and every 250 frames. The sides take turns;
medians and quartiles of the ratio of their times. torchcodec scans the file as ours does (`seek_mode="exact"`) and
has as many threads; it needs FFmpeg's shared libraries (Debian: `apt install libavdevice59`), and where it cannot be
imported the JSON says so. Writes JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
from measuring import machine, ratio, seconds, take_turns
from transformers.video_utils import read_video_pyav

from hf_dvflnet.clip_sampling import evaluation_indices
from hf_dvflnet.video_decoding import read_video


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from videos import KINDS, write_video


try:
    import torchcodec
    from torchcodec.decoders import VideoDecoder
except (ImportError, RuntimeError):  # not there, or without FFmpeg's libraries
    torchcodec = None

GOALS = {"kinds": 1.1, "1080p": 4.0}
LONG = {"keyframe every 60": 60, "keyframe every 250": 250}


def ours(path: Path) -> np.ndarray:
    return read_video(path, lambda metadata: evaluation_indices(metadata.total_num_frames, num_frames=8))[0]


def by_torchcodec(path: Path, threads: int) -> np.ndarray:
    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact")
    return decoder.get_frames_at(evaluation_indices(len(decoder), num_frames=8).tolist()).data.numpy()


def by_transformers(path: Path, frames: int) -> np.ndarray:
    # it believes the container's number of frames, which WebM and Matroska lack: it is told
    return read_video_pyav(str(path), lambda **_: evaluation_indices(frames, num_frames=8))[0]


def compare(calls: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict:
    """Seconds of each call, and the ratio of ours to each other one."""
    frames = {name: call() for name, call in calls.items()}
    times = take_turns(calls, rounds)
    found: dict[str, dict] = {"seconds": {name: seconds(times, name) for name in calls}}
    for name in calls:
        if name != "ours":
            same = frames[name].shape == frames["ours"].shape
            # 0 if the reader gives the same frames, some 50 if it gives others
            gap = float(np.abs(frames[name].astype(int) - frames["ours"]).mean()) if same else None
            found[name] = {"ratio": ratio(times, "ours", name), "mean_pixel_difference": gap}
    return found


def write_minute(path: Path, keyframe_every: int) -> Path:
    """60 seconds of 1080p at 25 frames a second: a noisy picture that drifts."""
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 256, (1080 // 8, 3840 // 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        options = {"preset": "superfast", "g": str(keyframe_every), "keyint_min": str(keyframe_every), "bf": "2"}
        stream = container.add_stream("libx264", rate=25, options={**options, "sc_threshold": "0", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(1500):
            shift = 4 * number % 1920
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(plane[:, shift : shift + 1920]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/loading.json"))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    kinds, minutes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in KINDS.items():
            path = write_video(Path(folder, name), width=320, height=240, **settings)
            calls: dict[str, Callable[[], np.ndarray]] = {"ours": partial(ours, path)}
            if torchcodec is not None:
                calls["torchcodec"] = partial(by_torchcodec, path, 1)
            kinds[name] = compare(calls, arguments.rounds)
            print(name, json.dumps(kinds[name]), flush=True)
        for name, keyframe_every in LONG.items():
            path = write_minute(Path(folder, f"{keyframe_every}.mp4"), keyframe_every)
            calls = {"ours": partial(ours, path), "transformers": partial(by_transformers, path, 1500)}
            if torchcodec is not None:
                calls["torchcodec"] = partial(by_torchcodec, path, 0)
            minutes[name] = {"bytes": path.stat().st_size, **compare(calls, max(2, arguments.rounds // 3))}
            print(name, json.dumps(minutes[name]), flush=True)
    summary = {
        "machine": machine(),
        "rounds": arguments.rounds,
        "goals": GOALS,
        "torchcodec": None if torchcodec is None else torchcodec.__version__,
        "kinds": kinds,
        "1080p": minutes,
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
