"""Commands for training and evaluation: train, distill, cache-teacher, calibrate, evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .common import DATASETS, REQUIRED, DType, argument, option, pick, say, shared, show, use_sandbox


OnError = Literal["replace", "raise"]


@dataclass
class TrainingOptions:
    """Options for videos, clips and LoRA that both trainings have."""

    dataset: str | None = option(None, f"{DATASETS} or folder (class folders, if unset).")
    data_dir: str | None = option(
        None, "Release, or {train,validation,test}/<class>/<video>; rendered videos if unset."
    )
    protocol: str | None = shared("protocol")
    fold: int = shared("fold")
    block_list: str | None = shared("block_list")
    classes: list[str] | None = shared("classes")
    on_error: OnError = option("replace", "How to handle an unreadable training clip.")
    num_frames: int = option(8, "Frames per clip.", minimum=1)
    frame_interval: int = option(
        4, "f of the published sampling rules: the last f - 1 frames of a video are left out.", minimum=1
    )
    fps: float | None = option(None, "Sample frames at this rate, instead of spreading them over the video.")
    image_size: int | None = option(
        None, "Height and width of a clip (the crop); 224, or that of the image network, if unset.", minimum=1
    )
    short_side: int | None = option(
        None, "Short side after resizing, before the crop; 256, or that of the image network, if unset.", minimum=1
    )
    recipe: Literal["default", "published"] = option(
        "default",
        "published: the recipe of the papers, for thousands of clips and GPUs (SGD, 120 epochs, --augment, mixup, "
        "CutMix), on a network of --preset or --model_name_or_path. default: what few clips were found to need.",
    )
    augment: bool = option(False, "Use the published augmentation of training clips: crops, flips and colours.")
    flip: float = option(0.5, "Probability of a horizontal flip with --augment; use 0 if left and right matter.")
    rendered_train_clips: int = option(150, "Number of rendered training clips per class.")
    rendered_validation_clips: int = option(5, "Number of rendered validation clips per class.")
    rendered_test_clips: int = option(25, "Number of rendered test clips per class.")
    evaluate_test: bool = option(False, "Measure on the test split at the end, too; otherwise it is not read.")
    lora_rank: int | None = option(None, "Rank of the LoRA matrices to train beside the head; all weights if unset.")
    lora_target_modules: list[str] | None = option(None, "Layers for LoRA, such as `fc1 fc2`; all linear if unset.")


@dataclass
class Train(TrainingOptions):
    """
    Train or fine-tune one video classifier.

    On your own videos, in folders DIR/{train,validation}/<class>/<video>, with the features of an image network, which
    takes minutes on a CPU:

        dvflnet train --data_dir DIR --output_dir runs/mine --image_model efficientnet-lite0

    On a benchmark, starting from a converted checkpoint:

        dvflnet convert focalnet_tiny_srf.pth start --depths nano --labels ucf101
        dvflnet train --dataset ucf101 --data_dir UCF101 --output_dir runs/ucf101 --model_name_or_path start \\
            --recipe published

    The options are those below and transformers' TrainingArguments. The same command continues a run that was stopped.
    On several processes: accelerate launch -m dvflnet_cli train ...
    """

    training_arguments = "VideoTrainingArguments"

    image_model: str | None = option(
        None, "Train the head of an image network: folder or Hub id (timm: timm/NAME), or efficientnet-lite0."
    )
    fine_tune: bool = option(False, "Train all weights of the image network, too.")
    freeze_body: bool = option(False, "Train the head of a Video-FocalNet alone; the next training can start from it.")
    clips_per_class: int | None = option(
        None, "Train on this many clips of each class, drawn by the seed; on all if unset.", minimum=1
    )
    model_name_or_path: str | None = option(None, "Folder or Hub id of the initial weights; random if unset.")
    preset: str = option("nano", "Preset (size) of a model with random initial weights.")
    config_overrides: str | None = option(None, "Overrides of the preset, such as `drop_path_rate=0.2`, or JSON.")

    def run(self, args, given: dict):
        from . import runs

        runs.train(self, args, given)


@dataclass
class Distill(TrainingOptions):
    """
    Distill a classifier: train or load a teacher, train a student alone, and train the same student with a teacher.

    On your own videos, in folders DIR/{train,validation,test}/<class>/<video>, with a teacher that has these classes
    (for a benchmark, add its name, such as --dataset ucf101):

        dvflnet distill --output_dir runs/mine --data_dir DIR --teacher_model_name_or_path TEACHER

    Without --data_dir, small videos are rendered.

    Without labels, any vision model teaches by its features: DIR is any folder of videos, or a list of them, and
    runs/body is what `dvflnet train --model_name_or_path runs/body` starts from.

        dvflnet distill --output_dir runs/body --data_dir DIR --teacher_model_name_or_path facebook/dinov2-small \\
            --use_labels false --feature_weight 1

    The options are those below and transformers' TrainingArguments. The same command continues a run that was stopped.
    On several processes: accelerate launch -m dvflnet_cli distill ...
    """

    training_arguments = "DistillationConfig"

    student_train_clips: int | None = option(None, "Number of first clips per class for the student.", minimum=1)
    teacher_preset: str = option("base", "Preset (size) of a teacher that is trained here.")
    teacher_config_overrides: str | None = option(None, "Overrides of the preset, such as `embed_dim=32`, or JSON.")
    teacher_epochs: float = option(10.0, "Epochs of the teacher's training.")
    student_model_name_or_path: str | None = option(None, "Folder or Hub id of initial weights; random if unset.")
    student_preset: str = option("nano", "Preset (size) of a student with random initial weights.")
    student_config_overrides: str | None = option(None, "Overrides of the preset, as for the teacher.")
    compare_alone: bool = option(True, "Whether the student is also trained alone.")
    train_teacher: bool = option(False, "Train a teacher even if `teacher_model_name_or_path` names one.")
    window: float = option(
        10.0, "Without labels: seconds. Each part of this length of a longer video is a clip.", minimum=0.1
    )

    def run(self, args, given: dict):
        from . import runs

        runs.distill(self, args, given)


@dataclass
class CacheTeacher:
    """
    Store a teacher's logits, so that training with --teacher_cache costs as much as plain training.

    To use several processes: `accelerate launch -m dvflnet_cli cache-teacher ...`.
    """

    teacher: str = argument("Model folder or Hub id of a video classifier; without labels, of any vision model.")
    out: Path = argument("Output folder. An unfinished cache is continued.")
    dataset: str = option(REQUIRED, f"{DATASETS}, or folder.")
    data_dir: str = option(REQUIRED, "Folder of the extracted release, or {train,...}/<class>/<video>.")
    views: int = option(REQUIRED, "Views per clip, K: epoch e of training uses view e mod K.", minimum=1)
    protocol: str | None = shared("protocol")
    fold: int = shared("fold")
    block_list: Path | None = shared("block_list")
    classes: list[str] | None = shared("classes")
    seed: int = option(0, "Seed of the training run.")
    augment: bool = option(True, "The published crops, flips and colours. Must match the training run.")
    flip: float = option(0.5, "Probability of a flip, as in the training run.")
    processor: str | None = option(None, "Folder whose video processor prepares the clips; TEACHER by default.")
    features: bool = option(False, "Store the teacher's pooled features too, for --feature_weight.")
    use_labels: bool = option(True, "False: the features alone, of any vision model, as with `distill`.")
    teacher_features: str = option("auto", "Without labels: which features, as with `distill`.")
    window: float = option(10.0, "Without labels, of a folder: as with `distill`.", minimum=0.1)
    num_frames: int = option(8, "Without labels: frames per clip.", minimum=1)
    dtype: Literal["float16", "float32"] = option("float16", "Data type of the stored logits.")
    device: str = shared("device")
    teacher_dtype: DType = shared("dtype")
    batch_size: int = option(8, "Clips that are classified at once, per process.", minimum=1)
    num_workers: int = option(2, "Processes that decode, per process.", minimum=0)
    on_error: OnError = option("replace", "How to handle clips that cannot be read. Must match the training run.")
    json: bool = shared("json")

    def run(self):
        use_sandbox()
        from accelerate import Accelerator

        from hf_dvflnet import ClipAugmentation, VideoClipDataset, VideoFocalNetVideoProcessor, load_benchmark
        from hf_dvflnet.data.loading import load_unlabelled
        from hf_dvflnet.hub.image_networks import load_vision_model
        from hf_dvflnet.hub.loaded_models import choose_device
        from hf_dvflnet.hub.loading import load_processor, load_teacher
        from hf_dvflnet.training.encoders import Encoder
        from hf_dvflnet.training.teacher_cache import cache_teacher

        accelerator = Accelerator(cpu=choose_device(self.device).type == "cpu")
        if self.use_labels:
            network, processor = load_teacher(self.teacher), load_processor(self.processor or self.teacher)
        else:
            model, prepared = load_vision_model(self.teacher)
            processor = VideoFocalNetVideoProcessor(num_frames=self.num_frames, **prepared)
            network = Encoder(model, self.teacher_features, self.num_frames, processor.crop_size["height"])
        with accelerator.main_process_first():
            lists = pick(self, "protocol fold block_list classes")
            if self.use_labels or self.dataset != "folder":
                rows = load_benchmark(self.dataset, self.data_dir, "train", **lists)
            else:
                rows = load_unlabelled(self.data_dir, self.window)
        augmentation = ClipAugmentation(flip=self.flip) if self.augment else None
        clips = VideoClipDataset(
            *(rows, processor),
            train=True,
            augmentation=augmentation,
            **pick(self, "seed on_error"),
        )
        if accelerator.is_main_process:
            what = f"{network.config.num_labels} logits" if self.use_labels else network
            say(f"{len(clips)} clips x {self.views} views: {what}", err=True)
        done = cache_teacher(
            *(network, clips, self.out),
            name=self.teacher,
            device=None if self.device == "auto" else self.device,
            accelerator=accelerator,
            **pick(self, "views features dtype teacher_dtype batch_size num_workers"),
        )
        accelerator.end_training()
        if accelerator.is_main_process:
            show({"folder": str(self.out), **done}, self.json)


@dataclass
class Calibrate:
    """
    Make a model's scores as sure as they should be, and let it give no answer where it is not sure enough.

    Fits a temperature on clips that the model was not trained on, and divides the weights of its classifier by it. The
    order of the classes stays the same, but a score of 0.8 is right 8 times in 10. Training takes it out again.
    """

    model: str = argument("A model folder or Hub id.")
    data_dir: str = option(
        REQUIRED, "Folder of the extracted or prepared release, or {validation,...}/<class>/<video>."
    )
    output: Path = option(REQUIRED, "Folder of the calibrated model.")
    dataset: str = option("folder", f"{DATASETS}, or folder.")
    split: str = option("validation", "The split to fit to; not the one that results are reported on.")
    protocol: str | None = shared("protocol")
    fold: int = shared("fold")
    block_list: Path | None = shared("block_list")
    classes: list[str] | None = shared("classes")
    views: Literal[1, 4, 12] = shared("views")
    coverage: float | None = option(
        None, "Give no answer below a score that this share of the clips reach, such as 0.95.", minimum=0, maximum=1
    )
    max_false_alarms: float | None = option(
        None, "Give no answer below a score so that this share of the answers are wrong at most.", minimum=0, maximum=1
    )
    num_workers: int | None = option(None, "Sandboxes that decode; by default one per CPU.", minimum=0)
    device: str = shared("device")
    overwrite: bool = shared("overwrite")
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet.inference.calibration import calibrate_model

        words = "split protocol fold block_list classes views coverage max_false_alarms num_workers device overwrite"
        found = calibrate_model(self.model, self.dataset, self.data_dir, self.output, **pick(self, words))
        show({"output": str(self.output), **found}, self.json)


@dataclass
class Evaluate:
    """
    Evaluate a model on a split of a benchmark by the published test protocol.

    Every clip counts once, also on several processes: `accelerate launch -m dvflnet_cli evaluate ...`. Writes
    predictions.jsonl, results.json, tables, charts, and all of it with frames of wrong clips as report.html.
    """

    model: str | None = argument("A model folder or Hub id, or --from_predictions.", metavar="[MODEL]", default=None)
    dataset: str | None = option(None, f"{DATASETS}, or `folder` for class folders.")
    data_dir: str | None = option(None, "Folder of the extracted or prepared release, or hf://datasets/...")
    split: str | None = option(None, "By default the split on which results are reported.")
    protocol: str | None = option(None, "official, groups_20_5, logo or dvflnet_8020, depending on the benchmark.")
    fold: int = shared("fold")
    views: Literal[1, 4, 12] = shared("views")
    output: Path | None = option(None, "New folder for the report; `evaluation`, or that of --from_predictions.")
    batch_size: int = option(8, "Clips that are classified at once, per process.", minimum=1)
    num_workers: int | None = option(None, "Sandboxes that decode, per process; by default one per CPU.", minimum=0)
    block_list: Path | None = shared("block_list")
    classes: list[str] | None = shared("classes")
    device: str = shared("device")
    dtype: DType = shared("dtype")
    allow_missing: bool = option(False, "Compute metrics even if clips of the split are missing.")
    from_predictions: Path | None = option(None, "Compute the metrics again from a predictions.jsonl.")
    compare: Path | None = option(None, "The predictions.jsonl of another model, to compare with on the same clips.")
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet.inference.evaluation import evaluate_model, read_predictions, report_predictions

        predictions = self.from_predictions
        output = self.output or (Path("evaluation") if predictions is None else predictions.parent)
        if predictions is None:
            if self.model is None or self.dataset is None or self.data_dir is None:
                raise ValueError("evaluate needs MODEL, --dataset and --data_dir, or --from_predictions")
            predictions = evaluate_model(
                *(self.model, self.dataset, self.data_dir, output),
                **pick(self, "split protocol fold views batch_size num_workers block_list classes device dtype"),
            )
        if predictions is not None:  # only the main process prints
            header, rows = read_predictions(predictions)
            for row in rows:
                if "warning" in row:
                    say(f"{row['video_id']}: {row['warning']}", err=True)
            for clip in header["unread"]:
                say(f"not read: {clip['video_id']}: {clip['reason']}", err=True)
            show(report_predictions(predictions, output, **pick(self, "allow_missing compare")), self.json)
