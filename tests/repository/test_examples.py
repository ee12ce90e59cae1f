import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import misused
from example_scripts import EXAMPLES, SMALL, parse_training
from mini_releases import write_ucf101
from transformers import AutoImageProcessor, AutoModel, AutoVideoProcessor, pipeline

import hf_dvflnet
from dvflnet_cli import COMMANDS, runs
from dvflnet_cli.parser import CommandParser
from dvflnet_cli.training import Train
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.inference import evaluation


def distil(output_dir: Path, *launcher: str, **changes) -> subprocess.CompletedProcess:
    options = {**SMALL, "output_dir": output_dir, **changes}
    return launch("distill.py", *launcher, settings=("demo.yaml",), **options)


def launch(script: str, *launcher: str, settings: tuple[str, ...] = (), **options) -> subprocess.CompletedProcess:
    """Run an example by `accelerate launch`, with settings files in front of `options`."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
    return subprocess.run(
        [
            *launch,
            *("--dynamo_backend", "no", *(launcher or ("--num_processes", "1"))),
            str(EXAMPLES / script),
            *(str(EXAMPLES / file) for file in settings),
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "HOME": os.devnull},  # a home that cannot be written
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("run") / "out"
    process = distil(folder)
    assert process.returncode == 0, process.stderr
    return folder, process


def test_the_example_leaves_a_student_that_transformers_opens(run):
    folder, process = run
    results = json.loads((folder / "results.json").read_text())
    assert set(results["results"]) == {"teacher", "student alone", "student distilled"}
    assert results["test clips"] == 16 and results["training clips of the student"] == 16
    for name in ("teacher", "student alone", "student distilled"):
        assert f"| {name} |" in process.stdout
    student = folder / "student"
    assert (student / "model.safetensors").is_file()
    assert f"{results['results']['student distilled']['top1']:.1%}" in (student / "README.md").read_text()
    assert isinstance(AutoModel.from_pretrained(student), hf_dvflnet.VideoFocalNetModel)
    assert AutoVideoProcessor.from_pretrained(student).crop_size.height == 64
    assert AutoImageProcessor.from_pretrained(student).crop_size.height == 64
    video = next((folder / "motion_videos" / "test").rglob("*.mp4"))
    answers = pipeline("video-classification", model=str(student), device="cpu")(str(video))
    assert {answer["label"] for answer in answers} <= set(MOTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, moment",
    [
        (signal.SIGINT, "motion_videos/train/*/*.mp4"),
        (signal.SIGINT, "student/checkpoint-*/trainer_state.json"),
        (signal.SIGTERM, "student/checkpoint-*/trainer_state.json"),
    ],
)
def test_a_signal_ends_a_run_in_a_sentence_and_the_same_command_goes_on(number, moment, tmp_path):
    options = {**SMALL, "output_dir": tmp_path / "out", "num_train_epochs": 16, "train_teacher": False}
    command = [sys.executable, str(EXAMPLES / "distill.py"), str(EXAMPLES / "demo.yaml")]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    log = tmp_path / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=EXAMPLES.parent
        )
    while not any((tmp_path / "out").glob(moment)) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does
    assert process.wait(timeout=120) == 128 + number
    printed = log.read_text()
    assert ("dvflnet: stopped" in printed) == (number == signal.SIGINT) and "Traceback" not in printed
    again = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=EXAMPLES.parent)
    assert again.returncode == 0, again.stderr
    assert (" from checkpoint-" in again.stdout) == moment.startswith("student")


def test_options_can_be_corrected_until_there_is_something_to_continue(tmp_path):
    def begin(**given):
        args = hf_dvflnet.VideoTrainingArguments(str(tmp_path / "run"), use_cpu=True)
        runs.begin(Train(), args, given)
        return args.resume_from_checkpoint

    assert begin(seed=1) is None
    (tmp_path / "run" / "motion_videos").mkdir()
    assert begin(seed=1) is None and (tmp_path / "run" / "motion_videos").exists()
    assert begin(seed=2) is None and not (tmp_path / "run" / "motion_videos").exists()
    (tmp_path / "run" / "student" / "checkpoint-4").mkdir(parents=True)
    assert begin(seed=2) == "last"
    with pytest.raises(ValueError, match=r"unfinished run with other options \(seed was 2 and is 3\)"):
        begin(seed=3)


def test_data_of_one_class_is_refused(video_tree, tmp_path):
    for split in ("train", "val", "test"):
        shutil.rmtree(video_tree / split / "jump")
    args = hf_dvflnet.VideoTrainingArguments(str(tmp_path / "run"), use_cpu=True)
    with pytest.raises(ValueError, match=r"tree: has one class \(wave hands\), so there is nothing to tell apart"):
        runs.load_data(Train(data_dir=str(video_tree)), args)


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path):
    place = str(tmp_path / ".lock")
    hold = f"from filelock import FileLock; lock = FileLock({place!r}); lock.acquire(); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="another process trains here; wait, or"):
            runs.lock_folder(tmp_path)
        other.communicate("\n")
    runs.lock_folder(tmp_path)  # the lock of a process that has ended is free


@pytest.mark.parametrize(
    ("texts", "name", "value"),
    [
        (["fps: 8", "fps: null"], "fps", None),
        (["lora_target_modules: [fc1]", "lora_target_modules: []"], "lora_target_modules", None),
        (["eval_strategy: no"], "eval_strategy", "no"),
        (["lr_scheduler_kwargs:\n  min_lr_rate: 1e-1"], "lr_scheduler_kwargs", {"min_lr_rate": 0.1}),
        (["config_overrides: {embed_dim: 8}"], "config_overrides", '{"embed_dim": 8}'),
        (["fps: 8", "", "# fps: 9"], "fps", 8.0),
    ],
)
def test_a_settings_file_is_read_as_yaml_means_it(texts, name, value, tmp_path):
    words = ["--output_dir", str(tmp_path), "--use_cpu"]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.yaml").write_text(text)
        words += ["--config", str(tmp_path / f"{number}.yaml")]
    options, args = parse_training("train", *words)
    assert getattr(options if hasattr(options, name) else args, name) == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"learning_rate: null", "learning_rate: no value; leave the line out for the default, 5e-05"),
        (b"lora_target_modules: [fc1, null]", "lora_target_modules: must be a list of values, got"),
        (b"- fps: 1", "must consist of lines such as `option: value`"),
        (b"data_dir: [unclosed", "is not YAML"),
        (b"data_dir: caf\xe9", "is not YAML"),
        (b"1: 2", "1: no such option"),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_named(content, reason, dvflnet, tmp_path):
    (tmp_path / "settings.yaml").write_bytes(content)
    result = dvflnet("train", "--config", tmp_path / "settings.yaml", "--output_dir", tmp_path)
    misused(result, f"settings.yaml: {reason}")


def test_access_tokens_are_not_noted(tmp_path):
    kind = COMMANDS["train"]
    parser = CommandParser("train", kind, hf_dvflnet.VideoTrainingArguments)
    _, given = parser.parse(["--hub_token", "secret", "--output_dir", str(tmp_path), "--use_cpu"])
    assert given == {"output_dir": str(tmp_path), "use_cpu": True}


def test_a_finished_run_is_not_overwritten(run, dvflnet):
    options = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    code, _, err = dvflnet(
        "distill", "--config", EXAMPLES / "demo.yaml", *options, "--output_dir", run[0], "--use_cpu"
    )
    assert code and "contains a finished run; delete it, or choose a different --output_dir" in err


def test_a_stopped_run_goes_on_from_its_last_checkpoint_to_the_same_student(run, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(run[0], folder)
    # as if it had been stopped in the second epoch of the distillation
    (folder / "results.json").unlink()
    (folder / "student" / "model.safetensors").unlink()
    shutil.rmtree(folder / "student" / "checkpoint-4")
    process = distil(folder, resume_from_checkpoint="last")
    assert process.returncode == 0, process.stderr
    students = [
        hf_dvflnet.VideoFocalNetForVideoClassification.from_pretrained(f / "student") for f in (run[0], folder)
    ]
    for name, weight in students[0].state_dict().items():
        assert torch.equal(weight, students[1].state_dict()[name]), name
    results = [json.loads((f / "results.json").read_text())["results"] for f in (run[0], folder)]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    write_ucf101(root)
    return root


SHOWN = {"image_size": 32, "short_side": 36, "num_frames": 4, "per_device_train_batch_size": 8}


@pytest.mark.parametrize("benchmark", ["ucf101", "ssv2"])
@pytest.mark.parametrize("recipe", ["teacher", "student", "distillation"])
def test_every_recipe_is_the_published_one(recipe, benchmark, tmp_path):
    files = [str(EXAMPLES / "recipes" / f"{name}.yaml") for name in (recipe, benchmark)]
    words = [word for file in files for word in ("--config", file)]
    command = "distill" if recipe == "distillation" else "train"
    kind = COMMANDS[command]
    parser = CommandParser(command, kind, getattr(hf_dvflnet, kind.training_arguments))
    (options, args), given = parser.parse([*words, "--output_dir", str(tmp_path), "--use_cpu", "true"])
    args = runs.with_recipe(options, args, given, {})
    assert (options.dataset, options.num_frames, options.frame_interval) == (benchmark, 8, 4)
    assert options.augment and options.flip == (0.0 if benchmark == "ssv2" else 0.5)
    assert args.published_schedule and (args.learning_rate, args.min_learning_rate) == (0.1, 0.001)
    assert args.get_warmup_steps(1200) == 200 and args.num_train_epochs == 120
    assert (args.mixup_alpha, args.cutmix_alpha, args.label_smoothing_factor) == (0.8, 1.0, 0.1)
    assert (args.weight_decay, args.max_grad_norm, args.reference_batch_size) == (1e-4, 5.0, 512)
    if recipe == "distillation":
        assert (args.alpha, args.temperature, options.student_preset) == (0.2, 10.0, "nano")
    else:
        assert options.preset == ("base" if recipe == "teacher" else "nano")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["teacher", "student", "distillation"])
def test_every_recipe_runs_in_small(recipe, motion_tree, tmp_path):
    small = "embed_dim=8,patch_size=8,drop_path_rate=0.2"
    options = {**SHOWN, "data_dir": motion_tree, "num_train_epochs": 2, "use_cpu": True, "dataloader_num_workers": 1}
    if recipe == "distillation":
        options |= {"teacher_epochs": 1, "teacher_config_overrides": small, "student_config_overrides": small}
    else:
        options |= {"config_overrides": small}
    process = launch(
        *("distill.py" if recipe == "distillation" else "train.py", "--num_processes", "1"),
        settings=(f"recipes/{recipe}.yaml",),
        **{**options, "output_dir": tmp_path / "out"},
    )
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "out" / ("student" if recipe == "distillation" else "")
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 8
    assert (folder / "model.safetensors").is_file()


@pytest.fixture
def start(motion_tree, tmp_path, tiny_config):
    """Clips, and what a model is made of that starts from one of some classes: `start(names)`, the other and ours."""

    def make(names: list[str]):
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
        torch.manual_seed(0)
        config = hf_dvflnet.VideoFocalNetConfig(**{**tiny_config.to_dict(), **labels})
        other = hf_dvflnet.VideoFocalNetForVideoClassification(config).eval()
        torch.nn.init.normal_(other.classifier.weight, std=1.0)
        other.save_pretrained(tmp_path / "start")
        arguments = Train(data_dir=str(motion_tree), num_frames=6, image_size=36, short_side=36)
        rows = {"train": hf_dvflnet.load_benchmark("folder", motion_tree, "train")}
        return other, runs.make_model(str(tmp_path / "start"), "nano", None, rows, arguments, seed=0).eval(), rows

    return make


def test_a_start_with_the_same_classes_keeps_its_head_in_the_datas_order(start, tmp_path):
    names = sorted(MOTIONS)
    other, model, rows = start(names[::-1])
    clip = torch.randn(1, 6, 3, 36, 36)
    assert [model.config.id2label[number] for number in range(16)] == names
    torch.testing.assert_close(model(clip).logits, other(clip).logits.flip(-1))
    # the trainer then has nothing left to translate
    seen = []

    def count(prediction):
        seen.extend(prediction.label_ids.tolist())
        return {"right": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    processor = runs.video_processor(Train(num_frames=6, fps=4.0, image_size=36, short_side=36))
    assert (processor.num_frames, processor.fps) == (6, 4)
    args = hf_dvflnet.VideoTrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    clips = hf_dvflnet.VideoClipDataset(rows["train"], processor)
    trainer = hf_dvflnet.VideoClassificationTrainer(model, args, eval_dataset=clips, compute_metrics=count)
    predictions, _ = evaluation.predict_clips(other, processor, rows["train"])
    right = evaluation.compute_figures(predictions, names)["top1"]
    assert trainer.evaluate()["eval_right"] == pytest.approx(right) and seen == rows["train"]["label"]


@pytest.mark.parametrize(
    "names", [[f"LABEL_{number}" for number in range(16)], ["cat", *"abcdefghijklmno"], ["cat", "dog"]]
)
def test_a_start_with_other_classes_gets_a_new_head(start, names):
    other, model, _ = start(names)
    assert model.classifier.weight.shape == (16, 64) and model.classifier.weight.std() < 0.03
    assert [model.config.id2label[number] for number in range(16)] == sorted(MOTIONS)
    theirs = other.videofocalnet.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in model.videofocalnet.state_dict().items())


def test_a_benchmark_trains_a_model_that_knows_what_it_was_trained_on(ucf101, tmp_path):
    options = {**SHOWN, "data_dir": ucf101, "num_train_epochs": 1, "use_cpu": True, "dataloader_num_workers": 0}
    process = launch(
        *("train.py", "--num_processes", "1"),
        settings=("recipes/student.yaml", "recipes/ucf101.yaml"),
        **{**options, "config_overrides": "embed_dim=8,patch_size=8", "output_dir": tmp_path / "out", "fold": 2},
    )
    assert process.returncode == 0, process.stderr
    assert "1 of 30 clips are missing" in process.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())["validation"]
    assert (results["split"], results["clips"]) == ("ucf101, official fold 2, test", 10)
    assert results["split"] in process.stdout
    config = hf_dvflnet.VideoFocalNetConfig.from_pretrained(tmp_path / "out")
    trained = {"benchmark": "ucf101", "protocol": "official", "fold": 2, "split": "train", "augment": True}
    assert config.training_data == trained
    assert config.num_labels == 101
    assert AutoVideoProcessor.from_pretrained(tmp_path / "out").num_frames == 4
