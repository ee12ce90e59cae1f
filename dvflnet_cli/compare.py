"""The command compare: forms of a model side by side, such as a network and its exports."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common import REQUIRED, argument, option, say, shared, show
from .steps import ask


WEIGHTS = (".safetensors", ".onnx", ".data", ".bin", ".xml", ".pte")  # of models and exports


@dataclass
class Compare:
    """
    Compare models and their exports on the same clips: accuracy, time of a clip, memory, size, and equal answers.

    The first model is what the others are compared with. Times are those of one clip after another, without decoding,
    on up to 20 of the clips; run it while nothing else runs.
    """

    models: list[str] = argument("Model folders, Hub ids, or folders written by `dvflnet export`.", metavar="MODEL...")
    data_dir: Path = option(REQUIRED, "Folder with <split>/<class>/<video>.")
    split: str = option("test", "The split that is classified.")
    max_loss: float = option(1.0, "Points of top-1 accuracy below the first model that give a warning.", minimum=0)
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet import load_video_folder
        from hf_dvflnet.inference.evaluation import read_predictions

        videos = [row["path"] for row in load_video_folder(self.data_dir)[self.split]["video"][:20]]
        rows: list[dict[str, Any]] = []
        first: dict[str, str] = {}
        for model in self.models:
            with tempfile.TemporaryDirectory() as folder:
                words = {
                    "dataset": "folder",
                    "data_dir": self.data_dir,
                    "split": self.split,
                    "output": f"{folder}/out",
                }
                figures = ask("evaluate", model, **words)
                _, predictions = read_predictions(f"{folder}/out/predictions.jsonl")
            times = ask("benchmark", model, *videos)
            answers = {row["video_id"]: row["top5"][0][0] for row in predictions}
            first = first or answers
            files = [
                path for path in Path(model).rglob("*") if path.suffix in WEIGHTS and path.name != "training_args.bin"
            ]
            rows.append(
                {
                    "model": model,
                    "top1": figures["top1"],
                    "clips": figures["clips"],
                    "same_answer": round(
                        100 * sum(first[name] == answers[name] for name in answers) / len(answers), 1
                    ),
                    "forward_ms": round(1000 * times["forward"]["median"] / times["clips"], 2),
                    "resident_MB": round(times["resident_megabytes"]),
                    "MB": round(sum(path.stat().st_size for path in files) / 1e6, 1),
                }
            )
            if rows[0]["top1"] - figures["top1"] > self.max_loss:
                say(
                    f"Warning: {model}: {rows[0]['top1'] - figures['top1']:.1f} points below {self.models[0]}",
                    err=True,
                )
        if self.json:
            return show({"models": rows}, True)
        say("")
        say("".join(f"{name:>13}" for name in list(rows[0])[1:]) + "  model")
        for row in rows:
            say("".join(f"{value:>13}" for value in list(row.values())[1:]) + f"  {row['model']}")
