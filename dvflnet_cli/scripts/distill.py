"""
Distill a video classifier: train or load a teacher, train a student alone, and train the same student with a teacher.

On your own videos, in folders DIR/{train,validation,test}/<class>/<video>, with a teacher that has these classes (for
a benchmark, add its name, such as --dataset ucf101):

    dvflnet distill --output_dir runs/mine --data_dir DIR --teacher_model_name_or_path TEACHER

Without --data_dir, small videos are rendered.

Options can also be read from YAML or JSON files given as the first arguments, such as the published recipe in
examples/recipes of the repository. If an option occurs twice, the later one counts. The same command continues a run
that was stopped. On several processes: accelerate launch -m dvflnet_cli distill ...
"""

import copy
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file
from tqdm.auto import tqdm
from transformers import AutoVideoProcessor, ProgressCallback, Trainer, TrainerCallback, TrainerState, pipeline

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
    describe_split,
    last_whole_checkpoint,
    save_comparison,
    split_facts,
    video_source,
)

from .data import (
    DataArguments,
    begin_or_resume,
    load_data,
    make_model,
    parse_arguments,
    show_settings,
    training_clips,
    video_processor,
    write_json,
)
from .lora import LoraArguments, with_lora


@dataclass
class ModelArguments:
    """The teacher, which is loaded (`--teacher_model_name_or_path`) or trained here, and the student."""

    student_train_clips: int | None = field(
        default=None,
        metadata={"help": "Number of training clips per class for the student (the first ones); all if unset."},
    )
    teacher_preset: str = field(default="base", metadata={"help": "Preset (size) of a teacher that is trained here."})
    teacher_config_overrides: str | None = field(
        default=None, metadata={"help": "Overrides of the teacher's config, such as `embed_dim=32,patch_size=8`."}
    )
    teacher_epochs: float = field(default=10.0, metadata={"help": "Epochs of the teacher's training."})
    student_model_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the student's initial weights; random if unset."}
    )
    student_preset: str = field(
        default="nano", metadata={"help": "Preset (size) of a student with random initial weights."}
    )
    student_config_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Overrides of the config of a student with random initial weights, such as `drop_path_rate=0.1`, "
            "or a JSON object of them."
        },
    )
    compare_alone: bool = field(default=True, metadata={"help": "Whether the student is also trained alone."})
    train_teacher: bool = field(
        default=False,
        metadata={"help": "Train the teacher here as well, even if `teacher_model_name_or_path` names one."},
    )


