"""
Train or fine-tune one video classifier.

On a benchmark, starting from a converted checkpoint:

    dvflnet convert focalnet_tiny_srf.pth start --depths nano --labels ucf101
    dvflnet train --dataset ucf101 --data_dir UCF101 --output_dir runs/ucf101 --model_name_or_path start

On your own videos, leave out --dataset: they lie in DIR/{train,validation,test}/<class>/<video>, and DIR is the
--data_dir.

Options can also be read from YAML or JSON files given as the first arguments, such as the published recipe in
examples/recipes of the repository. If an option occurs twice, the later one counts. The same command continues a run
that was stopped. On several processes: accelerate launch -m dvflnet_cli train ...
"""

from dataclasses import dataclass, field
from pathlib import Path

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoTrainingArguments,
    describe_split,
    split_facts,
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
from .distill import train_or_load
from .lora import LoraArguments, with_lora


@dataclass
class ModelArguments:
    """The model before training."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the initial weights; random if unset."}
    )
    preset: str = field(default="nano", metadata={"help": "Preset (size) of a model with random initial weights."})
    config_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Overrides of the config of a model with random initial weights, such as `drop_path_rate=0.2`."
        },
    )


def main(arguments: list[str]):
    data_args, model_args, lora_args, args = parse_arguments(
        "train", __doc__, arguments, DataArguments, ModelArguments, LoraArguments, VideoTrainingArguments
    )
    output_dir = Path(args.output_dir)
    begin_or_resume(args, arguments)
    show_settings(arguments, args, data_args, model_args, lora_args)

    data = load_data(data_args, args)
    processor = video_processor(data_args)
    model = make_model(
        model_args.model_name_or_path, model_args.preset, model_args.config_overrides, data, data_args, args.seed
    )
    trainer = VideoClassificationTrainer(
        with_lora(model, lora_args, args),
        args,
        train_dataset=training_clips(data["train"], processor, data_args, args.seed),
        eval_dataset=VideoClipDataset(data["validation"], processor),
        processing_class=processor,
    )
    train_or_load(trainer, output_dir.name)

    output = trainer.predict(VideoClipDataset(data["test"], processor))
    if trainer.is_world_process_zero():
        results = {
            "split": describe_split(split_facts(data["test"])),
            "clips": len(output.label_ids),
            "listed": split_facts(data["test"])["listed"],
            "top1": output.metrics["test_top1_accuracy"],
            "top5": output.metrics["test_top5_accuracy"],
            "seed": args.seed,
            "arguments": arguments,
        }
        write_json(output_dir / "results.json", results)
        print(f"\n{results['split']}, {results['clips']} of {results['listed']} clips: ", end="")
        print(f"top-1 {results['top1']:.1%}, top-5 {results['top5']:.1%}")
        print(f"The model is in {output_dir}")
    trainer.accelerator.end_training()
