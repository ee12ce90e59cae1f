"""The command build: from a folder of videos to a small classifier that is measured. Each step is a command itself."""

import csv
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .common import REQUIRED, argument, option, say
from .steps import ask, step


IMAGE_SIDES = (224, 160, 112)  # of frames for the image network, from the most accurate to the fastest
STUDENT_SIDES = (112, 64)
SHORT_SIDE = 256  # of prepared clips: of what the largest crop is taken from
VIEWS = 8  # of each training clip that the teacher answers to; epoch e shows view e modulo 8
BATCH = 16
# chosen by benchmarks/ucf101.py, on clips that are held out
STUDENT: dict[str, Any] = {
    **{"alpha": 0.5, "temperature": 4, "feature_weight": 4, "mixup_alpha": 0.4, "label_smoothing_factor": 0.1},
    **{"learning_rate": 1e-3, "weight_decay": 0.05, "lr_scheduler_type": "cosine", "warmup_steps": 0.1},
    **{"per_device_train_batch_size": BATCH, "augment": "true", "dataloader_num_workers": 1},
}


@dataclass
class Build:
    """
    Build a small classifier from a folder of videos, and measure it: split, check, train, distill, export, test.

    An image network with a new head learns the classes, and teaches a small Video-FocalNet, which is also trained
    alone. Of the three, the one that is the most accurate on validation clips within the budget is exported, and
    measured on test clips. OUTPUT has a folder of each step, and report.html. The same command continues a run that
    was stopped.
    """

    source: Path = argument("Folder or list of videos, as for `dvflnet split`.")
    output: Path = option(REQUIRED, "Folder for everything that is made.")
    budget: str = option("200 ms", "Time of a clip on this machine, such as `50 ms`, or size of the weights, `5 MB`.")
    image_model: str = option("efficientnet-lite0", "Image network: folder or Hub id.")
    epochs: int = option(100, "Epochs of the small network.", minimum=1)
    format: Literal["onnx", "openvino"] = option("onnx", "Format of the export.")
    ignore_findings: bool = option(False, "Continue although check found unreadable files or copies in two splits.")
    seed: int = option(0, "Random seed of the division and of the trainings.")

    def run(self):
        limit, unit = parse_budget(self.budget)
        out = self.output
        out.mkdir(parents=True, exist_ok=True)
        clips = self.prepare_clips()
        plan = self.plan(clips, limit, unit)
        self.train(clips, plan)
        chosen = choose(self.candidates(plan), limit, unit)
        self.calibrate(chosen, clips)
        exported = out / self.format
        if not exported.exists():
            step("export", out / "model", exported, format=self.format)
        # accuracy and time of the file that is used
        results = out / "test" / "results.json"
        if not results.is_file():
            shutil.rmtree(out / "test", ignore_errors=True)  # of an evaluation that was stopped
            step("evaluate", exported, dataset="folder", data_dir=clips, split="test", output=out / "test")
        test = json.loads(results.read_text(encoding="utf-8"))
        times = ask("benchmark", exported, *sorted((clips / "test").glob("*/*"))[:20])
        self.report(plan, chosen, test, times)

    def prepare_clips(self) -> Path:
        """Split, check and re-encode the videos, and return the folder of the clips."""
        out, clips = self.output, self.output / "clips"
        if not (out / "data").exists():
            step("split", self.source, out / "data", seed=self.seed)
        step("check", out / "data", allow=1, output=out / "check", image_model=self.image_model)
        if grave_findings(out / "check") and not self.ignore_findings:
            raise ValueError(
                f"check found unreadable files, or copies in two splits: see {out / 'check' / 'report.html'}. Mend "
                f"{self.source} and delete {out}, or add --ignore_findings"
            )
        if not (clips / "manifest.jsonl").is_file():
            step("prepare", out / "data", clips, allow=int(self.ignore_findings), short_side=SHORT_SIDE)
        return clips

    def train(self, clips: Path, plan: dict[str, Any]):
        """Train the head of the image network; then the small network, with its answers and alone."""
        from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT

        teacher, answers, pair = (self.output / name for name in ("teacher", "answers", "distilled"))
        common: dict[str, Any] = {"data_dir": clips, "seed": self.seed}
        if not (teacher / "results.json").is_file():
            words = shape(plan["image network"]["side"])
            step("train", **common, output_dir=teacher, image_model=self.image_model, **words)
        if not (pair / "results.json").is_file():
            step("cache-teacher", teacher, answers, "--features", dataset="folder", **common, views=VIEWS)
            words = shape(plan["small network"]["side"]) | STUDENT | {"num_train_epochs": self.epochs}
            words |= {"teacher_model_name_or_path": teacher, "teacher_cache": answers}
            step("distill", **common, output_dir=pair, student_model_name_or_path=MOTIONS_STUDENT, **words)

    def calibrate(self, chosen: dict[str, Any], clips: Path):
        """Write the folder `model`: the chosen network, calibrated if there are validation clips enough."""
        from hf_dvflnet.hub.calibration import MIN_CLIPS

        model = self.output / "model"
        if model.exists():
            return
        if chosen["clips"] >= MIN_CLIPS:
            step("calibrate", chosen["folder"], data_dir=clips, output=model)
        else:
            say(f"Not calibrated: {chosen['clips']} validation clips; {MIN_CLIPS} are needed")
            shutil.copytree(chosen["folder"], model, ignore=shutil.ignore_patterns("checkpoint-*", "runs"))

    def plan(self, clips: Path, limit: float, unit: str) -> dict[str, Any]:
        """Choose the sizes by the budget, and say how long the trainings take, by a trial of a few seconds."""
        file = self.output / "plan.json"
        if file.is_file():  # of a run that was stopped: its networks have these sizes
            return json.loads(file.read_text(encoding="utf-8"))
        from hf_dvflnet import FrameModelForVideoClassification, VideoFocalNetForVideoClassification
        from hf_dvflnet.hub.image_networks import load_image_network
        from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT

        network, _ = load_image_network(self.image_model)
        image = FrameModelForVideoClassification.from_image_model(network, frame_trend=True)
        small = VideoFocalNetForVideoClassification.from_pretrained(MOTIONS_STUDENT)
        plan: dict[str, Any] = {"budget": self.budget}
        for name, model, sides in (("image network", image, IMAGE_SIDES), ("small network", small, STUDENT_SIDES)):
            megabytes = 4 * model.num_parameters() / 1e6
            trials: dict[int, float] = {}
            for side in sides:
                trials[side] = self.milliseconds_exported(model, side)
                if fits := (trials[side] if unit == "ms" else megabytes) <= limit:
                    break
            if not fits and name == "image network":  # the teacher need not fit
                side = sides[1]
            plan[name] = {"side": side, "ms": trials[side], "MB": megabytes, "fits": fits, "trials": trials}
        if not plan["small network"]["fits"]:
            raise ValueError(
                f"--budget {self.budget}: the smallest network takes {plan['small network']['ms']:.0f} ms and "
                f"{plan['small network']['MB']:.1f} MB here; allow as much"
            )
        training = sum(1 for _ in (clips / "train").glob("*/*"))
        answering = seconds_of(image.eval(), plan["image network"]["side"], 1)
        step_of_clip = seconds_of(small.train(), plan["small network"]["side"], BATCH)
        plan["minutes"] = {
            "answers of the image network": training * VIEWS * answering / 60,
            "small network, twice": 2 * self.epochs * training * step_of_clip / 60,
        }
        say("")
        say(f"The plan for {training} training clips and a budget of {self.budget}, by a trial on this machine:")
        for name in ("image network", "small network"):
            row = plan[name]
            tried = ", ".join(f"{side} pixels {ms:.0f} ms" for side, ms in row["trials"].items())
            within = "" if row["fits"] else "; over the budget, so that it only teaches"
            say(f"  {name}: {row['side']} pixels, {row['MB']:.1f} MB (a clip in {self.format}: {tried}){within}")
        for part, minutes in plan["minutes"].items():
            say(f"  {part}: about {max(minutes, 0.1):.1f} minutes, and what decoding takes")
        file.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
        return plan

    def milliseconds_exported(self, model: Any, side: int) -> float:
        """Milliseconds of a clip of the exported network, whose weights do not matter."""
        from hf_dvflnet import VideoFocalNetVideoProcessor, export_model, load_exported

        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            VideoFocalNetVideoProcessor(crop_size=side).save_pretrained(folder)
            export_model(folder, f"{folder}/program", format=self.format)
            return 1000 * seconds_of(load_exported(f"{folder}/program"), side, 1)

    def candidates(self, plan: dict[str, Any]) -> list[dict[str, Any]]:
        """The three classifiers, with their accuracy on the validation clips."""
        pair = self.output / "distilled"
        results = json.loads((pair / "results.json").read_text(encoding="utf-8"))["results"]
        rows = {
            "image network": (self.output / "teacher", "teacher", "image network"),
            "small network, distilled": (pair / "student", "student distilled", "small network"),
            "small network, alone": (pair / "student_alone", "student alone", "small network"),
        }
        return [
            {"name": name, "folder": folder, **plan[size], **results[result]}
            for name, (folder, result, size) in rows.items()
        ]

    def report(self, plan: dict[str, Any], chosen: dict[str, Any], test: dict[str, Any], times: dict[str, Any]):
        """Write report.json and report.html, and print what was built, how good and how fast it is."""
        from hf_dvflnet.plots import page
        from hf_dvflnet.training.diagnosis import accuracy_text

        out = self.output
        speed = {name: 1000 * times[name]["median"] / times["clips"] for name in ("decode", "preprocess", "forward")}
        size = sum(path.stat().st_size for path in (out / self.format).iterdir() if path.is_file()) / 1e6
        rows = [
            {
                "network": one["name"],
                "validation top-1": accuracy_text(one["top1"], one["clips"]),
                "pixels": one["side"],
                f"ms in {self.format}": f"{one['ms']:.0f}",
                "MB": f"{one['MB']:.1f}",
                "within the budget": "yes" if one["fits"] else "no",
            }
            for one in self.candidates(plan)
        ]
        accuracy = accuracy_text(test["top1"] / 100, test["clips"])
        lines = [
            f"Built: {out / 'model'}, the {chosen['name']}, and {out / self.format} for {self.format}, {size:.1f} MB.",
            f"How good: top-1 {accuracy} on the test clips, of recordings that were not trained on.",
            f"How fast: {speed['forward']:.1f} ms a clip, and {speed['decode'] + speed['preprocess']:.1f} to read it.",
            f"How sure: scores and accuracy differ by {100 * test['ece']:.1f} points (ECE on the test clips).",
            f"Next: look at {out / 'report.html'}; then dvflnet predict {out / self.format} VIDEO, or dvflnet watch.",
        ]
        (out / "report.json").write_text(
            json.dumps(
                {"plan": plan, "candidates": rows, "chosen": chosen["name"], "test": test, "times": times}, indent=2
            )
            + "\n",
            encoding="utf-8",
        )
        pictures = [
            out / "distilled" / "comparison.png",
            out / "test" / "class_bars.png",
            out / "test" / "confusion.png",
        ]
        sections = [
            ("What was built", [page.text(line) for line in lines]),
            ("What was compared", [page.table(rows), page.text(f"The budget was {self.budget}.")]),
            ("Pictures", [page.picture(path.read_bytes()) for path in pictures]),
            ("The data", [page.text(f"See {out / 'check' / 'report.html'}.")]),
        ]
        page.write_page(out / "report.html", f"A classifier of {self.source}", sections)
        say("")
        for line in lines:
            say(line)