def main(arguments: list[str]):
    data_args, model_args, lora_args, args = parse_arguments(
        "distill", __doc__, arguments, DataArguments, ModelArguments, LoraArguments, DistillationConfig
    )
    output_dir = Path(args.output_dir)
    begin_or_resume(args, arguments)
    show_settings(arguments, args, data_args, model_args, lora_args)

    # data
    data = load_data(data_args, args)
    processor = video_processor(data_args)
    shown_to_student = first_clips_per_class(data["train"], model_args.student_train_clips)
    teacher_clips = training_clips(data["train"], processor, data_args, args.seed)
    student_clips = training_clips(shown_to_student, processor, data_args, args.seed)
    test_clips = VideoClipDataset(data["test"], processor)
    common = {"eval_dataset": VideoClipDataset(data["validation"], processor), "processing_class": processor}

    def new_student() -> torch.nn.Module:
        path, preset = model_args.student_model_name_or_path, model_args.student_preset
        student = make_model(path, preset, model_args.student_config_overrides, data, data_args, args.seed)
        return with_lora(student, lora_args, args)

    new_student()  # what cannot be made of the options is refused before a teacher is trained

    teacher = None if model_args.train_teacher else args.teacher_model_name_or_path
    phases = ["teacher"] * (teacher is None) + ["student alone"] * model_args.compare_alone + ["student distilled"]

    def phase(name: str, **changes: object) -> DistillationConfig:
        phase_args = copy.copy(args)
        for field_name, value in {"output_dir": str(output_dir / name), **changes}.items():
            setattr(phase_args, field_name, value)
        return phase_args

    # teacher
    if teacher is None:
        trainer = VideoClassificationTrainer(
            make_model(
                None, model_args.teacher_preset, model_args.teacher_config_overrides, data, data_args, args.seed
            ),
            phase("teacher", num_train_epochs=model_args.teacher_epochs),
            train_dataset=teacher_clips,
            **common,
        )
        train_or_load(trainer, "teacher", phases)
        teacher = trainer.args.output_dir

    if teacher is not None:  # where it takes clips of another size, both students are shown the crops drawn for it
        teacher_processor = AutoVideoProcessor.from_pretrained(teacher)
        if isinstance(teacher_processor, VideoFocalNetVideoProcessor):
            student_clips.teacher_processor = teacher_processor

    # student alone, then student with teacher: same initial weights, clips, order and steps
    results: dict[str, dict[str, float]] = {}
    histories: dict[str, Sequence[dict[str, Any]]] = {}
    if model_args.compare_alone:
        trainer = VideoClassificationTrainer(
            new_student(), phase("student_alone"), train_dataset=student_clips, **common
        )
        histories["student alone"] = train_or_load(trainer, "student alone", phases)
        results["student alone"] = measure_student(trainer, test_clips)
    trainer = DistillationTrainer(
        new_student(), phase("student"), teacher_model=teacher, train_dataset=student_clips, **common
    )
    histories["student distilled"] = train_or_load(trainer, "student distilled", phases)
    results["student distilled"] = measure_student(trainer, test_clips)
    metrics = trainer.evaluate_teacher(test_clips)
    results["teacher"] = figures(trainer.teacher_model, metrics, "teacher", int(metrics["teacher_clips"]))

    # results
    if trainer.is_world_process_zero():
        facts = {
            "test split": describe_split(split_facts(data["test"])),
            "test clips": len(test_clips),
            "listed test clips": split_facts(data["test"])["listed"],
            "training clips of the student": getattr(student_clips, "num_clips", None) or len(student_clips),
            "processes": args.world_size,
        }
        report(results, histories, trainer, example=data["test"][0], facts=facts, arguments=arguments)
    trainer.accelerator.end_training()


def first_clips_per_class(rows: datasets.Dataset, clips: int | None) -> datasets.Dataset:
    if clips is None:
        return rows
    if not isinstance(rows, datasets.Dataset):
        raise SystemExit("--student_train_clips cannot be used with --streaming; remove one of the two options")
    seen: dict[int, int] = {}
    chosen = []
    for index, label in enumerate(rows["label"]):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= clips:
            chosen.append(index)
    return rows.select(chosen)


class Announce(TrainerCallback):
    """Prints which phase of a run begins, and after a few steps how long it will take."""

    def __init__(self, name: str, phases: list[str]):
        self.title = f"[{phases.index(name) + 1}/{len(phases)}] {name}" if name in phases else name

    def on_train_begin(self, args, state, control, **kwargs):
        self.first = state.global_step
        if state.is_world_process_zero:
            done = f", {self.first} of them done" if self.first else ""
            say(f"\n{self.title}: {state.max_steps} steps of {args.train_batch_size} clips{done}")

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step - self.first
        if step == 2:  # the first step waits for what is set up once
            self.began = time.perf_counter()
        if step == 7 and state.is_world_process_zero:
            minutes = (time.perf_counter() - self.began) / 5 * (state.max_steps - state.global_step) / 60
            say(f"{self.title}: about {max(minutes, 0.1):.1f} minutes")


