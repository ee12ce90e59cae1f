"""
Writes what `test_earlier_versions.py` opens and resumes: a model folder, a training run with a checkpoint and a
teacher cache, all tiny, as the installed version of the package saves them.

    python tests/earlier_versions/write_version.py

writes `tests/earlier_versions/<version>/`, and refuses to write one that is there. The modelling code that a model
folder carries for `trust_remote_code=True` is left out: opening a folder with this package does not read it.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import hf_dvflnet
from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.training.teacher_cache import TeacherCache


HERE = Path(__file__).parent
CLASSES = ("jump", "wave hands")
# where names are promised to be
PUBLIC_MODULES = (
    "hf_dvflnet",
    "hf_dvflnet.configuration_videofocalnet",
    "hf_dvflnet.image_processing_videofocalnet",
    "hf_dvflnet.modeling_videofocalnet",
    "hf_dvflnet.video_processing_videofocalnet",
)


def new_model(embed_dim: int, seed: int) -> VideoFocalNetForVideoClassification:
    config = VideoFocalNetConfig(
        embed_dim=embed_dim,
        depths=[1, 1],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
        image_size=32,
        num_frames=4,
        drop_path_rate=0.5,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    torch.manual_seed(seed)
    model = VideoFocalNetForVideoClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model.eval()


def training_clips(folder: Path) -> VideoClipDataset:
    return VideoClipDataset(
        load_video_folder(folder / "clips")["train"],
        VideoFocalNetVideoProcessor.from_pretrained(folder / "model"),
        train=True,
        seed=3,
        augmentation=ClipAugmentation(),
    )


def new_trainer(output_dir: Path | str, cache: Path, clips: VideoClipDataset) -> DistillationTrainer:
    """A distillation of four steps that saves a checkpoint after the second."""
    args = DistillationConfig(
        str(output_dir),
        teacher_cache=str(cache),
        max_steps=4,
        save_steps=2,
        save_strategy="steps",
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        seed=0,
        logging_steps=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    return DistillationTrainer(new_model(4, seed=0), args, train_dataset=clips)


def main():
    sys.path.insert(0, str(HERE.parent / "helpers"))
    from videos import write_video

    target = HERE / hf_dvflnet.__version__
    if target.exists():
        raise SystemExit(f"{target.name} is there already")
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)  # relative paths: what is saved names no folder of this machine
        folder = Path()
        number = 0
        for split, count in (("train", 2), ("validation", 1)):
            for name in CLASSES:
                for index in range(count):
                    path = folder / "clips" / split / name / f"{index}.mp4"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_video(path, num_frames=12 + number, width=48, height=36, first_number=100 * number)
                    number += 1

        teacher = new_model(8, seed=7)
        processor = VideoFocalNetVideoProcessor(
            num_frames=4, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
        )
        teacher.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        VideoFocalNetImageProcessor(size=processor.size, crop_size=processor.crop_size).save_pretrained(
            folder / "model"
        )

        clips = training_clips(folder)
        cache_teacher(teacher, clips, folder / "teacher_cache", views=2, name="model", dtype="float32")
        trainer = new_trainer("run", folder / "teacher_cache", clips)
        trainer.train()
        shutil.rmtree(folder / "run" / "checkpoint-4")
        trainer.save_model("run/final")
        shutil.move("run/final/model.safetensors", "run/final_weights.safetensors")
        shutil.rmtree("run/final")

        # what has to come out again
        pixel_values = processor("clips/train/jump/0.mp4", return_tensors="pt")["pixel_values"]
        cache = TeacherCache(folder / "teacher_cache")
        names = list(clips.dataset["video_id"])
        expected = {
            "names": {module: sorted(importlib.import_module(module).__all__) for module in PUBLIC_MODULES},
            "logits": teacher(pixel_values).logits[0].tolist(),
            "cached": {name: [cache.logits(name, view, name).tolist() for view in (0, 1)] for name in names},
        }
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
        for cached in (folder / "teacher_cache").iterdir():  # tables that `datasets` made to read it
            if cached.is_dir():
                shutil.rmtree(cached)
            elif cached.suffix not in (".json", ".parquet"):
                cached.unlink()
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.py"))


if __name__ == "__main__":
    main()
