"""
The command line, `dvflnet`.

It lies outside the package and imports it inside the commands: importing the package loads torch and transformers, and
`dvflnet --help` should not wait for these.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


app = typer.Typer(
    help="DVFL-Net and Video-FocalNet: make, convert, describe, run and publish models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SET_OR_FILE",
        help="Class names: ucf50, ucf101, ucf101-sorted, hmdb51, ssv2, kinetics400, kinetics600, diving48, "
        "activitynet, or a text file of one name a line.",
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="nano (also dvflnet-nano), tiny, small or base.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    num_labels: Annotated[int | None, typer.Option(min=1, help="Number of classes; 400 if unset.")] = None,
    labels: Labels = None,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    overwrite: Overwrite = False,
):
    """Write a model of a published size with random weights."""
    quiet()
    from transformers import set_seed

    from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
    from hf_dvflnet.label_sets import read_labels
    from hf_dvflnet.model_folder import save_model_folder

    if labels is not None and num_labels is not None:
        raise ValueError("--labels and --num-labels exclude each other: the names tell how many they are")
    preset = name.removeprefix("dvflnet-") if name == "dvflnet-nano" else name
    classes: dict[str, Any] = {"num_labels": num_labels or 400}
    order = ""
    if labels is not None:
        label_set = read_labels(labels)
        classes = {"id2label": dict(enumerate(label_set.names))}
        classes["label2id"] = {label: index for index, label in classes["id2label"].items()}
        order = f" Class names and their order: {label_set.source}."
    config = VideoFocalNetConfig.from_preset(preset, **classes)
    set_seed(seed)
    model = VideoFocalNetForVideoClassification(config)
    save_model_folder(
        out,
        model,
        title=f"{'DVFL-Net nano' if preset == 'nano' else f'Video-FocalNet {preset}'}, untrained",
        introduction=f"**Untrained: the weights are random** (seed {seed}), and so are its answers. A start for "
        f"training, with `dvflnet create {name}`.{order}",
        overwrite=overwrite,
    )
    typer.echo(
        f"{out}: {preset}, {model.num_parameters() / 1e6:.2f} M parameters, {config.num_labels} classes, random"
    )


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A published .pth or .safetensors file, or a folder or Hub id of transformers' FocalNet; with "
            "--to-published a folder of this package."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write; with --to-published the .pth file.")],
    labels: Labels = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a clip, if the checkpoint says none.")
    ] = None,
    use_postln: Annotated[
        bool, typer.Option("--use-postln", help="The checkpoint was trained with use_postln; its weights do not tell.")
    ] = False,
    normalize_modulator: Annotated[
        bool, typer.Option("--normalize-modulator", help="Likewise, with normalize_modulator.")
    ] = False,
    depths: Annotated[
        str | None,
        typer.Option(help="Image networks: blocks of each stage to keep, such as nano or 1,1,2,1; all if unset."),
    ] = None,
    temporal_init: Annotated[
        Literal["identity", "random"], typer.Option(help="Image networks: how the temporal branch starts.")
    ] = "identity",
    seed: Annotated[int, typer.Option(help="Seed of the weights that an image network lacks.")] = 0,
    to_published: Annotated[
        bool, typer.Option("--to-published", help="The other way: write weights under the published names.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
):
    """Make a model folder of a published checkpoint. No code from the checkpoint is run."""
    quiet()
    if to_published:
        if labels or num_frames or use_postln or normalize_modulator or depths:
            raise ValueError("--to-published takes the model as it is: it goes with --overwrite and --json only")
        return publish(source, out, overwrite, as_json)
    from transformers import set_seed

    from hf_dvflnet.checkpoint_conversion import convert_checkpoint, read_depths
    from hf_dvflnet.label_sets import read_labels
    from hf_dvflnet.model_folder import refuse_existing, save_model_folder

    refuse_existing(out, overwrite)  # before the work rather than after it
    label_set = None if labels is None else read_labels(labels)
    set_seed(seed)
    converted = convert_checkpoint(
        source,
        labels=label_set,
        num_frames=num_frames,
        use_post_layernorm=use_postln,
        normalize_modulator=normalize_modulator,
        depths=None if depths is None else read_depths(depths),
        temporal_init=temporal_init,
    )
    what = [f"Converted from `{Path(source).name}` by `dvflnet convert`: {len(converted.copied)} weights were copied."]
    if converted.new:
        branch = "a temporal modulator of 1" if temporal_init == "identity" else "random weights"
        head = ", its head from random weights" if "classifier.weight" in converted.new else ""
        what.append(
            f"**Not trained on videos**: the source lacks {len(converted.new)} weights. Its temporal branch starts "
            f"from {branch}{head} (seed {seed})."
        )
    if label_set is not None:
        what.append(f"Class names and their order: {label_set.source}.")
    what += [f"Note: {note}." for note in converted.notes]
    save_model_folder(
        out,
        converted.model,
        title=out.name,
        introduction="\n\n".join(what),
        frame_interval=converted.frame_interval,
        overwrite=overwrite,
    )
    for note in converted.notes:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        keys = {"copied": len(converted.copied), "new": converted.new, "left": converted.left}
        typer.echo(json.dumps({"source": source, "folder": str(out), **keys, "notes": converted.notes}))
        return
    typer.echo(
        f"{out}: {len(converted.copied)} weights copied, {len(converted.new)} new, {len(converted.left)} left out"
    )
    for title, names in (("new", converted.new), ("left out", converted.left)):
        if names:
            typer.echo(f"{title}: {grouped(names)}")


def grouped(names: list[str]) -> str:
    """Weight names by their block, or else by their layer, with how many there are: `layers.0.blocks.1 (14)`."""
    blocks = Counter(re.sub(r"^(.*?(?:blocks|layers)\.\d+)\.\D.*|^(.*)\..*", r"\1\2", name) for name in names)
    return ", ".join(f"{block} ({number})" for block, number in blocks.items())


def publish(source: str, out: Path, overwrite: bool, as_json: bool):
    import torch

    from hf_dvflnet import VideoFocalNetVideoProcessor
    from hf_dvflnet.checkpoint_conversion import publish_checkpoint
    from hf_dvflnet.model_folder import load_model, whole_or_nothing

    if out.suffix != ".pth":
        raise ValueError(f"{out}: --to-published writes a .pth file; name it so")
    with whole_or_nothing(out, overwrite) as path:
        interval = VideoFocalNetVideoProcessor.from_pretrained(source).frame_interval
        checkpoint = publish_checkpoint(load_model(source), interval)
        torch.save(checkpoint, path)
    if as_json:
        typer.echo(json.dumps({"source": source, "file": str(out), "weights": len(checkpoint["model"])}))
        return
    typer.echo(
        f"{out}: {len(checkpoint['model'])} weights under their published names; class names have no place there"
    )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Paths or http(s) URLs.")],
    top_k: Annotated[int, typer.Option(min=1, help="Classes to print per video.")] = 5,
    views: Annotated[int, typer.Option(help="1, or 12: 4 clips x 3 crops, softmax averaged, as published.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per video.")] = False,
):
    """
    Classify videos.

    A video that cannot be read is named on stderr, the others are answered, and the exit code is 1.
    """
    quiet()
    if views not in (1, 12):
        raise ValueError(f"--views must be 1 or 12, got {views}")
    import torch
    from tqdm.auto import tqdm

    from hf_dvflnet import VideoFocalNetVideoProcessor
    from hf_dvflnet.model_folder import load_model

    network = load_model(model)
    config = network.config
    processor = VideoFocalNetVideoProcessor.from_pretrained(model)
    clips, crops = (4, 3) if views == 12 else (1, 1)
    failed = 0
    for video in tqdm(videos, unit="video", disable=None if len(videos) > 1 else True):
        try:
            inputs = processor(video, num_clips=clips, num_crops=crops, return_tensors="pt")
        except (OSError, ValueError) as error:
            failed += 1
            tqdm.write(f"dvflnet: {one_line(error)}", file=sys.stderr)
            continue
        with torch.inference_mode():
            scores = network(**inputs).logits[0].float().softmax(-1)
        best = scores.topk(min(top_k, config.num_labels))
        answers = [
            {"label": config.id2label[index], "score": score}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        if as_json:
            text = json.dumps({"video": video, "views": views, "answers": answers}, ensure_ascii=False)
        else:
            text = "\n".join([video, *(f"  {answer['score']:6.1%}  {answer['label']}" for answer in answers)])
        tqdm.write(text, file=sys.stdout)
    if failed:
        typer.echo(f"dvflnet: {failed} of {len(videos)} videos could not be read", err=True)
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="A model folder or Hub id; not with --from-predictions.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="ucf50, ucf101, hmdb51, ssv2, kinetics400, or folder for class folders.")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="The extracted release, its archives, or hf://datasets/...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="By default the one that figures are reported on.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="official, groups_20_5, logo or dvflnet_8020, as the benchmark has them.")
    ] = None,
    fold: Annotated[int, typer.Option(min=1, help="Which fold.")] = 1,
    views: Annotated[int, typer.Option(help="1, or 12: 4 clips x 3 crops, softmax averaged, as published.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A new folder for figures, tables and predictions: `evaluation`, or that of the predictions."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once, per process.")] = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 2,
    block_list: Annotated[Path | None, typer.Option(help="A report of `dvflnet verify`.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Give figures although clips of the split are missing.")
    ] = False,
    from_predictions: Annotated[
        Path | None, typer.Option(help="Compute the figures again from a predictions.jsonl.")
    ] = None,
    as_json: AsJson = False,
):
    """
    Measure a model on a split of a benchmark, by the published protocol.

    Every clip counts once, also under `accelerate launch examples/evaluate_checkpoint.py`. Writes predictions.jsonl,
    results.json, per_class.csv, confusion.csv and confusion.png.
    """
    quiet()
    from hf_dvflnet import evaluation

    if from_predictions is not None:
        predictions_file = from_predictions
        output = output or from_predictions.parent
    else:
        output = output or Path("evaluation")
        if model is None or dataset is None or data_dir is None:
            raise ValueError("evaluate needs MODEL, --dataset and --data-dir, or --from-predictions")
        from accelerate import Accelerator

        from hf_dvflnet import VideoFocalNetVideoProcessor
        from hf_dvflnet.benchmark_datasets import BENCHMARKS, load_benchmark, split_facts
        from hf_dvflnet.model_folder import load_model

        accelerator = Accelerator()
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise FileExistsError(f"{output}: is there already; choose another --output")
        network = load_model(model)
        split = split or (BENCHMARKS[dataset].test_split if dataset in BENCHMARKS else "test")
        with accelerator.main_process_first():
            clips = load_benchmark(dataset, data_dir, split, protocol, fold, block_list=block_list)
        evaluation.warn_of_training_data(network, split_facts(clips))
        predictions, failures = evaluation.predict_clips(
            network,
            VideoFocalNetVideoProcessor.from_pretrained(model),
            clips,
            views=views,
            batch_size=batch_size,
            num_workers=num_workers,
            accelerator=accelerator,
        )
        accelerator.end_training()
        if not accelerator.is_main_process:
            return
        output.mkdir(parents=True, exist_ok=True)
        predictions_file = output / "predictions.jsonl"
        header = evaluation.prediction_header(clips, failures, model, views)
        evaluation.write_predictions(predictions_file, header, predictions)

    header, predictions = evaluation.read_predictions(predictions_file)
    unread = header["unread"]
    for clip in unread:
        typer.echo(f"not read: {clip['video_id']}: {clip['reason']}", err=True)
    absent = max(len(unread), header["listed"] - len(predictions))
    if absent and not allow_missing:
        raise ValueError(
            f"{absent} of {header['listed']} clips of {evaluation.describe(header)} are missing: no figure over "
            f"the others is given without --allow-missing. The predictions are in {predictions_file}"
        )
    figures = evaluation.compute_figures(predictions, header["classes"])
    output.mkdir(parents=True, exist_ok=True)
    row = evaluation.write_report(output, header, figures)
    if as_json:
        typer.echo(json.dumps(row))
        return
    typer.echo(f"{row['split']}, views: {row['views']}, {row['clips']} of {row['listed']} clips")
    typer.echo(f"top-1 {row['top1']:.2f} %   top-5 {row['top5']:.2f} %   mean class {row['mean_class']:.2f} %")
    typer.echo(f"{output}: results.json, per_class.csv, confusion.csv, confusion.png; from {predictions_file}")


@app.command("cache-teacher")
def cache_teacher(
    teacher: Annotated[str, typer.Argument(help="Folder or Hub id of a video classifier.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or to go on with.")],
    dataset: Annotated[str, typer.Option(help="ucf50, ucf101, hmdb51, ssv2, kinetics400, or folder.")],
    data_dir: Annotated[str, typer.Option(help="The extracted release, or {train,...}/<class>/<video>.")],
    views: Annotated[int, typer.Option(min=1, help="Views per clip, K: epoch e of a training shows view e mod K.")],
    protocol: Annotated[str | None, typer.Option(help="Which lists.")] = None,
    fold: Annotated[int, typer.Option(min=1, help="Which fold.")] = 1,
    block_list: Annotated[Path | None, typer.Option(help="A report of `dvflnet verify`.")] = None,
    seed: Annotated[int, typer.Option(help="The seed of the training.")] = 0,
    augment: Annotated[
        bool, typer.Option(help="The published crops, flips and colours, as the training has it.")
    ] = True,
    flip: Annotated[float, typer.Option(help="Their probability of a mirror image.")] = 0.5,
    processor: Annotated[
        str | None, typer.Option(help="Folder whose video processor prepares the clips; that of TEACHER if unset.")
    ] = None,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Of the stored logits.")] = "float16",
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once, per process.")] = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode, per process.")] = 2,
    on_error: Annotated[
        Literal["replace", "raise"],
        typer.Option(help="What becomes of clips that cannot be read, as in the training."),
    ] = "replace",
    as_json: AsJson = False,
):
    """
    Store a teacher's answers, for training with --teacher_cache at the price of plain training.

    On several processes: `accelerate launch -m dvflnet_cli cache-teacher ...`.
    """
    quiet()
    from accelerate import Accelerator
    from transformers import AutoModelForVideoClassification

    from hf_dvflnet import ClipAugmentation, VideoClipDataset, VideoFocalNetVideoProcessor, load_benchmark
    from hf_dvflnet import teacher_cache as cache

    accelerator = Accelerator()
    network = AutoModelForVideoClassification.from_pretrained(teacher, dtype="auto")
    with accelerator.main_process_first():
        rows = load_benchmark(dataset, data_dir, "train", protocol, fold, block_list=block_list)
    clips = VideoClipDataset(
        rows,
        VideoFocalNetVideoProcessor.from_pretrained(processor or teacher),
        train=True,
        seed=seed,
        augmentation=ClipAugmentation(flip=flip) if augment else None,
        on_error=on_error,
    )
    labels = network.config.num_labels
    size = cache.cache_bytes(len(clips), views, labels, dtype)
    if accelerator.is_main_process:
        typer.echo(
            f"{len(clips)} clips x {views} views x {labels} logits in {dtype}: {size / 1e6:.1f} MB before packing",
            err=True,
        )
    done = cache.cache_teacher(
        network,
        clips,
        out,
        views=views,
        name=teacher,
        dtype=dtype,
        batch_size=batch_size,
        num_workers=num_workers,
        accelerator=accelerator,
    )
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **done}))
        return
    typer.echo(f"{out}: {done['rows']} views, {done['written']} of them now, {done['bytes'] / 1e6:.1f} MB")


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="ucf50, ucf101, hmdb51, ssv2 or kinetics400.")],
    data_dir: Annotated[str, typer.Argument(metavar="DIR", help="The extracted release or its archives.")],
    protocol: Annotated[str | None, typer.Option(help="Which lists.")] = None,
    fold: Annotated[int, typer.Option(min=1, help="Which fold.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, verify-NAME-PROTOCOL-FOLD.jsonl if unset; one of the same is gone on with."
        ),
    ] = None,
    min_frames: Annotated[int, typer.Option(min=1, help="Clips of fewer frames are called short.")] = 8,
    num_workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; all cores if unset.")] = None,
    as_json: AsJson = False,
):
    """
    Check every clip of a benchmark: counts, missing, empty, undecodable, short and duplicate clips.

    The report serves as --block-list. The exit code is 1 if a clip is missing, empty or undecodable, or if the lists
    are made of the file names and these are not all there.
    """
    quiet()
    from hf_dvflnet.benchmark_datasets import BENCHMARKS
    from hf_dvflnet.verification import OUTCOMES, verify_benchmark

    benchmark = BENCHMARKS.get(dataset)
    if benchmark is not None:
        protocol = protocol or next(iter(benchmark.folds))
    report = report or Path(f"verify-{dataset}-{protocol}-{fold}.jsonl")

    found = verify_benchmark(
        dataset,
        data_dir,
        report,
        protocol=protocol,
        fold=fold,
        min_frames=min_frames,
        num_workers=num_workers,
    )
    if as_json:
        typer.echo(json.dumps({**found, "report": str(report)}))
    else:
        typer.echo(f"{dataset}, {protocol}, fold {fold}")
        typer.echo("  ".join(f"{name:>11}" for name in ("split", "listed", "official", *OUTCOMES)))
        for split, counts in found["counts"].items():
            typer.echo("  ".join(f"{'-' if value is None else value:>11}" for value in (split, *counts.values())))
        typer.echo(f"{found['checked']} clips decoded now; the report is {report}")
    incomplete = protocol in BENCHMARKS[dataset].lists_from_names and any(
        counts["official"] not in (None, counts["listed"]) for counts in found["counts"].values()
    )
    if incomplete or any(
        counts[outcome] for counts in found["counts"].values() for outcome in ("missing", "empty", "undecodable")
    ):
        raise typer.Exit(1)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of videos or archives; it is only read.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; one of the same settings is gone on with.")],
    format: Annotated[
        Literal["tar", "folder"], typer.Option(help="Tars that `datasets` streams, or a file a clip.")
    ] = "tar",
    short_side: Annotated[int, typer.Option(help="Short side of a clip at most, in pixels, even.")] = 256,
    keyframe_interval: Annotated[int, typer.Option(help="Frames from keyframe to keyframe.")] = 4,
    crf: Annotated[int, typer.Option(help="H.264's quality: 0 is lossless, 51 the worst.")] = 23,
    clips_per_shard: Annotated[int, typer.Option(help="Videos of a tar.")] = 256,
    num_workers: Annotated[int | None, typer.Option(min=0, help="Processes that encode; all cores if unset.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order in the tars.")] = 0,
    as_json: AsJson = False,
):
    """
    Make small, quickly seekable clips of a dataset's videos, so that training need not decode large ones again.

    A benchmark's release stays one. OUT/manifest.jsonl tells of every video whether it is ok, repaired or unreadable;
    if any is unreadable, the exit code is 1.
    """
    quiet()
    from hf_dvflnet import prepare_videos

    found = prepare_videos(
        source,
        out,
        layout=format,
        short_side=short_side,
        keyframe_interval=keyframe_interval,
        crf=crf,
        clips_per_shard=clips_per_shard,
        num_workers=num_workers,
        seed=seed,
    )
    failures = found["failures"]
    for row in failures[:5]:
        typer.echo(f"unreadable: {row['source']}: {row['reason']}", err=True)
    if len(failures) > 5:
        typer.echo(f"unreadable: {len(failures) - 5} more, which {found['manifest']} names", err=True)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(
            f"{found['videos']} videos: {found['ok']} ok, {found['repaired']} repaired, {found['unreadable']} "
            f"unreadable; {found['prepared']} prepared now, in {found['seconds']} s"
        )
        before, after = (f"{found[name] / 1e6:.1f} MB" for name in ("source_bytes", "bytes"))
        typer.echo(f"{before} became {after}; {found['manifest']} has every video's outcome")
    if failures:
        raise typer.Exit(1)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of the clip that is counted.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Its height and width.")] = None,
    as_json: AsJson = False,
):
    """Print parameters, multiply-adds, classes, frames and options of a model."""
    quiet()
    from hf_dvflnet.model_folder import describe_config, load_config

    about = describe_config(load_config(model), num_frames=frames, image_size=size)
    if as_json:
        typer.echo(json.dumps(about, ensure_ascii=False))
        return
    labels = about.pop("labels")
    about["parameters"] = f"{about['parameters']:,} ({about['parameters'] / 1e6:.2f} M)"
    about["multiply_adds"] = f"{about['multiply_adds'] / 1e9:.2f} G for one clip of {about.pop('input')}"
    for key, value in about.items():
        typer.echo(f"{key:34}{value}")
    typer.echo(f"{'labels':34}{', '.join(labels) if labels else 'without names'}")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
):
    """Upload a model folder with its card and code to the Hub (after `hf auth login`)."""
    quiet()
    from hf_dvflnet.model_folder import push_model_folder

    typer.echo(push_model_folder(folder, repo_id, private=private))


def quiet():
    """Keep the remarks and bars of transformers and datasets out of what a command prints."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main():
    try:
        app()
    except (OSError, ValueError) as error:
        typer.echo(f"dvflnet: {one_line(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
