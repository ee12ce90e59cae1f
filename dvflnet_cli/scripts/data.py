"""What both trainings share: settings files, datasets, models and video processors."""

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
import yaml
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import HfArgumentParser, TrainingArguments, set_seed
from transformers.utils import logging

from hf_dvflnet import (
    BENCHMARKS,
    ClipAugmentation,
    VideoClipDataset,
    VideoClipStream,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    load_benchmark,
    split_facts,
    write_motion_videos,
)
from hf_dvflnet.data.label_sets import composed


CONTINUES = "the same command continues this run"
_output_locks: list[FileLock] = []  # held until the process ends


def with_files(arguments: list[str]) -> list[str]:
    """Replace leading YAML or JSON files by the options in them. If an option occurs twice, the later one counts."""
    words: list[str] = []
    while arguments and arguments[0].endswith((".yaml", ".yml", ".json")):
        options = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
        for name, value in options.items():
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        arguments = arguments[1:]
    return words + arguments


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults of options, and the description as it stands."""


def parse_arguments(command: str, about: str | None, arguments: list[str], *kinds: type) -> tuple:
    """Read a command line into dataclasses of these kinds; where that fails, a line says why, not a traceback."""
    parser = HfArgumentParser(
        kinds,
        prog=f"dvflnet {command}",
        usage="%(prog)s [SETTINGS.yaml ...] [--OPTION VALUE ...]",
        description=about,
        formatter_class=_Help,
    )
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(with_files(arguments), return_remaining_strings=True)
    except ValueError as error:  # dataclasses check their values
        parser.error(str(error))
    if unknown:
        parser.error(f"{' '.join(unknown)}: no such option, or not in its place (--help lists the options)")
    return tuple(parsed)


def by_option(words: list[str]) -> dict[str, list[str]]:
    """Values of each option of a command line. If an option occurs twice, the later one counts."""
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, *values = word.split("=", 1)
            options[name] = values
        else:
            options[name].append(word)
    return options


def write_json(file: Path, content: object):
    """Write a file whole or not at all: a full disk leaves no half of it, which would stop the next call."""
    unfinished = file.with_name(f"{file.name}.part")
    try:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def show_settings(arguments: list[str], args: TrainingArguments, *others: Any):
    """Print the options of a run, from files and command line, and write all of their values to `settings.json`."""
    if args.process_index == 0:
        for name, values in sorted(by_option(with_files(arguments)).items()):
            print(f"{name.removeprefix('--')}: {' '.join(values)}")
        file = Path(args.output_dir, "settings.json")
        # `to_dict` leaves out access tokens
        write_json(
            file, {**{name: value for each in others for name, value in asdict(each).items()}, **args.to_dict()}
        )
        print(f"The other options have their defaults, see {file}", flush=True)


def begin_or_resume(args: TrainingArguments, arguments: list[str]):
    """
    Note the command line of a run in its output folder; if it is there already, the run was stopped, and is resumed.

    The first process looks and decides for all, since hosts may share the folder, and none may see what another has
    just written. A folder that another process is training in is refused: each would overwrite the other's files.
    `--resume_from_checkpoint last` continues a run with other arguments too.
    """
    refusal = None
    if args.process_index == 0:
        try:
            if _noted_before(args, with_files(arguments)) and args.resume_from_checkpoint is None:
                args.resume_from_checkpoint = "last"
        except (OSError, SystemExit) as error:
            refusal = error
    args.resume_from_checkpoint, refusal = broadcast_object_list([args.resume_from_checkpoint, refusal])
    if refusal is not None:
        raise refusal


def _noted_before(args: TrainingArguments, words: list[str]) -> bool:
    """Whether the output folder has this command line already; if it has none, it has from now on."""
    output_dir = Path(args.output_dir)
    if (output_dir / "results.json").exists() and not args.resume_from_checkpoint:
        raise SystemExit(
            f"{output_dir} already contains a finished run; delete it, or choose a different --output_dir"
        )
    lock_folder(output_dir)
    noted = output_dir / "arguments.json"
    if not noted.is_file():
        write_json(noted, words)
        return False
    before, now = by_option(json.loads(noted.read_text(encoding="utf-8"))), by_option(words)
    if before != now and args.resume_from_checkpoint is None:
        none = ["not given"]
        changes = ", ".join(
            f"{name} was {' '.join(before.get(name, none))} and is {' '.join(now.get(name, none))}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        )
        raise SystemExit(
            f"{output_dir} contains an unfinished run with other arguments ({changes}); choose a different "
            "--output_dir, or add --resume_from_checkpoint last to continue that run"
        )
    return True


def lock_folder(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise SystemExit(
            f"{folder}: another process is training in this folder; wait for it, or choose a different --output_dir"
        ) from None
    _output_locks.append(lock)


def run(main: Callable[[list[str]], None], arguments: list[str]):
    """
    Run a training, and end it in a sentence instead of a traceback where nothing is wrong with it.

    Ctrl-C gives exit code 130, SIGTERM 143; a disk, file or network that fails (`OSError`) gives 1.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # what the command has set for the time of the imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.disable_progress_bar()  # one for every file that is read or written; the training's is not among them
    logging.get_logger("transformers.trainer_utils").setLevel(logging.ERROR)  # warns of checkpoints written within 1 s
    try:
        main(arguments)
    except KeyboardInterrupt:
        print(f"\nStopped; {CONTINUES} from what it has saved", file=sys.stderr)
        sys.exit(130)
    except SystemExit as ending:
        if ending.code == 128 + signal.SIGTERM:
            print(f"\nStopped; {CONTINUES} from what it has saved", file=sys.stderr)
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.exit(f"{error}{'; free some, and ' + CONTINUES if full else ''}")


