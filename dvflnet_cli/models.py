"""Commands for models: create, convert, info, export, push."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common import REQUIRED, argument, option, pick, say, shared, show


MOTIONS_STUDENT = "motions-student"


@dataclass
class Create:
    """
    Create a model of a given size with random weights, copy a small trained one, or make one of texts.

    motions-student is a copy of the trained model that comes with the package. It knows the 16 motions of `dvflnet
    render`. With --templates, a CLIP or SigLIP becomes a classifier that needs no training: it tells the --labels by
    what its text tower says of them.

        dvflnet create openai/clip-vit-base-patch32 runs/clip --labels ucf101 --templates "a video of {}."
    """

    name: str = argument(
        "A preset: nano (or dvflnet-nano), tiny, small or base; the smaller pico or femto; motions-student; or with "
        "--templates a folder or Hub id of a CLIP or SigLIP."
    )
    out: Path = argument("Output folder.")
    num_labels: int | None = option(None, "Number of classes; 400 by default.", minimum=1)
    labels: str | None = shared("labels")
    templates: list[str] | None = option(None, "Texts in which {} stands for the name of a class.")
    seed: int = option(0, "Random seed of the weights.")
    overwrite: bool = shared("overwrite")

    def run(self):
        if self.templates is not None:
            return self.make_of_text(self.templates)
        if self.name == MOTIONS_STUDENT:
            return self.copy_motions_student()
        from transformers import set_seed

        from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
        from hf_dvflnet.data.label_sets import read_labels
        from hf_dvflnet.hub.model_folder import save_model_folder

        if self.labels is not None and self.num_labels is not None:
            raise ValueError("--labels and --num_labels cannot be combined: --labels sets the number of classes")
        preset = "nano" if self.name == "dvflnet-nano" else self.name
        classes: dict[str, Any] = {"num_labels": self.num_labels or 400}
        order = ""
        if self.labels is not None:
            label_set = read_labels(self.labels)
            classes = {"id2label": dict(enumerate(label_set.names))}
            classes["label2id"] = {label: index for index, label in classes["id2label"].items()}
            order = f" Class names and their order: {label_set.source}."
        config = VideoFocalNetConfig.from_preset(preset, **classes)
        set_seed(self.seed)
        model = VideoFocalNetForVideoClassification(config)
        introduction = (
            f"**Untrained: the weights are random** (seed {self.seed}), and so are the answers. A starting point for "
            f"training, made with `dvflnet create {self.name}`.{order}"
        )
        title = f"{'DVFL-Net nano' if preset == 'nano' else f'Video-FocalNet {preset}'}, untrained"
        save_model_folder(self.out, model, title=title, introduction=introduction, overwrite=self.overwrite)
        size = f"{model.num_parameters() / 1e6:.2f} M parameters, {config.num_labels} classes"
        say(f"{self.out}: {preset}, {size}, random")

    def copy_motions_student(self):
        from hf_dvflnet.hub.model_folder import save_motions_student

        if self.labels is not None or self.num_labels is not None or self.seed:
            raise ValueError(f"{self.name} is trained already: combine it only with --overwrite")
        save_motions_student(self.out, self.overwrite)
        say(f"{self.out}: {MOTIONS_STUDENT}, trained on the 16 motions of `dvflnet render`")

    def make_of_text(self, templates: list[str]):
        from hf_dvflnet import FrameModelForVideoClassification, VideoFocalNetVideoProcessor
        from hf_dvflnet.data.label_sets import read_labels
        from hf_dvflnet.hub.image_networks import frame_settings
        from hf_dvflnet.hub.model_folder import image_processor_like, whole_or_nothing, write_card

        if self.labels is None or self.num_labels is not None or self.seed:
            raise ValueError("--templates needs --labels, the names of the classes, and no --num_labels or --seed")
        label_set = read_labels(self.labels)
        with whole_or_nothing(self.out, self.overwrite) as folder:
            model = FrameModelForVideoClassification.from_text(self.name, label_set.names, templates)
            processor = VideoFocalNetVideoProcessor(num_frames=model.config.num_frames, **frame_settings(self.name))
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            image_processor_like(processor).save_pretrained(folder)
            facts = {"classes": f"{len(label_set.names)}, {label_set.source}", "templates": ", ".join(templates)}
            introduction = f"The vision tower of {self.name}, and class names that its text tower has embedded."
            write_card(folder, "A video classifier made of texts", introduction, facts, name=self.out.name)
        size = f"{model.num_parameters() / 1e6:.2f} M parameters, {len(label_set.names)} classes"
        say(f"{self.out}: {type(model.body).__name__} of {self.name}, {size}, not trained")


@dataclass
class Convert:
    """Convert a published checkpoint to a model folder. No code from the checkpoint is run."""

    source: str = argument("A published .pth or .safetensors file, or a transformers FocalNet.")
    out: Path = argument("Output folder.")
    labels: str | None = shared("labels")
    num_frames: int | None = option(None, "Frames per clip, if the checkpoint does not state them.", minimum=1)
    use_postln: bool = option(False, "Set if the checkpoint was trained with use_postln; its weights do not show it.")
    normalize_modulator: bool = option(False, "Set if the checkpoint was trained with normalize_modulator.")
    depths: str | None = option(None, "Image networks: blocks to keep per stage, such as nano or 1,1,2,1; or all.")
    seed: int = option(0, "Random seed of the weights that an image network lacks.")
    overwrite: bool = shared("overwrite")
    json: bool = shared("json")

    def run(self):
        from transformers import set_seed

        from hf_dvflnet.data.label_sets import read_labels
        from hf_dvflnet.hub.checkpoint_conversion import convert_checkpoint, read_depths
        from hf_dvflnet.hub.model_folder import refuse_existing, save_model_folder

        refuse_existing(self.out, self.overwrite)  # checked before the work rather than after it
        label_set = None if self.labels is None else read_labels(self.labels)
        set_seed(self.seed)
        converted = convert_checkpoint(
            self.source,
            labels=label_set,
            use_post_layernorm=self.use_postln,
            depths=None if self.depths is None else read_depths(self.depths),
            **pick(self, "num_frames normalize_modulator"),
        )
        copied, new, left = len(converted.copied), converted.new, converted.left
        what = [f"Converted from `{Path(self.source).name}` by `dvflnet convert`: {copied} weights were copied."]
        if new:
            head = ", its head from random weights" if "classifier.weight" in new else ""
            what.append(
                f"**Not trained on videos**: the source lacks {len(new)} weights. Its temporal branch starts "
                f"from a temporal modulator of 1{head} (seed {self.seed})."
            )
        if label_set is not None:
            what.append(f"Class names and their order: {label_set.source}.")
        notes = [f"Note: {note}." for note in converted.notes]
        save_model_folder(
            self.out,
            converted.model,
            title=self.out.name,
            introduction="\n\n".join([*what, *notes]),
            frame_interval=converted.frame_interval,
            overwrite=self.overwrite,
        )
        for note in notes:
            say(note, err=True)
        found = {"source": self.source, "folder": str(self.out), "copied": copied, "new": new, "left": left}
        if not self.json:
            found |= {"new": len(new), "left": len(left)}
        show(found, self.json)


@dataclass
class Info:
    """Print the parameters, multiply-adds, classes, frames and options of a model."""

    model: str = argument("A model folder or Hub id.")
    frames: int | None = option(None, "Frames of the clip for which multiply-adds are counted.", minimum=1)
    size: int | None = option(None, "Height and width of that clip.", minimum=1)
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet.hub.loading import load_config
        from hf_dvflnet.hub.model_folder import describe_config

        about = describe_config(load_config(self.model), num_frames=self.frames, image_size=self.size)
        if not self.json:
            about["parameters"] = f"{about['parameters']:,} ({about['parameters'] / 1e6:.2f} M)"
            about["multiply_adds"] = f"{about['multiply_adds'] / 1e9:.2f} G for one clip of {about.pop('input')}"
            about["labels"] = ", ".join(about.pop("labels") or ["without names"])
        show(about, self.json)


@dataclass
class Export:
    """
    Export a model as a program for ONNX Runtime, OpenVINO or ExecuTorch, and compare its answers with PyTorch's.

    If they differ by more than the dtype explains, the command fails and writes nothing. Needs pip install
    'hf_dvflnet[export]'.
    """

    model: str = argument("A model folder or Hub id.")
    out: Path = argument("Output folder.")
    format: str = option(REQUIRED, "onnx, openvino or executorch.")
    dtype: str = option("float32", "float32; bfloat16 (openvino); int8 (onnx, openvino; needs --calibration).")
    calibration: list[str] | None = option(
        None, "Real videos for int8: files or folders. Every second one is for the comparison.", action="extend"
    )
    calibration_clips: int = option(64, "Maximum number of videos to calibrate on.", minimum=1)
    batch_size: int | None = option(None, "executorch: clips taken at once; 1 by default.", minimum=1)
    overwrite: bool = shared("overwrite")
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet.inference.export import export_model

        report = export_model(
            self.model,
            self.out,
            calibration_videos=self.calibration or (),
            max_calibration_clips=self.calibration_clips,
            **pick(self, "format dtype batch_size overwrite"),
        )
        show({"model": self.model, "folder": str(self.out), **report}, self.json)


@dataclass
class Push:
    """Upload a model folder with its card and code to the Hub. Run `hf auth login` first."""

    folder: Path = argument("A model folder.")
    repo_id: str = argument("OWNER/NAME on the Hub.")
    private: bool = option(False, "Make a new repository private.")

    def run(self):
        from hf_dvflnet.hub.model_folder import push_model_folder

        say(push_model_folder(self.folder, self.repo_id, private=self.private))
