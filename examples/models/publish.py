"""
Make a model folder of a trained one: half the size, measured, with its card. The teacher's lies here; the student's is
part of the package, where `dvflnet create motions-student` takes it from.

    python examples/models/publish.py runs/motions-teacher teacher --videos runs/motions-teacher/motion_videos
    python examples/models/publish.py runs/motions-student/student student --videos runs/motions-student/motion_videos
    python examples/models/publish.py runs/seed1/student student --videos runs/seed1/motion_videos --another-run

The last one adds to the card what another run of the same settings gave, and leaves the folder as it is.

The weights are stored in float16, and the config says `dtype: float32`, so that `from_pretrained` gives float32 on any
device. The figures are those of the files that were written, on the test clips; they go to `results.json`, from which
the cards are written. The code for `trust_remote_code=True` is left out; `dvflnet push` adds it.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoImageProcessor, AutoVideoProcessor

import hf_dvflnet
from hf_dvflnet.inference import evaluation


HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TEMPLATE = HERE.parents[1] / "hub_cards" / "motions_model.md"
FOLDERS = {
    "teacher": HERE / "motions-teacher",
    "student": HERE.parents[1] / "hf_dvflnet" / "hub" / "motions-student",
}
SCRIPTS = {"teacher": "train.py", "student": "distill.py"}
# how a user comes by the folder, and what it is called then
MADE_BY = {"teacher": "", "student": "dvflnet create motions-student data/student\n"}
SHOWN_AS = {"teacher": "examples/models/motions-teacher", "student": "data/student"}


def shrink(trained: Path, out: Path):
    """Write the model and both processors of a trained folder, its weights in float16."""
    model = hf_dvflnet.load_model(str(trained))
    model.half().save_pretrained(out)
    for processor in (AutoVideoProcessor, AutoImageProcessor):
        processor.from_pretrained(trained).save_pretrained(out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
    for code in out.glob("*.py"):
        code.unlink()


def measure(folder: Path, videos: Path) -> dict[str, float]:
    """Accuracy of the files in a folder on the test clips, one view a clip."""
    model, processor = hf_dvflnet.load_model(str(folder)), hf_dvflnet.load_processor(str(folder))
    clips = hf_dvflnet.load_video_folder(videos)["test"]
    predictions, failures = evaluation.predict_clips(model, processor, clips, batch_size=64)
    if failures:
        raise SystemExit(f"{len(failures)} clips cannot be read, such as {failures[0]['video_id']}")
    figures = evaluation.compute_figures(predictions, clips.features["label"].names)
    return {
        **{name: round(figures[name], 4) for name in ("top1", "top5")},
        "clips": figures["clips"],
        "parameters": model.num_parameters(),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }


def card(role: str, results: dict) -> ModelCard:
    """The card of a model, from the results alone."""
    row = results[role]
    return ModelCard.from_template(
        ModelCardData(
            library_name="transformers", pipeline_tag="video-classification", tags=["dvflnet"], license="mit"
        ),
        template_path=str(TEMPLATE),
        name=f"motions-{role}",
        made_by=MADE_BY[role],
        shown_as=SHOWN_AS[role],
        top1=f"{row['top1']:.1%}",
        top5=f"{row['top5']:.1%}",
        clips=row["clips"],
        parameters=f"{row['parameters'] / 1e6:.2f} M",
        megabytes=f"{row['bytes'] / 1e6:.1f} MB",
        command=f"accelerate launch examples/{SCRIPTS[role]} examples/motions/{role}.yaml",
        versions=", ".join(f"{name} {version}" for name, version in row["versions"].items()),
        others=" and ".join(f"{top1:.1%}" for top1 in row["top1_of_other_runs"]),
    )


def described(out: Path, videos: Path) -> dict:
    """The figures of a model folder, for its card."""
    return {
        **measure(out, videos),
        "top1_of_other_runs": [],
        "versions": {
            "hf_dvflnet": hf_dvflnet.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__.partition("+")[0],
            "python": platform.python_version(),
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("role", choices=SCRIPTS)
    parser.add_argument("--videos", type=Path, required=True, help="The rendered motions, with the test clips.")
    parser.add_argument("--another-run", action="store_true", help="Only add its top-1 accuracy to the card.")
    arguments = parser.parse_args()
    out = FOLDERS[arguments.role]
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if arguments.another_run:
        found = measure(arguments.trained, arguments.videos)
        results[arguments.role]["top1_of_other_runs"].append(found["top1"])
    else:
        shrink(arguments.trained, out)
        results[arguments.role] = described(out, arguments.videos)
        found = results[arguments.role]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    card(arguments.role, results).save(out / "README.md")
    print(f"{arguments.trained}: {found['top1']:.1%} of {found['clips']} test clips")


if __name__ == "__main__":
    sys.exit(main())