@dataclass
class DataArguments:
    """The videos to train on, and how clips are made of them."""

    dataset: str | None = field(
        default=None,
        metadata={"help": "ucf50, ucf101, hmdb51, jhmdb, ssv2, kinetics400 or folder (class folders, if unset)."},
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the benchmark's release, or of videos as {train,validation,test}/<class>/<video>. If "
            "unset, small videos are rendered."
        },
    )
    protocol: str | None = field(
        default=None, metadata={"help": "Name of the benchmark's split lists; the first ones if unset."}
    )
    fold: int = field(default=1, metadata={"help": "Fold of the split lists."})
    block_list: str | None = field(
        default=None, metadata={"help": "Report of `dvflnet verify`; its unusable clips are left out."}
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Stream the training clips, for example from tar files; each process reads its share."},
    )
    on_error: Literal["replace", "raise"] = field(
        default="replace",
        metadata={
            "help": "What to do with an unreadable training clip: replace it by another clip, or raise an error."
        },
    )
    num_frames: int = field(default=8, metadata={"help": "Frames per clip."})
    frame_interval: int = field(default=4, metadata={"help": "Interval f of the published sampling rules, in frames."})
    fps: float | None = field(
        default=None,
        metadata={
            "help": "Sample the frames of a clip at this number per second, from the middle of a video (in training, "
            "from anywhere in it), instead of spreading them over the video."
        },
    )
    image_size: int = field(default=224, metadata={"help": "Height and width of a clip (the side of the crop)."})
    short_side: int = field(
        default=256, metadata={"help": "Length of the short side after resizing, before the crop."}
    )
    augment: bool = field(
        default=False, metadata={"help": "Use the published augmentation of training clips: crops, flips and colours."}
    )
    flip: float = field(
        default=0.5,
        metadata={"help": "Probability of a horizontal flip with --augment; use 0 if left and right matter."},
    )
    rendered_train_clips: int = field(default=150, metadata={"help": "Number of rendered training clips per class."})
    rendered_validation_clips: int = field(
        default=5, metadata={"help": "Number of rendered validation clips per class."}
    )
    rendered_test_clips: int = field(default=25, metadata={"help": "Number of rendered test clips per class."})


