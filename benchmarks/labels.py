"""
What unlabelled clips add where few are labelled: UCF101's classes in DIR, split 1, with 2 to 100 % of the labels.

    python benchmarks/labels.py DIR            # ARMS with each of SHARES, and the losses of ABLATION with 10 %
    python benchmarks/labels.py DIR --picture  # draws what there is
    python benchmarks/labels.py DIR --jhmdb JHMDB --out OUT.json  # bodies of UCF101, tuned on JHMDB

`scratch` is a small Video-FocalNet that is trained on the labelled clips alone. `distilled` is the same one, first
taught on all training clips without their labels, by the features that ImageNet's EfficientNet-Lite0 has of each
frame, then tuned as a whole on the labelled ones; `probe first` trains its head alone before that. `teacher` is a head
on the image network. A share of the labels is one of the clips of each class, whole recordings (UCF's groups) in the
order of a seed, of which the last may be cut; all trainings with labels take as many steps.

Views of the clips and the teacher's features of them are the files of `ucf101.py`, in the same working folder. Each
run is written to `benchmarks/labels.json` when it ends, and is not repeated. With `--choose`, groups of the training
clips that are held out take the place of the test clips.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import datasets
import matplotlib
import numpy as np
import pandas
import torch
from measuring import gain, labels_of, machine
from ucf101 import (
    SETTINGS,
    StoredAnswersTrainer,
    Teacher,
    TestViews,
    TrainingViews,
    Views,
    figures,
    load_clips,
    new_student,
    recipe,
    softmax,
    teacher_model,
)

from hf_dvflnet import DistillationConfig, VideoClassificationTrainer, VideoTrainingArguments, load_benchmark


matplotlib.use("Agg")
from matplotlib import pyplot as plt


RESULTS = Path(__file__).with_name("labels.json")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "labels.png"
OWN_SETTINGS: dict[str, Any] = SETTINGS | {
    **{"size": 64, "body_epochs": 150, "body_mixup": 0.0, "steps": 3000, "probe_steps": 300, "tune_rate": 5e-4},
}
ABLATION: dict[str, dict[str, Any]] = {  # how a body is taught; `clip`: by the mean of the features of the frames
    "distilled, clip features": {"feature_weight": 1.0, "clip": True},
    "distilled, relations alone": {"relation_weight": 25.0},
    "distilled": {"feature_weight": 1.0},
    "distilled, and relations": {"feature_weight": 1.0, "relation_weight": 25.0},
    "distilled, probe first": {"feature_weight": 1.0},
}
ARMS = ("scratch", "distilled", "distilled, and relations", "teacher")
SHARES, SHARE_OF_ABLATION = (2, 5, 10, 25, 100), 10


def labelled(rows: datasets.Dataset, share: int, seed: int) -> datasets.Dataset:
    """The clips of a share of the labels, in percent, at least one of each class."""
    table = rows.select_columns(["label", "group", "video_id"]).to_pandas()
    order = {
        group: place for place, group in enumerate(np.random.default_rng(seed).permutation(sorted(set(table.group))))
    }
    table = table.assign(place=table.group.map(order)).sort_values(["label", "place", "video_id"])
    counts = (table.groupby("label").size() * share / 100).apply(math.ceil)
    chosen = table[table.groupby("label").cumcount() < table.label.map(counts)]
    return rows.select(sorted(chosen.index))


class UnlabelledTrainer(StoredAnswersTrainer):
    """Matches what the teacher said of the frames, or with `of_clips` the mean of it."""

    of_clips = False

    def _match_features(self):
        super()._match_features()
        if self.of_clips:
            self._projection.by_frame = False


def body(arm: str, seed: int, train: datasets.Dataset, views: Views, settings: dict[str, Any]) -> Path:
    """The file of a body that was taught without labels."""
    how, work = ABLATION[arm], views.folder
    names = ("student", "frames", "area", "views", "batch_size", "learning_rate", "weight_decay", "teacher_size")
    about = [how, seed, {name: settings[name] for name in (*names, "size", "body_epochs", "body_mixup")}]
    digest = hashlib.sha256(json.dumps([about, train["video_id"][:]]).encode()).hexdigest()
    file = work / "bodies" / f"{digest[:16]}.pt"
    if file.is_file():
        return file
    views.make(train, "pixels", settings["size"], views.training_parts)
    views.make(train, "features", settings["teacher_size"], views.training_parts)
    clips = TrainingViews(train, views, settings["size"], Teacher(train, views, 0))
    own = settings | {"epochs": settings["body_epochs"], "mixup": settings["body_mixup"]}
    weights = {name: value for name, value in how.items() if name != "clip"}
    classes = labels_of(train)
    args = DistillationConfig(**recipe(own, seed, work), **weights, use_labels=False, logging_steps=0.02)
    UnlabelledTrainer.of_clips = how.get("clip", False)
    student = new_student(settings["size"], classes, seed, settings)
    trainer = UnlabelledTrainer(student, args, teacher_model=teacher_model(views, classes), train_dataset=clips)
    trainer.train()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(trainer.model.base_model.state_dict(), file)
    losses = {name: [row[name] for row in trainer.state.log_history if name in row] for name in ("loss",)}
    file.with_suffix(".json").write_text(json.dumps({"about": about, **losses}) + "\n")
    return file


def run(
    arm: str,
    share: int,
    seed: int,
    settings: dict[str, Any],
    clips: tuple[Any, Any, Views],
    footage: tuple[Any, Views],
) -> dict[str, Any]:
    """A run on training and test clips, with their views; bodies learn from `footage`, clips without labels."""
    train, test, views = clips
    work = footage[1].folder
    few, labels = labelled(train, share, seed), np.array(test["label"])
    began = time.process_time()
    if arm == "teacher":
        views.make(few, "features", settings["teacher_size"], views.training_parts)
        views.make(test, "features", settings["teacher_size"], ["test-1", "test-12"])
        teacher = Teacher(few, views, seed)
        found = {part: teacher.logits(test, views, part) for part in ("test-1", "test-12")}
        answers = {"1 view": found["test-1"][:, 0], "12 views": softmax(found["test-12"]).mean(1)}
    else:
        views.make(train, "pixels", settings["size"], views.training_parts)
        views.make(test, "pixels", settings["size"], ["test-1", "test-12"])
        student = new_student(settings["size"], labels_of(train), seed, settings)
        if arm != "scratch":
            student.base_model.load_state_dict(torch.load(body(arm, seed, *footage, settings)))
        shown = TrainingViews(few, views, settings["size"], None)
        args = recipe(settings, seed, work) | {"max_steps": settings["steps"], "logging_steps": 0.1}
        if arm != "scratch":
            args["learning_rate"] = settings["tune_rate"]
        if arm == "distilled, probe first":
            student.base_model.requires_grad_(False)
            probe = args | {"max_steps": settings["probe_steps"], "learning_rate": settings["learning_rate"]}
            VideoClassificationTrainer(student, VideoTrainingArguments(**probe), train_dataset=shown).train()
            student.base_model.requires_grad_(True)
        trainer = VideoClassificationTrainer(student, VideoTrainingArguments(**args), train_dataset=shown)
        trainer.train()
        parts = {"1 view": "test-1", "12 views": "test-12"}
        answers = {
            name: trainer.predict(TestViews(test, views, settings["size"], part)).predictions
            for name, part in parts.items()
        }
    found = {name: figures(scores, labels) for name, scores in answers.items()}
    return found | {"labelled": len(few), "cpu_minutes": round((time.process_time() - began) / 60, 1)}


def table(stored: dict[str, Any]) -> pandas.DataFrame:
    """For each share and arm, the seeds, accuracy with 1 view, and gain over `scratch` with 95 % interval, in %."""
    runs = {(row["share"], row["arm"], row["seed"]): row["1 view"] for row in stored["runs"]}
    lines = []
    for share, arm in sorted({key[:2] for key in runs}):
        seeds = [key[2] for key in runs if key[:2] == (share, arm)]
        tops = [100 * runs[share, arm, seed]["top1"] for seed in seeds]
        line = {"labels, %": share, "arm": arm, "seeds": len(seeds), "top-1": f"{np.mean(tops):.1f}"}
        pairs = [seed for seed in seeds if (share, "scratch", seed) in runs and arm != "scratch"]
        if pairs:
            right = [
                np.array([np.equal(runs[share, one, seed]["answers"], stored["labels"]) for seed in pairs])
                for one in ("scratch", arm)
            ]
            line["gain"] = "{:+.1f} ({:+.1f} to {:+.1f})".format(
                *(100 * each for each in gain(*right, stored["groups"]))
            )
        lines.append(line)
    return pandas.DataFrame(lines).fillna("")


def draw(stored: dict[str, Any], file: Path):
    """Accuracy over the share of labels, a line for each arm and a point for each run."""
    runs = pandas.DataFrame([{**row, "top1": 100 * row["1 view"]["top1"]} for row in stored["runs"]])
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, (arm, rows) in enumerate(runs[runs.arm.isin(ARMS)].groupby("arm")):
        mean = rows.groupby("share").top1.mean()
        axes.plot(mean.index, mean, color=f"C{number}", label=arm)
        axes.scatter(rows.share, rows.top1, 12, color=f"C{number}")
    axes.set_xscale("log")
    axes.set_xticks(SHARES, [str(share) for share in SHARES])
    axes.set(xlabel="training clips with a label, %", ylabel="test clips right, %")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--jhmdb", type=Path, help="Folder of JHMDB: tune and test on its split 1; needs --out.")
    parser.add_argument("--choose", action="store_true", help="Needs --out.")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="Other settings; needs --out.")
    parser.add_argument("--arms", nargs="*", choices=["scratch", *ABLATION, "teacher"], default=None)
    parser.add_argument("--shares", nargs="*", type=int, default=None)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS, help="The JSON.")
    parser.add_argument("--work", type=Path, default=Path("runs/ucf101"))
    parser.add_argument("--picture", action="store_true", help=f"Draw {PICTURE.name}, and train nothing.")
    arguments = parser.parse_args()
    other = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in arguments.set)}
    if (other or arguments.choose or arguments.jhmdb) and arguments.out == RESULTS:
        parser.error("the settings of the experiment are those of this file; other ones, or clips, need another --out")
    if unknown := other.keys() - OWN_SETTINGS.keys():
        parser.error(f"there is no setting {', '.join(unknown)}")
    settings = OWN_SETTINGS | other

    def stored() -> dict[str, Any]:
        return json.loads(arguments.out.read_text()) if arguments.out.is_file() else {"runs": []}

    todo = [(arm, share) for share in SHARES for arm in ARMS]
    todo += [(arm, SHARE_OF_ABLATION) for arm in ABLATION if arm not in ARMS]
    if arguments.arms is not None:
        todo = [(arm, share) for arm in arguments.arms for share in (arguments.shares or SHARES)]
    elif arguments.shares is not None:
        todo = [(arm, share) for arm, share in todo if share in arguments.shares]
    if arguments.jhmdb is not None:
        todo = [(arm, 100) for arm in ("scratch", "distilled")] if arguments.arms is None else todo
    if not arguments.picture:
        views = Views(arguments.work, settings)
        train, test = load_clips(arguments.folder, arguments.work, 1, arguments.choose)
        footage, clips = (train, views), (train, test, views)
        if arguments.jhmdb is not None:
            both = (load_benchmark("jhmdb", arguments.jhmdb, split) for split in ("train", "test"))
            clips = (*both, Views(arguments.work / "jhmdb", settings))
        for seed in arguments.seeds:
            for arm, share in todo:
                done = [(row["arm"], row["share"], row["seed"], row["settings"]) for row in stored()["runs"]]
                if (arm, share, seed, settings) in done:
                    continue
                print(f"{arm}, {share} % of the labels, seed {seed}", flush=True)
                found = run(arm, share, seed, settings, clips, footage)
                row = {"arm": arm, "share": share, "seed": seed, "settings": settings, **found, "machine": machine()}
                results = stored()  # again, since another process may have added its runs
                results["runs"].append(row)
                test = clips[1]
                results["labels"] = test["label"][:]
                pairs = zip(test["video_id"], test["group"], strict=True)
                results["groups"] = [f"{name.split('/')[0]} {group}" for name, group in pairs]
                arguments.out.write_text(json.dumps(results) + "\n")
                print(f"{row['1 view']['top1']:.1%}", flush=True)
    draw(stored(), PICTURE if arguments.out == RESULTS else arguments.out.with_suffix(".png"))
    print(table(stored()).to_string(index=False))


if __name__ == "__main__":
    main()
