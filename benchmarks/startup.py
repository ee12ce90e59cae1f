"""
What starting costs: CPU seconds of whole commands with all their children, each against the bound, which is what
importing the libraries takes without this package.

    python benchmarks/startup.py [--before CHECKOUT]

All rows of all sides take turns, so that a busy machine slows them alike. `--before` measures another checkout of the
repository, too (`git worktree add CHECKOUT COMMIT`). The clips have 64 x 64 pixels and 16 frames.
"""

import argparse
import ctypes
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from machine import machine
from timing import spread


HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "tests" / "helpers"))

from videos import write_video  # noqa: E402


BOUND = """
import torch, torchvision
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.modeling_utils import PreTrainedModel
from transformers.video_processing_utils import BaseVideoProcessor
"""
# what a decoding child has used when it returns its first frame; before the sandbox, it imported the package
CHILD = """
import sys, psutil, hf_dvflnet
sandbox = "sandbox" in getattr(hf_dvflnet.VideoLimits, "__dataclass_fields__", {})
limits = hf_dvflnet.VideoLimits(**({"sandbox": True} if sandbox else {}))
hf_dvflnet.read_video(sys.argv[1], [0], limits=limits)
child = psutil.Process().children()[0] if sandbox else psutil.Process()
print(child.cpu_times().user + child.cpu_times().system)
"""
# torchvision imports torch._dynamo, transformers.modeling_utils torchao where it is installed
PROFILED = ("torch", "torchvision", "torch._dynamo", "transformers.modeling_utils", "torchao", "av", "hf_dvflnet")
SAVE = """
import sys, hf_dvflnet
hf_dvflnet.VideoFocalNetModel(hf_dvflnet.VideoFocalNetConfig(embed_dim=8)).save_pretrained(sys.argv[1])
hf_dvflnet.VideoFocalNetImageProcessor().save_pretrained(sys.argv[1])
hf_dvflnet.VideoFocalNetVideoProcessor().save_pretrained(sys.argv[1])
"""


def run(checkout: Path, *arguments: object) -> subprocess.CompletedProcess:
    options: dict = {"env": {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}, "cwd": checkout}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)  # noqa: S603


def cpu_seconds(checkout: Path, *arguments: object) -> float:
    """CPU seconds of a command and of all processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(checkout, *arguments)
    with suppress(ChildProcessError):
        while True:  # children that outlive the command are handed to this process
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_round(checkout: Path, clips: Path) -> dict[str, float]:
    predict = ("-m", "dvflnet_cli", "predict", checkout / "hf_dvflnet" / "hub" / "motions-student")
    with tempfile.TemporaryDirectory() as folder:
        many = (*predict, clips, "--output", Path(folder, "out.parquet"), "--num-workers", 2)
        return {
            "bound": cpu_seconds(checkout, "-c", BOUND),
            "import hf_dvflnet": cpu_seconds(checkout, "-c", "import hf_dvflnet"),
            "decoding child, first frame": float(run(checkout, "-c", CHILD, clips / "0.mp4").stdout),
            "predict, 1 clip": cpu_seconds(checkout, *predict, clips / "0.mp4"),
            "predict, 16 clips, 2 workers": cpu_seconds(checkout, *many),
        }


def code_of(checkout: Path) -> dict[str, int]:
    """Lines of the package and its commands, and how much of it a saved model with its processors carries."""
    with tempfile.TemporaryDirectory() as folder:
        run(checkout, "-c", SAVE, folder)
        carried = [path.read_text("utf-8").count("\n") for path in Path(folder).glob("*.py")]
    paths = [path for name in ("hf_dvflnet", "dvflnet_cli") for path in (checkout / name).rglob("*.py")]
    lines = sum(path.read_text("utf-8").count("\n") for path in paths)
    return {"carried files": len(carried), "carried lines": sum(carried), "lines": lines}


def import_profile(checkout: Path, clips: Path) -> dict[str, float]:
    """Seconds that `predict` spends on importing modules, with what each is the first to import."""
    student = checkout / "hf_dvflnet" / "hub" / "motions-student"
    shown = run(checkout, *("-X", "importtime", "-m", "dvflnet_cli", "predict", student, clips / "0.mp4")).stderr
    found = re.findall(r"import time: +(\d+) \| +(\d+) \| +(\S+)", shown)
    times = {name: round(int(cumulative) / 1e6, 2) for _, cumulative, name in found if name in PROFILED}
    return {**times, "all imports": round(sum(int(own) for own, _, _ in found) / 1e6, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/startup.json"))
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    sides = {"now": HERE, **({"before": options.before.resolve()} if options.before else {})}
    result: dict = {"machine": machine(), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(16):
            write_video(Path(folder, f"{number}.mp4"), num_frames=16, width=64, height=64)
        rounds = [{side: one_round(root, Path(folder)) for side, root in sides.items()} for _ in range(options.rounds)]
        for side, root in sides.items():
            seconds = {row: spread([one[side][row] for one in rounds]) for row in rounds[0][side]}
            result[side] = {"CPU seconds": seconds, **code_of(root)}
        result["imports of predict"] = import_profile(HERE, Path(folder))
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