def load_data(
    data_args: DataArguments, args: TrainingArguments
) -> dict[str, datasets.Dataset | datasets.IterableDataset]:
    """
    Load the train, validation and test splits. With `--streaming`, the train split is a stream.

    The lists of a benchmark have no third split: validation is then the split that results are reported on. It is not
    used to select anything, since the last weights are kept.
    """
    name, data_dir = data_args.dataset or "folder", data_args.data_dir
    if data_dir is None:
        if data_args.dataset is not None:
            raise SystemExit(f"--dataset {data_args.dataset} needs --data_dir, the folder of its release")
        data_dir = str(Path(args.output_dir, "motion_videos"))
        for local in (False, True):  # once for hosts that share the folder, then on each that has one of its own
            with args.main_process_first(local, desc="rendering videos"):
                if local or args.process_index == 0:
                    write_motion_videos(
                        data_dir,
                        clips_per_class={
                            "train": data_args.rendered_train_clips,
                            "validation": data_args.rendered_validation_clips,
                            "test": data_args.rendered_test_clips,
                        },
                        size=data_args.short_side,
                    )
    if name == "folder":
        splits = {split: split for split in ("train", "validation", "test")}
    elif name in BENCHMARKS:
        reported = BENCHMARKS[name].test_split
        splits = {"train": "train", "validation": reported, "test": reported}
    else:
        raise SystemExit(f"unknown dataset {name!r}; choose one of {', '.join(BENCHMARKS)}, folder")
    try:
        with args.main_process_first(desc="listing videos"):
            return {
                split: load_benchmark(
                    *(name, data_dir, source, data_args.protocol, data_args.fold),
                    streaming=data_args.streaming and split == "train",
                    block_list=data_args.block_list,
                )
                for split, source in splits.items()
            }
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


def make_model(
    path: str | None,
    preset: str,
    overrides: str | None,
    data: dict[str, datasets.Dataset | datasets.IterableDataset],
    data_args: DataArguments,
    seed: int,
) -> VideoFocalNetForVideoClassification:
    """
    Make a classifier for the classes of the data.

    The weights are those at `path`, or random ones for a preset with config overrides. If the weights at `path` belong
    to a classifier of the same classes, its head is kept, with its rows in the data's order. Otherwise, the head is
    new.
    The config records the training split, so that an evaluation on the same split gives a warning.
    """
    names = data["train"].features["label"].names
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    shown = {"num_frames": data_args.num_frames, "image_size": data_args.image_size}
    set_seed(seed)
    if path is None:
        fields = json.loads(overrides) if overrides and overrides.startswith("{") else {}
        config = VideoFocalNetConfig.from_preset(preset, **{**shown, **labels, **fields})
        if overrides and not fields:
            config.update_from_string(overrides)
            config.validate()
        model = VideoFocalNetForVideoClassification(config)
    else:
        model = VideoFocalNetForVideoClassification.from_pretrained(path, **shown)
        give_classes(model, names)
    facts = split_facts(data["train"])
    model.config.training_data = {key: facts[key] for key in ("benchmark", "protocol", "fold", "split")}
    return model


def give_classes(model: VideoFocalNetForVideoClassification, names: list[str]):
    """
    Give a model a head for these classes, in this order.

    If the model has exactly these classes, the rows of its head are reordered; otherwise the head is new.
    """
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
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}


def training_clips(
    rows: datasets.Dataset | datasets.IterableDataset,
    processor: VideoFocalNetVideoProcessor,
    data_args: DataArguments,
    seed: int,
) -> VideoClipDataset | VideoClipStream:
    shown: dict[str, Any] = {
        "seed": seed,
        "augmentation": ClipAugmentation(flip=data_args.flip) if data_args.augment else None,
        "on_error": data_args.on_error,
    }
    if isinstance(rows, datasets.Dataset):
        return VideoClipDataset(rows, processor, train=True, **shown)
    facts = split_facts(rows)
    if facts["listed"] is None:
        raise SystemExit("the number of clips of this stream is not known; train without --streaming")
    absent = {*(facts["missing"] or ()), *facts["blocked"]}
    return VideoClipStream(rows, processor, num_clips=facts["listed"] - len(absent), **shown)


def video_processor(data_args: DataArguments) -> VideoFocalNetVideoProcessor:
    return VideoFocalNetVideoProcessor(
        num_frames=data_args.num_frames,
        frame_interval=data_args.frame_interval,
        fps=data_args.fps,
        size={"shortest_edge": data_args.short_side},
        crop_size={"height": data_args.image_size, "width": data_args.image_size},
    )
