"""
Accuracy against time on a CPU: small networks that are trained alike on UCF101, or some of its classes, split 1.

    pip install --no-deps pytorchvideo==0.1.5 fvcore iopath  # X3D
    OMP_NUM_THREADS=1 python benchmarks/frontier.py DIR

All start from random weights and learn from the teacher of `ucf101.py` ("both") from the same views in the same
order, with one learning rate, for 60 epochs or as many as one CPU hour allows. X3D-S sees the clip's 8 frames
(published: 13), X3D-XS every second of them: with as many frames, they are the same network. MobileNetV2 sees frames
one by one; its head is given the mean and change of their features.

Each run is written to `benchmarks/frontier.json` when it ends, and is not repeated: the same command continues where
it was stopped. Times are those of one clip with one thread in PyTorch, ONNX Runtime and OpenVINO, in turns;
Video-FocalNets are in the prepared form but for int8, as `dvflnet export` makes them. `--work` may be that of
`ucf101.py`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnxruntime
import openvino
import torch
from matplotlib.figure import Figure
from measuring import continued, gain, labels_of, seconds, take_turns
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperConfig, set_seed
from transformers.modeling_outputs import ImageClassifierOutput
from ucf101 import ARMS, CHOSEN, SETTINGS, Teacher, TestViews, TrainingViews, Views, figures, load_clips, train_student

from hf_dvflnet import (
    FrameModelForVideoClassification,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    prepare_for_inference,
)
from hf_dvflnet.modeling_frame_model import FrameModelConfig


RESULTS = Path(__file__).with_name("frontier.json")
EPOCHS, MINUTES = 60, 60  # at most
X3D = {"X3D-XS": 4, "X3D-S": 8}  # frames
NETWORKS = ("femto", "pico", "X3D-XS", "X3D-S", "MobileNetV2", "nano")
RUNTIMES = ("PyTorch", "ONNX Runtime", "OpenVINO", "OpenVINO int8")
CALIBRATION = 64  # clips


class X3DConfig(PreTrainedConfig):
    model_type = "x3d"


class X3DForVideoClassification(PreTrainedModel):
    """X3D of pytorchvideo, with the head as a layer of its own, which the trainers look for."""

    config_class = X3DConfig
    main_input_name = "pixel_values"

    def __init__(self, config: X3DConfig):
        super().__init__(config)
        from pytorchvideo.models.x3d import create_x3d

        # width and depth factors of X3D-XS, S and M
        body = create_x3d(
            input_clip_length=config.seen, input_crop_size=config.image_size, depth_factor=2.2, head_activation=None
        )
        self.classifier = nn.Linear(body.blocks[-1].proj.in_features, config.num_labels)
        body.blocks[-1].proj = nn.Identity()
        self.body = body
        self.post_init()

    def _init_weights(self, module: nn.Module):
        pass  # pytorchvideo has done it

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **_: Any) -> Any:
        frames = pixel_values[:, :: pixel_values.shape[1] // self.config.seen].transpose(1, 2)
        logits = self.classifier(self.body(frames))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


def make(name: str, size: int, seed: int, classes: dict[str, Any]) -> Any:
    set_seed(seed)
    fields: dict[str, Any] = {"image_size": size, "num_frames": SETTINGS["frames"], **classes}
    if name in X3D:
        return X3DForVideoClassification(X3DConfig(seen=X3D[name], **fields))
    if name == "MobileNetV2":
        body = TimmWrapperConfig(architecture="mobilenetv2_100")
        config = FrameModelConfig(body_config=body, feature_size=1280, freeze_body=False, **fields)
        return FrameModelForVideoClassification(config)
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(name, **fields))


# Programs


class Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values)["logits"]


def programs(model: Any, clips: list[torch.Tensor]) -> dict[str, Callable[[torch.Tensor], Any]]:
    """What a network runs as: functions from a clip, (1, frames, 3, size, size), to logits. It is changed in place."""
    with tempfile.TemporaryDirectory() as folder:

        def exported(name: str) -> Path:
            file = Path(folder, name)
            torch.onnx.export(Logits(model).eval(), (clips[0],), file, input_names=["pixel_values"], verbose=False)
            return file

        plain = openvino.convert_model(exported("plain.onnx"))
        # as `dvflnet export` quantizes
        quantized = nncf.quantize(
            plain,
            nncf.Dataset([clip.numpy() for clip in clips]),
            subset_size=len(clips),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE,
                activations_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(
                    per_channel=False
                ),
            ),
        )
        if isinstance(model, VideoFocalNetForVideoClassification):
            prepare_for_inference(model)
        file = exported("prepared.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options)
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(openvino.convert_model(file), "CPU", hints)
        of_int8 = openvino.compile_model(quantized, "CPU", hints)

    @torch.inference_mode()
    def in_pytorch(clip: torch.Tensor) -> np.ndarray:
        return model(pixel_values=clip)["logits"].numpy()

    return {
        "PyTorch": in_pytorch,
        "ONNX Runtime": lambda clip: session.run(None, {"pixel_values": clip.numpy()})[0],
        "OpenVINO": lambda clip: compiled([clip.numpy()])[0],
        "OpenVINO int8": lambda clip: of_int8([clip.numpy()])[0],
    }


def measure(size: int, classes: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Parameters, CPU seconds of a training step by clip, and times of a clip, of all networks."""
    clips = list(torch.randn(16, 1, SETTINGS["frames"], 3, size, size))
    found: dict[str, Any] = {}
    calls: dict[str, dict[str, Callable]] = {runtime: {} for runtime in RUNTIMES}
    for name in NETWORKS:
        model = make(name, size, 0, classes).train()
        batch, steps = torch.cat(clips), []
        for _ in range(4):
            began = time.process_time()
            model(pixel_values=batch, labels=torch.arange(16) % 2)["loss"].backward()
            steps.append((time.process_time() - began) / 16)
        found[name] = {"parameters": model.num_parameters(), "training_seconds": round(min(steps), 5)}
        model.zero_grad()
        for runtime, program in programs(model.eval(), clips[:4]).items():
            calls[runtime][name] = lambda program=program: program(clips[0])
    for runtime, by_name in calls.items():
        times = take_turns(by_name, rounds)
        for name in NETWORKS:
            found[name][runtime] = seconds(times, name)
    return found


