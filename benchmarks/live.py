"""
How soon a live source is answered: nano over a window of 2 seconds, in PyTorch and exported to OpenVINO, on files of
25 frames a second that are shown at their own pace, as `dvflnet watch MODEL FILE --realtime` does.

    python benchmarks/live.py

An answer is due every second, and every half, as by default. Writes JSON; 5 minutes on 2 cores.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from forward import openvino_nano, ours
from machine import machine
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetVideoProcessor, VideoStreamClassifier
from hf_dvflnet.inference.live_sources import open_stream


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from videos import write_video


SIZES = {"320 x 240": (320, 240), "1920 x 1080": (1920, 1080)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/live.json"))
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    processor = VideoFocalNetVideoProcessor()
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {"PyTorch": ours("nano"), "OpenVINO": openvino_nano(folder)}
        for size, (width, height) in SIZES.items():
            options = {"preset": "superfast", "g": "50"}
            path = write_video(
                folder / f"{width}.mp4", num_frames=25 * arguments.seconds, width=width, height=height, options=options
            )
            for kind, model in models.items():
                for stride in (25, 12):
                    classifier = VideoStreamClassifier(model, processor, window=50, stride=stride)
                    with open_stream(path) as stream:
                        latencies = [answer.latency for answer in classifier.run(stream, realtime=True)]
                    median, slow = np.percentile(latencies, [50, 95]).tolist()
                    row = {"video": size, "nano": kind, "stride": stride, "latency_median": median}
                    row |= {name: getattr(classifier, name) for name in ("frames", "answers", "skipped", "dropped")}
                    found.append({**row, "latency_p95": slow})
                    print(json.dumps(found[-1]), flush=True)
    arguments.output.write_text(json.dumps({"machine": machine(), "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
