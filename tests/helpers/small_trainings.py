"""Networks, clips and arguments of trainings that take a second."""

import torch

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
)


NAMES = ["clap", "jump", "run", "sit", "swim", "wave"]


def labelled(config: VideoFocalNetConfig, names: list[str] = NAMES, **changes) -> VideoFocalNetConfig:
    given = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        **changes,
    }
    return VideoFocalNetConfig(**{**config.to_dict(), **given})


def new_model(config: VideoFocalNetConfig, seed: int) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(seed)
    return VideoFocalNetForVideoClassification(config)


def weights_of(trainer) -> torch.Tensor:
    """All weights of a trainer's model, flattened."""
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def arguments(folder, **changes) -> dict:
    return {
        "output_dir": str(folder),
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        **changes,
    }


def logged(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


class RandomClips(torch.utils.data.Dataset):
    """Clips of noise, brighter for a higher class, so that something can be learned in a few steps."""

    def __init__(self, count: int, num_labels: int = 6, soft: bool = False):
        generator = torch.Generator().manual_seed(count)
        self.labels = torch.arange(count) % num_labels
        self.clips = torch.randn(count, 4, 3, 32, 32, generator=generator) + self.labels.view(-1, 1, 1, 1, 1)
        if soft:
            self.labels = torch.nn.functional.one_hot(self.labels, num_labels) * 0.8 + 0.2 / num_labels

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return {"pixel_values": self.clips[index], "labels": self.labels[index]}

    def batch(self) -> dict[str, torch.Tensor]:
        """All of them."""
        return {"pixel_values": self.clips, "labels": self.labels}


class TroubledClips(VideoClipDataset):
    """Clips of which some cannot be read, as `trouble` says: `{clip: what to do when it is read}`."""

    trouble: dict = {}

    def _read(self, row, generator):
        self.trouble.get(row["video_id"], lambda: None)()
        return super()._read(row, generator)


class SomeBroken(RandomClips):
    """Of which a clip is no number."""

    def __getitem__(self, index):
        item = {**super().__getitem__(index), "clip": f"clip {index}"}
        return {**item, "pixel_values": item["pixel_values"] * torch.nan} if index == 13 else item


def trainer_on(folder, config, clips, *callbacks, num_labels=6, **changes) -> VideoClassificationTrainer:
    config = VideoFocalNetConfig(**{**config.to_dict(), "drop_path_rate": 0.5, "num_labels": num_labels})
    torch.manual_seed(0)
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **changes}
    return VideoClassificationTrainer(
        VideoFocalNetForVideoClassification(config),
        VideoTrainingArguments(**arguments(folder, **options)),
        train_dataset=clips,
        callbacks=list(callbacks),
    )
