"""Commands for models: create, convert, info, export, push."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import AsJson, Labels, Model, Overwrite
from .terminal import printable, quiet


MOTIONS_STUDENT = "motions-student"


def create(
    name: Annotated[
        str, typer.Argument(help="A preset: nano (or dvflnet-nano), tiny, small or base; or motions-student.")
    ],
    out: Annotated[Path, typer.Argument(help="Output folder.")],
    num_labels: Annotated[int | None, typer.Option(min=1, help="Number of classes; 400 by default.")] = None,
    labels: Labels = None,
    seed: Annotated[int, typer.Option(help="Random seed of the weights.")] = 0,
    overwrite: Overwrite = False,
):
    """
    Create a model of a published size with random weights, or a small trained one.

    motions-student is a copy of the trained model that comes with the package. It knows the 16 motions of `dvflnet
    render`.
    """
    quiet()
    if name == MOTIONS_STUDENT:
        if labels is not None or num_labels is not None or seed:
            raise ValueError(f"{name} is trained already: combine it only with --overwrite")
        return create_motions_student(out, overwrite)
    from transformers import set_seed

    from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
    from hf_dvflnet.data.label_sets import read_labels
    from hf_dvflnet.hub.model_folder import save_model_folder

    if labels is not None and num_labels is not None:
        raise ValueError("--labels and --num-labels cannot be combined: --labels already sets the number of classes")
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
        introduction=f"**Untrained: the weights are random** (seed {seed}), and so are the answers. A starting "
        f"point for training, made with `dvflnet create {name}`.{order}",
        overwrite=overwrite,
    )
    typer.echo(
        f"{out}: {preset}, {model.num_parameters() / 1e6:.2f} M parameters, {config.num_labels} classes, random"
    )


def create_motions_student(out: Path, overwrite: bool):
    from hf_dvflnet.hub.loading import load_config
    from hf_dvflnet.hub.model_folder import describe_config, save_motions_student

    about = describe_config(load_config(str(save_motions_student(out, overwrite))))
    size = f"{about['parameters'] / 1e6:.2f} M parameters, {about['num_labels']} classes"
    typer.echo(f"{out}: {MOTIONS_STUDENT}, {size}, trained")


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A published .pth or .safetensors file, or a folder or Hub id of a transformers FocalNet. With "
            "--to-published, a model folder of this package."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Output folder; with --to-published, the .pth file.")],
    labels: Labels = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames per clip, if the checkpoint does not state them.")
    ] = None,
    use_postln: Annotated[
        bool,
        typer.Option(
            "--use-postln", help="Set if the checkpoint was trained with use_postln; its weights do not show it."
        ),
    ] = False,
    normalize_modulator: Annotated[
        bool, typer.Option("--normalize-modulator", help="Set if the checkpoint was trained with normalize_modulator.")
    ] = False,
    depths: Annotated[
        str | None,
        typer.Option(
            help="Image networks: number of blocks to keep per stage, such as nano or 1,1,2,1; all by default."
        ),
    ] = None,
    temporal_init: Annotated[
        Literal["identity", "random"], typer.Option(help="Image networks: initialization of the temporal branch.")
    ] = "identity",
    seed: Annotated[int, typer.Option(help="Random seed of the weights that an image network lacks.")] = 0,
    to_published: Annotated[
        bool, typer.Option("--to-published", help="Convert back: write the weights under their published names.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
):
    """Convert a published checkpoint to a model folder. No code from the checkpoint is run."""
    quiet()
    if to_published:
        if labels or num_frames or use_postln or normalize_modulator or depths:
            raise ValueError("--to-published writes the model unchanged: combine it only with --overwrite and --json")
        return publish(source, out, overwrite, as_json)
    from transformers import set_seed

    from hf_dvflnet.data.label_sets import read_labels
    from hf_dvflnet.hub.checkpoint_conversion import convert_checkpoint, read_depths
    from hf_dvflnet.hub.model_folder import refuse_existing, save_model_folder

    refuse_existing(out, overwrite)  # checked before the work rather than after it
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
        typer.echo(printable(f"note: {note}"), err=True)
    if as_json:
        keys = {"copied": len(converted.copied), "new": converted.new, "left": converted.left}
        typer.echo(json.dumps({"source": source, "folder": str(out), **keys, "notes": converted.notes}))
        return
    typer.echo(
        f"{out}: {len(converted.copied)} weights copied, {len(converted.new)} new, {len(converted.left)} left out"
    )
    for title, names in (("new", converted.new), ("left out", converted.left)):
        if names:
            typer.echo(printable(f"{title}: {grouped(names)}"))


def grouped(names: list[str]) -> str:
    """Group weight names by block, or else by layer, with the number of weights: `layers.0.blocks.1 (14)`."""
    blocks = Counter(re.sub(r"^(.*?(?:blocks|layers)\.\d+)\.\D.*|^(.*)\..*", r"\1\2", name) for name in names)
    return ", ".join(f"{block} ({number})" for block, number in blocks.items())


def publish(source: str, out: Path, overwrite: bool, as_json: bool):
    import torch

    from hf_dvflnet.hub.loading import load_model, load_processor
    from hf_dvflnet.hub.model_folder import whole_or_nothing
    from hf_dvflnet.hub.published_checkpoint import publish_checkpoint

    if out.suffix != ".pth":
        raise ValueError(f"{out}: --to-published writes a .pth file; use that suffix")
    with whole_or_nothing(out, overwrite) as path:
        interval = load_processor(source).frame_interval
        checkpoint = publish_checkpoint(load_model(source), interval)
        try:
            torch.save(checkpoint, path)
        except RuntimeError as error:  # PyTorch raises this if the disk is full
            raise OSError(f"{out}: cannot be written ({error}); is the disk full?") from error
    if as_json:
        typer.echo(json.dumps({"source": source, "file": str(out), "weights": len(checkpoint["model"])}))
        return
    typer.echo(f"{out}: {len(checkpoint['model'])} weights under their published names, without class names")


def info(
    model: Model,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of the clip for which multiply-adds are counted.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Height and width of that clip.")] = None,
    as_json: AsJson = False,
):
    """Print the parameters, multiply-adds, classes, frames and options of a model."""
    quiet()
    from hf_dvflnet.hub.loading import load_config
    from hf_dvflnet.hub.model_folder import describe_config

    about = describe_config(load_config(model), num_frames=frames, image_size=size)
    if as_json:
        typer.echo(printable(json.dumps(about, ensure_ascii=False)))
        return
    labels = about.pop("labels")
    about["parameters"] = f"{about['parameters']:,} ({about['parameters'] / 1e6:.2f} M)"
    about["multiply_adds"] = f"{about['multiply_adds'] / 1e9:.2f} G for one clip of {about.pop('input')}"
    for key, value in about.items():
        typer.echo(printable(f"{key:34}{value}"))
    typer.echo(printable(f"{'labels':34}{', '.join(labels) if labels else 'without names'}"))


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="Output folder.")],
    format: Annotated[str, typer.Option(help="onnx, openvino or executorch.")],
    dtype: Annotated[
        str, typer.Option(help="float32; bfloat16 (openvino); int8 (onnx, openvino; needs --calibration).")
    ] = "float32",
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VIDEO_OR_FOLDER",
            help="Real videos, such as training videos: a file or a folder. Can be given several times.",
        ),
    ] = None,
    calibration_clips: Annotated[int, typer.Option(min=1, help="Maximum number of videos to use.")] = 64,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="executorch: clips that the program takes at once; 1 by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing exported model.")] = False,
    as_json: AsJson = False,
):
    """
    Export a model as a program for ONNX Runtime, OpenVINO or ExecuTorch, and compare its answers with PyTorch's.

    If they differ by more than the dtype explains, the command fails and writes nothing. Needs pip install
    'hf_dvflnet[export]'.
    """
    quiet()
    from hf_dvflnet.inference.export import export_model

    report = export_model(
        model,
        out,
        format=format,
        dtype=dtype,
        calibration_videos=calibration or (),
        max_calibration_clips=calibration_clips,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    if as_json:
        typer.echo(json.dumps({"model": model, "folder": str(out), **report}))
        return
    batch = "any batch" if report["batch"] is None else f"a batch of {report['batch']}"
    typer.echo(f"{out}: {format} {dtype}, {report['bytes'] / 1e6:.1f} MB, {batch}")
    clips = f"{report['clips']} clips of noise"
    if report["videos"]:
        clips = f"{report['clips']} of {report['videos']} videos"
    agreement = "" if report["top1_agreement"] is None else f", the same top class for {report['top1_agreement']:.1%}"
    typer.echo(
        f"compared with PyTorch on {clips}: logits at most {report['max_difference']:.1e} apart (the largest is "
        f"{report['largest_logit']:.2g}){agreement}"
    )
    if dtype == "bfloat16" and report["computed_in"] != "bf16":
        typer.echo(f"note: this processor does not support bfloat16 and computed in {report['computed_in']}", err=True)


def push(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
):
    """Upload a model folder with its card and code to the Hub. Run `hf auth login` first."""
    quiet()
    from hf_dvflnet.hub.model_folder import push_model_folder

    typer.echo(push_model_folder(folder, repo_id, private=private))
