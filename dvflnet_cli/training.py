"""Commands for training and evaluation: train, distill, cache-teacher, evaluate."""

import json
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AsJson, BlockList, Device, DType, Fold, Protocol
from .terminal import printable, quiet, quiet_imports, use_sandbox


def train(context: typer.Context):
    """
    Train or fine-tune one video classifier.

    The options are those of transformers' TrainingArguments and more; `dvflnet train --help` lists them.
    """
    before_the_imports()
    from .scripts import data, train

    data.run(train.main, context.args)


def distill(context: typer.Context):
    """
    Train a student with a teacher and, to compare, alone.

    The options are those of transformers' TrainingArguments and more; `dvflnet distill --help` lists them.
    """
    before_the_imports()
    from .scripts import data, distill

    data.run(distill.main, context.args)


def before_the_imports():
    quiet_imports()
    # Ctrl-C in the imports, which take seconds, shows no traceback of them; `run` sets it back
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def evaluate(
    model: Annotated[str | None, typer.Argument(help="A model folder or Hub id; not with --from-predictions.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="ucf50, ucf101, hmdb51, jhmdb, ssv2, kinetics400, or `folder` for class folders."),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Folder of the extracted release or its archives, or hf://datasets/...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="By default the split on which results are reported.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="official, groups_20_5, logo or dvflnet_8020, depending on the benchmark.")
    ] = None,
    fold: Fold = 1,
    views: Annotated[int, typer.Option(help="1, or 12: 4 clips x 3 crops with averaged softmax, as published.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            help="New folder for metrics, tables and predictions; by default `evaluation`, or that of the predictions."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once, per process.")] = 8,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Sandboxes that decode, per process; by default one per CPU.")
    ] = None,
    block_list: BlockList = None,
    device: Device = "auto",
    dtype: DType = "auto",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Compute metrics even if clips of the split are missing.")
    ] = False,
    from_predictions: Annotated[
        Path | None, typer.Option(help="Compute the metrics again from a predictions.jsonl.")
    ] = None,
    as_json: AsJson = False,
):
    """
    Evaluate a model on a split of a benchmark by the published test protocol.

    Every clip counts once, also on several processes: `accelerate launch -m dvflnet_cli evaluate ...`. Writes
    predictions.jsonl, results.json, per_class.csv, class_bars.png, confusion.csv and confusion.png.
    """
    quiet()
    if from_predictions is None and (model is None or dataset is None or data_dir is None):
        raise ValueError("evaluate needs MODEL, --dataset and --data-dir, or --from-predictions")
    from hf_dvflnet.inference.evaluation import evaluate_model, read_predictions, report_predictions

    predictions_file = from_predictions
    if from_predictions is not None:
        output = output or from_predictions.parent
    else:
        output = output or Path("evaluation")
        predictions_file = evaluate_model(
            *(str(model), str(dataset), str(data_dir), output),
            split=split,
            protocol=protocol,
            fold=fold,
            views=views,
            batch_size=batch_size,
            num_workers=num_workers,
            block_list=block_list,
            device=device,
            dtype=dtype,
        )
    if predictions_file is None:  # only the main process prints
        return
    header, _ = read_predictions(predictions_file)
    for clip in header["unread"]:
        typer.echo(printable(f"not read: {clip['video_id']}: {clip['reason']}"), err=True)
    row = report_predictions(predictions_file, output, allow_missing=allow_missing)
    if as_json:
        typer.echo(json.dumps(row))
        return
    typer.echo(f"{row['split']}, views: {row['views']}, {row['clips']} of {row['listed']} clips")
    typer.echo(f"top-1 {row['top1']:.2f} %   top-5 {row['top5']:.2f} %   mean class {row['mean_class']:.2f} %")
    typer.echo(
        f"{output}: results.json, per_class.csv, class_bars.png, confusion.csv, confusion.png; from {predictions_file}"
    )


def cache_teacher(
    teacher: Annotated[str, typer.Argument(help="Model folder or Hub id of a video classifier.")],
    out: Annotated[Path, typer.Argument(help="Output folder. An unfinished cache is continued.")],
    dataset: Annotated[str, typer.Option(help="ucf50, ucf101, hmdb51, jhmdb, ssv2, kinetics400, or folder.")],
    data_dir: Annotated[str, typer.Option(help="Folder of the extracted release, or {train,...}/<class>/<video>.")],
    views: Annotated[int, typer.Option(min=1, help="Views per clip, K: epoch e of training uses view e mod K.")],
    protocol: Protocol = None,
    fold: Fold = 1,
    block_list: BlockList = None,
    seed: Annotated[int, typer.Option(help="Seed of the training run.")] = 0,
    augment: Annotated[
        bool, typer.Option(help="The published crops, flips and colours. Must match the training run.")
    ] = True,
    flip: Annotated[float, typer.Option(help="Probability of a flip, as in the training run.")] = 0.5,
    processor: Annotated[
        str | None, typer.Option(help="Folder whose video processor prepares the clips; TEACHER by default.")
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Store the teacher's pooled features too, for --feature_weight.")
    ] = False,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Data type of the stored logits.")] = "float16",
    device: Device = "auto",
    teacher_dtype: DType = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once, per process.")] = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode, per process.")] = 2,
    on_error: Annotated[
        Literal["replace", "raise"],
        typer.Option(help="How to handle clips that cannot be read. Must match the training run."),
    ] = "replace",
    as_json: AsJson = False,
):
    """
    Store a teacher's logits, so that training with --teacher_cache costs as much as plain training.

    To use several processes: `accelerate launch -m dvflnet_cli cache-teacher ...`.
    """
    quiet()
    use_sandbox()
    from accelerate import Accelerator

    from hf_dvflnet import ClipAugmentation, VideoClipDataset, load_benchmark
    from hf_dvflnet.hub.loaded_models import choose_device, feature_width
    from hf_dvflnet.hub.loading import load_processor, load_teacher
    from hf_dvflnet.training import teacher_cache as cache

    accelerator = Accelerator(cpu=choose_device(device).type == "cpu")
    network = load_teacher(teacher)
    with accelerator.main_process_first():
        rows = load_benchmark(dataset, data_dir, "train", protocol, fold, block_list=block_list)
    clips = VideoClipDataset(
        rows,
        load_processor(processor or teacher),
        train=True,
        seed=seed,
        augmentation=ClipAugmentation(flip=flip) if augment else None,
        on_error=on_error,
    )
    labels = network.config.num_labels
    width = feature_width(network) if features else 0
    size = cache.cache_bytes(len(clips), views, labels, dtype, width)
    if accelerator.is_main_process:
        typer.echo(
            f"{len(clips)} clips x {views} views x {labels} logits in {dtype}"
            f"{f' and {width} features in float16' if width else ''}: {size / 1e6:.1f} MB before packing",
            err=True,
        )
    done = cache.cache_teacher(
        network,
        clips,
        out,
        views=views,
        features=features,
        name=teacher,
        dtype=dtype,
        device=None if device == "auto" else device,
        teacher_dtype=teacher_dtype,
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
    typer.echo(
        f"{out}: {done['rows']} views, {done['written']} of them written in this run, {done['bytes'] / 1e6:.1f} MB"
    )