class Progress(ProgressCallback):
    """The Trainer's progress bars, with the figures that are logged in lines for readers; all are in the report."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            left_out = ("epoch", "_runtime", "_per_second", "_seconds", "_flos")
            figures = [f"{name} {value:.4g}" for name, value in logs.items() if not name.endswith(left_out)]
            say(f"epoch {state.epoch or 0:.4g}: {', '.join(figures)}")


def say(line: str):
    """Print a line above the progress bars."""
    with tqdm.external_write_mode():
        print(line, flush=True)


def train_or_load(trainer: Trainer, name: str, phases: Sequence[str] = ()) -> list[dict[str, float]]:
    """
    Train and save a model, and return what was logged.

    A LoRA adapter is saved in the folder `adapter`, and then merged: the trainer's model and the one that is saved are
    of the usual kind.

    In a run that is resumed, training continues from the last complete checkpoint, and a model whose training is
    already finished is only loaded.
    """
    folder = Path(trainer.args.output_dir)
    resume = trainer.args.resume_from_checkpoint and folder.is_dir()
    finished = [folder / "model.safetensors", folder / "training_args.bin"]  # `save_model` writes the second one last
    if resume and finished[0].exists() and zipfile.is_zipfile(finished[1]):
        merge_adapter(trainer)
        trainer.model.load_state_dict(load_file(finished[0]))
        return TrainerState.load_from_json(str(folder / "trainer_state.json")).log_history
    trainer.add_callback(Announce(name, list(phases)))
    if trainer.pop_callback(ProgressCallback):  # there is none with --disable_tqdm
        trainer.add_callback(Progress)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder, trainer.args.world_size) if resume else None)
    trainer.save_state()
    if trainer.is_world_process_zero():
        processor = trainer.processing_class
        VideoFocalNetImageProcessor(size=processor.size, crop_size=processor.crop_size).save_pretrained(folder)
    if hasattr(trainer.model, "merge_and_unload"):
        trainer.save_model(str(folder / "adapter"))
    merge_adapter(trainer)
    trainer.save_model()
    trainer.accelerator.wait_for_everyone()  # the next phase may read the files saved here
    return trainer.state.log_history


def merge_adapter(trainer: Trainer):
    """Make a LoRA model one of the usual kind, with the LoRA matrices added to its weights."""
    if hasattr(trainer.model, "merge_and_unload"):
        trainer.model = trainer.model.merge_and_unload()


def measure_student(trainer: Trainer, test_clips: VideoClipDataset) -> dict[str, float]:
    output = trainer.predict(test_clips)
    return figures(trainer.model, output.metrics, "test", clips=len(output.label_ids))


def figures(model, metrics: dict[str, float], prefix: str, clips: int) -> dict[str, float]:
    return {
        "top1": metrics[f"{prefix}_top1_accuracy"],
        "top5": metrics[f"{prefix}_top5_accuracy"],
        "clips": clips,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def report(
    results: dict[str, dict[str, float]],
    histories: dict[str, Sequence[dict[str, Any]]],
    trainer: Trainer,
    example: dict,
    facts: dict[str, object],
    arguments: list[str],
):
    """Print the table of results and one prediction; write `results.json`, a picture and the student's model card."""
    args = trainer.args
    student = Path(args.output_dir)
    losses = ("divergence", "alpha", "temperature", "feature_weight", "modulator_weight")
    facts = {**facts, **{name: value for name in losses if (value := getattr(args, name))}, "seed": args.seed}
    lines = ["| network | parameters | top-1 | top-5 |", "|---|---|---|---|"]
    for name, row in results.items():
        lines.append(f"| {name} | {row['parameters'] / 1e6:.2f} M | {row['top1']:.1%} | {row['top5']:.1%} |")
    ModelCard.from_template(
        ModelCardData(library_name="transformers", pipeline_tag="video-classification", tags=["dvflnet"]),
        template_path=str(Path(__file__).with_name("distilled_student.md")),
        table="\n".join(lines),
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()),
        classes=", ".join(trainer.model.config.label2id),
    ).save(student / "README.md")

    picture = student.parent / "comparison.png"
    save_comparison(results, histories, picture, f"{facts['test clips']} test clips ({facts['test split']})")
    truth = trainer.train_dataset.dataset.features["label"].names[example["label"]]
    answers = pipeline("video-classification", model=str(student))(video_source(example["video"]), top_k=3)
    write_json(student.parent / "results.json", {"results": results, **facts, "arguments": arguments})
    print("\n" + "\n".join(lines))
    print("\n" + ", ".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"\n{example['video_id']}, which is {truth}:")
    for answer in answers:
        print(f"  {answer['score']:6.1%}  {answer['label']}")
    print(f"\n{student}: the distilled student, with its card")
    print(f"{picture}: accuracies and validation curves")
    print(f"{student.parent / 'results.json'}: all figures")
