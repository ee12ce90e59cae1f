import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import TrainingArguments

from hf_dvflnet import VideoClassificationTrainer, VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_dvflnet.trainer import smooth_labels


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


def train(folder, config, dataset, **changes):
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(config)
    trainer = VideoClassificationTrainer(
        model, TrainingArguments(**arguments(folder, **changes)), train_dataset=dataset, eval_dataset=RandomClips(13)
    )
    trainer.train()
    return trainer


def test_weight_decay_leaves_out_every_one_dimensional_parameter(tmp_path, tiny_config):
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "use_layerscale": True})
    model = VideoFocalNetForVideoClassification(config)
    trainer = VideoClassificationTrainer(model, TrainingArguments(**arguments(tmp_path, weight_decay=0.1)))
    decayed, undecayed = trainer.create_optimizer().param_groups
    assert decayed["weight_decay"] == 0.1 and all(parameter.ndim > 1 for parameter in decayed["params"])
    assert undecayed["weight_decay"] == 0 and all(parameter.ndim == 1 for parameter in undecayed["params"])
    assert len(decayed["params"]) + len(undecayed["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("soft", [False, True])
def test_ids_and_probabilities_both_train(tmp_path, tiny_config, soft):
    trainer = train(tmp_path, tiny_config, RandomClips(24, soft=soft), max_steps=30, logging_steps=10)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1


def test_one_batch_of_eight_and_four_of_two_give_the_same_update(tmp_path, tiny_config):
    weights = []
    for batch, accumulated in ((8, 1), (2, 4)):
        trainer = train(
            tmp_path,
            tiny_config,
            RandomClips(8),
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
        )
        weights.append(torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()]))
    torch.manual_seed(0)
    start = VideoFocalNetForVideoClassification(tiny_config).parameters()
    start = torch.cat([parameter.detach().flatten() for parameter in start])
    moved = (weights[0] - start).abs().max()
    assert moved > 1e-3 and (weights[0] - weights[1]).abs().max() < 1e-4 * moved


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, tiny_config):
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "drop_path_rate": 0.5})
    runs = [train(tmp_path, config, RandomClips(24), seed=seed).model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_label_smoothing_applies_to_training_alone(tmp_path, tiny_config):
    trainer = train(tmp_path, tiny_config, RandomClips(4), max_steps=1, label_smoothing_factor=0.3)
    batch = {name: torch.stack([item[name] for item in RandomClips(4)]) for name in ("pixel_values", "labels")}
    with torch.no_grad():
        model = trainer.model.train()
        log_probs = model(batch["pixel_values"]).logits.log_softmax(-1)
        smoothed = 0.7 * torch.nn.functional.one_hot(batch["labels"], 6) + 0.05
        torch.testing.assert_close(trainer.compute_loss(model, batch), -(smoothed * log_probs).sum(-1).mean())
        torch.testing.assert_close(
            trainer.compute_loss(model.eval(), batch), torch.nn.functional.cross_entropy(log_probs, batch["labels"])
        )


def test_smoothed_labels_are_probabilities():
    smoothed = smooth_labels(torch.tensor([0, 2]), 3, 0.3)
    torch.testing.assert_close(smoothed, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))
    torch.testing.assert_close(smooth_labels(smoothed, 3, 0.0), smoothed)


def test_evaluation_counts_every_clip_of_an_uneven_last_batch(tmp_path, tiny_config):
    trainer = train(tmp_path, tiny_config, RandomClips(8), per_device_eval_batch_size=4)
    output = trainer.predict(RandomClips(13))
    assert output.predictions.shape == (13, 6)
    right = (output.predictions.argmax(-1) == RandomClips(13).labels.numpy()).mean()
    assert output.metrics["test_top1_accuracy"] == pytest.approx(right)
    assert output.metrics["test_top5_accuracy"] >= right


def test_the_dataset_is_told_each_epoch(tmp_path, tiny_config):
    class Listening(RandomClips):
        epochs: list[int] = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    train(tmp_path, tiny_config, Listening(8), max_steps=-1, num_train_epochs=3)
    assert list(dict.fromkeys(Listening.epochs)) == [0, 1, 2]


def test_two_processes_count_every_clip_once(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys
            sys.path.insert(0, sys.argv[1])
            import torch
            from transformers import TrainingArguments
            from test_trainer import RandomClips, arguments
            from hf_dvflnet import *
            torch.manual_seed(0)
            model = VideoFocalNetForVideoClassification(VideoFocalNetConfig(embed_dim=8, num_labels=6))
            args = TrainingArguments(**arguments(sys.argv[2], per_device_eval_batch_size=3))
            trainer = VideoClassificationTrainer(model, args)
            output = trainer.predict(RandomClips(13))
            if trainer.is_world_process_zero():
                found = {"world_size": args.world_size, "clips": len(output.predictions),
                         "logits": output.predictions.tolist(), "top1": output.metrics["test_top1_accuracy"]}
                print(json.dumps(found))
            trainer.accelerator.end_training()
            """
        )
    )
    results = []
    for processes in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"),
            *(f"--master_port={port}", str(script), os.path.dirname(__file__), str(tmp_path / "out")),
        ]
        process = subprocess.run(
            launch, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert process.returncode == 0, process.stderr
        results.append(json.loads([line for line in process.stdout.splitlines() if line.startswith("{")][-1]))
    one, two = results
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert one["clips"] == two["clips"] == 13 and one["top1"] == two["top1"]
    torch.testing.assert_close(torch.tensor(one["logits"]), torch.tensor(two["logits"]), rtol=0, atol=1e-5)
