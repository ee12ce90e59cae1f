"""
Many files into one table: `dvflnet predict --output` in one process, in two, and on a Ray cluster of this machine.

    python benchmarks/bulk.py

500 files like UCF101's (320 x 240, MPEG-4, 7 s), nano with random weights on clips of 8 x 112 x 112. Each side is the
whole command, on 4 of the files and on all, in turn: the first tells what it takes to start, the difference what the
other 496 take. Then a tiny network on 20,000 files of 12 frames of 32 x 32, to see whether memory grows: resident
memory of the command and of all its children, once a second. Some 20 minutes on 2 cores. Writes JSON, round by round:
whoever stops it goes on with the same command.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
from measuring import continued, ratio, spread

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_dvflnet.hub.model_folder import save_model_folder


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from videos import write_video


CONFIGS = Path(__file__).parents[1] / "examples" / "accelerate_configs"
FILES, FEW, MANY = 500, 4, 20_000
GOAL = 1.15  # of the time of two processes, with Ray
DVFLNET = [sys.executable, "-m", "dvflnet_cli"]
LAUNCHED = [*(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"), "--config_file"]
SIDES = {
    "one process": DVFLNET,
    "two processes": [
        *(*LAUNCHED, str(CONFIGS / "cpu_2_processes.yaml")),
        *("-m", "dvflnet_cli"),
    ],
    "Ray": DVFLNET,
}
TINY = {"patch_size": 8, "image_size": 32, "embed_dim": 8, "depths": [1, 1], "focal_levels": [1, 1]} | {
    "focal_windows": [3, 3]
}


def linked(videos: list[Path], folder: Path, number: int) -> Path:
    """A list of as many names for these files as asked for: each is decoded, and none twice as the same source."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"{index:05}{videos[0].suffix}" for index in range(number)]
    for index, name in enumerate(names):
        if not name.exists():
            os.link(videos[index % len(videos)], name)
    listed = folder.with_suffix(".txt")
    listed.write_text("".join(f"{name}\n" for name in names))
    return listed


def make_files(folder: Path) -> dict[str, Path]:
    """Models, and lists of videos, under their names."""
    generator = np.random.default_rng(0)
    mpeg4 = {"codec": "mpeg4", "tag": "XVID", "options": {"g": "12", "b": "1000000"}}
    found = {}
    for name, options in (("nano", {"num_labels": 101, "image_size": 112}), ("tiny", {"num_labels": 16, **TINY})):
        found[name] = folder / name
        config = VideoFocalNetConfig.from_preset("nano", **options)
        if not found[name].exists():
            model = VideoFocalNetForVideoClassification(config).eval()
            save_model_folder(found[name], model, title=name, introduction="Random weights.")
    originals = folder / "originals"
    originals.mkdir(exist_ok=True)
    like_ucf, short = (
        [originals / f"{name}{index}.{suffix}" for index in range(10)]
        for name, suffix in (("ucf", "avi"), ("short", "mp4"))
    )
    for path in like_ucf:
        if not path.exists():
            write_video(path, num_frames=int(generator.integers(150, 200)), width=320, height=240, **mpeg4)
    for path in short:
        if not path.exists():
            write_video(path, num_frames=12, width=32, height=32)
    for name, videos, number in (("few", like_ucf, FEW), ("all", like_ucf, FILES), ("many", short, MANY)):
        found[name] = linked(videos, folder / name, number)
    return found


def command(side: str, model: Path, listed: Path, output: Path, *more: str) -> list[str]:
    where = ["--ray", "local"] if side == "Ray" else ["--device", "cpu"]
    return [*SIDES[side], "predict", str(model), "--list", str(listed), "--output", str(output), *where, *more]


def run(side: str, model: Path, listed: Path, folder: Path, *more: str) -> tuple[float, list[int]]:
    """Seconds of the command, and the resident bytes of it and its children, once a second."""
    output = folder / "scores.parquet"
    for left in folder.glob("scores.parquet*"):  # the table, what it belongs to, and parts of a run that was stopped
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    began, memory = time.perf_counter(), []
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            command(side, model, listed, output, *more), stdout=log, stderr=log, env=environment, cwd=folder
        )
        while process.poll() is None:
            memory.append(resident(process.pid))
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                continue
    seconds = time.perf_counter() - began
    rows = pyarrow.parquet.read_metadata(output).num_rows if output.exists() else 0
    if process.returncode or rows != len(listed.read_text().splitlines()):
        raise SystemExit(f"{side}: exit code {process.returncode}, {rows} rows; see {folder / 'log.txt'}")
    return seconds, memory


def resident(process: int) -> int:
    try:
        family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for each in family:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def compare(before: Path, folder: Path, found: dict, rounds: int, store: Callable[[], None]):
    """Videos a second of this checkout and of another one in turn, with two workers, on two sizes of videos."""
    model = make_files(folder)["nano"]
    sizes = {"320 x 240": (320, 240, 4, 100), "1080p": (1920, 1080, 2, 24)}
    done = found.setdefault("compared", {size: [] for size in sizes})
    for size, (width, height, few, many) in sizes.items():
        original = folder / f"{width}.mp4"
        if not original.exists():
            write_video(original, num_frames=175, width=width, height=height, options={"preset": "ultrafast"})
        lists = [linked([original], folder / f"{width}-{number}", number) for number in (few, many)]
        while len(done[size]) < rounds:
            row = {}
            for side, root in (("now", Path(__file__).parents[1]), ("before", before)):
                os.environ["PYTHONPATH"] = str(root)
                seconds = [run("one process", model, listed, folder, "--num-workers", "2")[0] for listed in lists]
                row[side] = (many - few) / (seconds[1] - seconds[0])
            done[size].append(row)
            store()
            print(size, row, flush=True)
    found["videos_per_second_to_before"] = {size: ratio(rows, "now", "before") for size, rows in done.items()}
    store()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="compare the speed with another checkout, and do nothing else")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/bulk.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/bulk"), help="of models, videos and tables")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    found = continued(arguments.output)

    def store():
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")

    if arguments.before:
        compare(arguments.before.resolve(), folder, found, arguments.rounds, store)
        return
    files = make_files(folder)
    rounds = found.setdefault("times", [])
    while len(rounds) < arguments.rounds:
        row = {}
        for side in SIDES:
            for listed in ("few", "all"):
                row[f"{side}, {listed}"], _ = run(side, files["nano"], files[listed], folder)
            row[side] = row[f"{side}, all"] - row[f"{side}, few"]
        rounds.append(row)
        store()
        print(row, flush=True)
    found |= {
        "rounds": len(rounds),
        "files": FILES,
        "bytes_per_video": statistics.mean(path.stat().st_size for path in (folder / "all").iterdir()),
        "goal": GOAL,
        "videos_per_second": {side: spread([(FILES - FEW) / row[side] for row in rounds]) for side in SIDES},
        "seconds_to_start": {side: spread([row[f"{side}, few"] for row in rounds]) for side in SIDES},
        "ray_to_two_processes": ratio(rounds, "Ray", "two processes"),
    }
    found["rows"] = MANY
    memory = found.setdefault("memory", {})
    for side in ("one process", "Ray"):
        if side not in memory:
            seconds, resident_bytes = run(side, files["tiny"], files["many"], folder)
            memory[side] = {"seconds": seconds, "megabytes": [round(value / 1e6) for value in resident_bytes]}
            store()
    store()
    print(json.dumps({name: value for name, value in found.items() if name not in ("times", "memory")}, indent=2))


if __name__ == "__main__":
    main()