def parse_budget(text: str) -> tuple[float, str]:
    """`50 ms` or `5 MB` as a number and its unit."""
    number, unit = text.strip()[:-2], text.strip()[-2:]
    try:
        limit = float(number)
    except ValueError:
        limit = 0.0
    if unit not in ("ms", "MB") or not 0 < limit < float("inf"):
        raise ValueError(f"--budget {text}: must be a time such as `50 ms`, or a size such as `5 MB`")
    return limit, unit


def choose(candidates: list[dict[str, Any]], limit: float, unit: str) -> dict[str, Any]:
    """The most accurate network within the budget; of equals, the fastest."""
    return max((one for one in candidates if one[unit] <= limit), key=lambda one: (one["top1"], -one["ms"]))


def shape(side: int) -> dict[str, Any]:
    """Options for clips of this height and width: the crop, and the short side that it is taken from."""
    return {"image_size": side, "short_side": side * 8 // 7}


def seconds_of(model: Any, side: int, clips: int) -> float:
    """
    Seconds of a clip of 8 frames in a forward pass of so many, of a network in training mode with the backward pass:
    the least of five, as other work on the machine can only make it slower.
    """
    import torch

    pixel_values = torch.zeros(clips, 8, 3, side, side)
    training = getattr(model, "training", False)
    spent = []
    for _ in range(6):
        began = time.perf_counter()
        with torch.set_grad_enabled(training):
            logits = model(pixel_values=pixel_values).logits
        if training:
            logits.sum().backward()
        spent.append((time.perf_counter() - began) / clips)
    return min(spent[1:])


def grave_findings(check: Path) -> bool:
    """Whether the check that wrote this folder found what spoils a training."""
    with open(check / "findings.csv", encoding="utf-8", newline="") as file:
        return any(row["kind"] in ("unreadable", "leak") for row in csv.DictReader(file))