# Runs


def run(name: str, seed: int, size: int, epochs: int, rows: tuple, views: Views, work: Path) -> dict[str, Any]:
    train, test = rows
    settings = SETTINGS | {"epochs": epochs, "arm": ARMS[CHOSEN]}
    views.make(train, "features", settings["teacher_size"], views.training_parts)
    views.make(train, "pixels", size, views.training_parts)
    views.make(test, "pixels", size, ["test-1"])
    clips = TrainingViews(train, views, size, Teacher(train, views, 0))
    shown = TestViews(test, views, size, "test-1")
    labels, classes = np.array(test["label"]), labels_of(test)
    began = time.process_time()
    trainer = train_student(clips, shown, classes, seed, settings, work, make(name, size, seed, classes))
    minutes = (time.process_time() - began) / 60
    found = {
        "cpu_minutes": round(minutes, 1),
        "float32": figures(trainer.predict(shown).predictions, labels),
    }
    calibration = [clips[index]["pixel_values"][None] for index in range(0, len(clips), len(clips) // CALIBRATION)]
    in_int8 = programs(trainer.model.eval(), calibration)["OpenVINO int8"]
    found["int8"] = figures(np.concatenate([in_int8(row["pixel_values"][None]) for row in shown]), labels)
    return found


def right(runs: list[dict], part: str, labels: list[int]) -> np.ndarray:
    return np.array([np.equal(each[part]["answers"], labels) for each in runs])


def report(results: dict[str, Any], size: int, picture: Path) -> str:
    """The table, and the picture: accuracy with 95 % intervals over groups of clips and seeds, and median times."""
    about, measured = results["clips"], results["networks"][str(size)]
    heads = ["network", "M parameters", "epochs", "seeds", "top-1", "int8", "to X3D-XS", "to X3D-S", *RUNTIMES]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    runs = {
        name: {each["seed"]: each for each in results["runs"] if (each["network"], each["size"]) == (name, size)}
        for name in NETWORKS
    }
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = dict(zip(RUNTIMES, figure.subplots(2, 2, sharey=True).flat, strict=True))
    for name, by_seed in runs.items():
        of, cells = measured[name], [name, f"{measured[name]['parameters'] / 1e6:.2f}"]
        if by_seed:
            own = list(by_seed.values())
            cells += [str(own[0]["epochs"]), ", ".join(map(str, sorted(by_seed)))]
            for part in ("float32", "int8"):
                answers = right(own, part, about["labels"])
                mean, low, high = (
                    100 * value for value in gain(np.zeros_like(answers, float), answers, about["groups"])
                )
                cells.append(f"{mean:.1f} ({low:.1f} to {high:.1f})")
                for runtime, axes in panels.items():
                    if (part == "int8") == runtime.endswith("int8"):
                        x = 1000 * of[runtime]["median"]
                        axes.errorbar(x, mean, [[mean - low], [high - mean]], fmt="o", capsize=3)
                        axes.annotate(name, (x, mean), xytext=(5, 5), textcoords="offset points")
        else:
            cells += [""] * 4
        for other in X3D:
            seeds = sorted(by_seed.keys() & runs[other].keys()) if name != other else []
            pair = [
                right([each[seed] for seed in seeds], "float32", about["labels"]) for each in (runs[other], by_seed)
            ]
            values = [100 * value for value in gain(*pair, about["groups"])] if seeds else []
            cells.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*values) if seeds else "")
        for runtime in RUNTIMES:
            low, high = of[runtime]["quartiles"]
            cells.append(f"{1000 * of[runtime]['median']:.1f} ({1000 * low:.1f} to {1000 * high:.1f}) ms")
        lines.append(f"| {' | '.join(cells)} |")
    for runtime, axes in panels.items():
        axes.set(title=runtime, xlabel="ms a clip", ylabel="top-1, %", xscale="log")
    figure.savefig(picture)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="At most.")
    parser.add_argument("--rounds", type=int, default=21, help="Of the times.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="The JSON.")
    parser.add_argument("--work", type=Path, default=Path("runs/ucf101"))
    arguments = parser.parse_args()
    size, out = arguments.size, arguments.out
    results = {"networks": {}, "runs": [], "clips": {}} | continued(out)

    def write():
        out.write_text(json.dumps(results, indent=1) + "\n")

    train, test = load_clips(arguments.folder, arguments.work, 1, choose=False)
    views = Views(arguments.work, SETTINGS)
    groups = [f"{name.split('/')[0]} {group}" for name, group in zip(test["video_id"], test["group"], strict=True)]
    results["clips"] = {"labels": test["label"][:], "groups": groups}
    if str(size) not in results["networks"]:
        results["networks"][str(size)] = measure(size, labels_of(test), arguments.rounds)
        write()
    done = [(each["network"], each["seed"], each["size"]) for each in results["runs"]]
    for seed in arguments.seeds:
        for name in arguments.networks:
            if (name, seed, size) in done:
                continue
            hour = 60 * MINUTES / results["networks"][str(size)][name]["training_seconds"]
            epochs = max(1, min(arguments.epochs, int(hour / len(train))))
            print(f"{name}, {size} pixels, seed {seed}: {epochs} epochs", flush=True)
            found = run(name, seed, size, epochs, (train, test), views, arguments.work)
            results["runs"].append({"network": name, "size": size, "seed": seed, "epochs": epochs, **found})
            write()
            print(f"{found['float32']['top1']:.1%}, {found['cpu_minutes']} CPU minutes", flush=True)
    table = report(results, size, out.with_suffix(f".{size}.svg"))
    print(table)


if __name__ == "__main__":
    main()
