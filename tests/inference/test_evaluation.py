import csv
import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from commands import DVFLNET, LAUNCH, finished, refused, start
from mini_releases import write_ucf101

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    evaluate_model,
    export_model,
    load_benchmark,
)
from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.data.loading import split_facts
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.inference.evaluation import (
    bootstrap,
    compute_figures,
    predict_clips,
    read_predictions,
    report_predictions,
    warn_of_training_data,
)
from hf_dvflnet.plots import charts


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    write_ucf101(root)
    return root


@pytest.fixture
def checkpoint(tmp_path, tiny_processor) -> Path:
    """A classifier of UCF101, in the order of DVFL-Net's checkpoints, that answers with more than one class."""
    names = LABEL_SETS["ucf101-sorted"].names
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(
        VideoFocalNetConfig(
            embed_dim=8,
            image_size=32,
            num_frames=4,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )
    )
    # only the five classes that the clips are of compete
    others = [index for index, name in enumerate(names) if name not in CLASSES]
    model.classifier.bias.data[others] = -20
    model.classifier.weight.data *= 50
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


CLASSES = ("ApplyEyeMakeup", "HammerThrow", "Hammering", "HandstandPushups", "JumpRope")


@pytest.fixture
def undrawn(monkeypatch):
    """Without the charts, which take longer than all else."""
    for name in ("save_class_bars", "save_confusion_matrix", "save_reliability"):
        monkeypatch.setattr(charts, name, lambda *arguments: None)


@pytest.fixture
def predictions(checkpoint, ucf101, tmp_path) -> Path:
    return evaluate_model(str(checkpoint), "ucf101", str(ucf101), tmp_path / "evaluated", num_workers=0, device="cpu")


@pytest.fixture
def evaluate(dvflnet, checkpoint, ucf101, tmp_path, undrawn):
    def evaluate(*arguments, data_dir=ucf101, output="out"):
        options = ("--dataset", "ucf101", "--data-dir", data_dir, "--output", tmp_path / output, "--num-workers", 0)
        return dvflnet("evaluate", checkpoint, *options, *arguments)

    return evaluate


def test_a_warning_of_a_clip_is_beside_its_prediction_and_printed(dvflnet, predictions, undrawn):
    rows = read_predictions(predictions)[1]
    warned = {row["video_id"]: row["warning"] for row in rows if "warning" in row}
    assert warned and all("fewer than the 4 of a clip; frames are repeated" in text for text in warned.values())
    _, _, err = dvflnet("evaluate", "--from_predictions", predictions)
    assert err.splitlines() == [": ".join(pair) for pair in warned.items()]


def test_a_platforms_number_of_processes_without_a_rank_is_not_waited_for(evaluate, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert evaluate("--device", "cpu")[0] == 0


# figures


def prediction(video_id, label, *names):
    return {"video_id": video_id, "label": label, "top5": [[name, 0.1] for name in names]}


def test_figures_are_those_of_their_definitions():
    predictions = [
        prediction("1", "a", "a", "b"),
        prediction("2", "a", "b", "a"),
        prediction("3", "a", "c", "b"),
        prediction("4", "b", "b", "c"),
    ]
    figures = compute_figures(predictions, ["a", "b", "c", "d", "e", "f"])
    assert (figures["clips"], figures["top1"], figures["top5"]) == (4, 0.5, 0.75)
    assert figures["mean_class"] == pytest.approx((1 / 3 + 1) / 2)  # the others have no clips
    assert np.array(figures["confusion"]).tolist() == np.pad([[1, 1, 1], [0, 1, 0]], ((0, 4), (0, 3))).tolist()
    assert figures["macro_f1"] == pytest.approx((2 * 1 / (3 + 1) + 2 * 1 / (1 + 2)) / 2)
    assert figures["ece"] == pytest.approx(0.4)  # half are right, with a confidence of 0.1
    assert figures["per_class"][0] == {
        "class": "a",
        "clips": 3,
        "top1": pytest.approx(1 / 3),
        "top5": pytest.approx(2 / 3),
    }
    assert figures["per_class"][2]["top1"] is None


def test_the_interval_of_grouped_clips_is_wider():
    right = np.repeat([True, False], 50)
    measure = lambda weights: {"top1": float(np.average(right, weights=weights))}  # noqa: E731
    low, high = bootstrap(measure, range(100))["top1"]
    assert (low, high) == pytest.approx((0.4, 0.6), abs=0.02)
    wide = bootstrap(measure, [clip // 10 for clip in range(100)])["top1"]
    assert wide[0] < 0.3 and wide[1] > 0.7


def test_five_classes_have_no_top_five():
    figures = compute_figures([prediction("1", "a", "b", "a")], list("abcde"))
    assert figures["top5"] is None and figures["per_class"][0]["top5"] is None


@pytest.fixture
def exported(tmp_path, video_tree, tiny_folder) -> tuple[Path, Path]:
    """A model of the classes of `video_tree`, and its OpenVINO program."""
    pytest.importorskip("openvino", reason="needs the extra export")
    model = load_model(str(tiny_folder))
    model.classifier = torch.nn.Linear(64, 2)
    model.config.id2label = {0: "jump", 1: "wave hands"}
    model.save_pretrained(tiny_folder)
    export_model(tiny_folder, tmp_path / "program", format="openvino")
    return tiny_folder, tmp_path / "program"


@pytest.mark.slow
def test_an_exported_program_is_evaluated_as_its_model(dvflnet, exported, video_tree, tmp_path):
    rows = []
    for number, model in enumerate(exported):
        options = ("--dataset", "folder", "--data_dir", video_tree, "--output", tmp_path / str(number))
        code, out, err = dvflnet("evaluate", model, *options, "--num_workers", 0, "--json")
        assert code == 0, err
        rows.append(json.loads(out))
        assert (rows[-1]["clips"], "top5" in rows[-1]) == (4, False)
    assert rows[0]["top1"] == rows[1]["top1"]
    again = (*options, "--output", tmp_path / "again", "--dtype", "bfloat16")
    refused(dvflnet("evaluate", exported[1], *again), "is exported, and runs as it is")


def test_figures_of_an_unknown_class_are_refused():
    with pytest.raises(ValueError, match="1: names the class 'x'"):
        compute_figures([prediction("1", "a", "x")], ["a"])
    with pytest.raises(ValueError, match="no predictions"):
        compute_figures([], ["a"])


# the command


def test_evaluate_counts_each_clip_once_and_writes_what_it_says(dvflnet, checkpoint, ucf101, tmp_path):
    words = ("--dataset", "ucf101", "--data-dir", ucf101, "--output", tmp_path / "out", "--num-workers", 0, "--json")
    code, out, _ = dvflnet("evaluate", checkpoint, *words, "--batch-size", 4)  # 10 clips: the last batch is uneven
    assert code == 0
    row = json.loads(out)
    out = tmp_path / "out"
    header, predictions = read_predictions(out / "predictions.jsonl")
    assert (row["clips"], row["listed"], len({one["video_id"] for one in predictions})) == (10, 10, 10)
    assert row["split"] == "ucf101, official fold 1, test"
    assert json.loads((out / "results.json").read_text()) == row
    right = sum(one["label"] == one["top5"][0][0] for one in predictions)
    assert row["top1"] == 10.0 * right
    assert 0 < right < 10  # a figure that an error would change
    with open(out / "per_class.csv", newline="") as file:
        assert sum(int(one["clips"]) for one in csv.DictReader(file)) == 10
    with open(out / "confusion.csv", newline="") as file:
        table = list(csv.reader(file))
    assert np.array(table[1:])[:, 1:].astype(int).trace() == right
    assert len(header["classes"]) == 101
    assert min(PIL.Image.open(out / "confusion.png").size) > 500
    assert PIL.Image.open(out / "class_bars.png").format == "PNG"


def test_the_figures_can_be_computed_again_from_the_predictions(evaluate, dvflnet, tmp_path):
    _, first, _ = evaluate("--json")
    _, again, _ = dvflnet("evaluate", "--from-predictions", tmp_path / "out" / "predictions.jsonl", "--json")
    assert json.loads(again) == json.loads(first)


def test_the_report_has_the_figures_and_frames_and_needs_no_network(evaluate, tmp_path):
    assert evaluate("--json")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    wrong = [row for row in read_predictions(tmp_path / "out" / "predictions.jsonl")[1] if not is_right(row)]
    assert wrong and all(f"{row['video_id']}: {row['label']}" in page for row in wrong)
    assert page.count("data:image/jpeg") == 2 * len(wrong)
    assert "http" not in page and "<td>top1_interval</td>" in page


def test_a_file_without_groups_paths_and_true_scores_is_reported_as_well(dvflnet, predictions, undrawn):
    header, *rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    old = [{name: row[name] for name in ("video_id", "label", "top5")} for row in rows]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in [header, *old]))
    code, out, err = dvflnet("evaluate", "--from_predictions", predictions, "--json")
    assert code == 0, err
    assert json.loads(out)["intervals_over"] == "clips"
    assert "data:image/jpeg" not in predictions.with_name("report.html").read_text("utf-8")


def test_models_are_compared_clip_by_clip(dvflnet, predictions, undrawn, tmp_path):
    header, *rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    changed = next(row for row in rows if not is_right(row))
    changed["top5"][0][0] = changed["label"]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))
    found = json.loads(dvflnet("evaluate", "--from_predictions", predictions, "--compare", other, "--json")[1])
    assert (found["difference"], found["only_this_right"], found["only_other_right"]) == (-10, 0, 1)
    assert found["intervals_over"] == "groups" and found["difference_interval"][0] < -10
    assert changed["video_id"] in (predictions.parent / "differences.csv").read_text()
    other.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows[1:]]))
    with pytest.raises(ValueError, match="other.jsonl: is of 9 clips .*; compare models on the same clips"):
        report_predictions(predictions, tmp_path / "again", compare=other)


def is_right(row) -> bool:
    return row["top5"][0][0] == row["label"]


def test_classes_are_matched_by_name(checkpoint, ucf101, tmp_path, tiny_processor):
    # the checkpoint has DVFL-Net's order, the data the official one or the same: the answers are the same
    model = load_model(str(checkpoint))
    answers = [
        predict_clips(model, tiny_processor, load_benchmark("ucf101", ucf101, "test", label_set=order))[0]
        for order in ("ucf101", "ucf101-sorted")
    ]
    assert answers[0] == answers[1]
    model.eval()
    clips = load_benchmark("ucf101", ucf101, "test")
    with torch.no_grad():
        logits = model(**tiny_processor(clips[3]["video"]["path"], return_tensors="pt")).logits
    assert answers[0][3]["top5"][0][0] == model.config.id2label[logits.argmax().item()]


def test_scores_that_are_not_finite_are_refused(checkpoint, ucf101, tiny_processor):
    model = load_model(str(checkpoint))
    model.classifier.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="its scores are not finite"):
        predict_clips(model, tiny_processor, load_benchmark("ucf101", ucf101, "test"))


def test_clips_without_a_label_are_not_counted_as_the_last_class(checkpoint, ucf101, tiny_processor):
    clips = load_benchmark("ucf101", ucf101, "test")
    labels = [-1, *clips["label"][1:]]
    clips = clips.remove_columns("label").add_column("label", labels, feature=clips.features["label"])
    with pytest.raises(ValueError, match=f"1 of {len(labels)} clips have no label"):
        predict_clips(load_model(str(checkpoint)), tiny_processor, clips)


def test_a_model_of_other_classes_is_refused(dvflnet, tiny_folder, ucf101, tmp_path):
    result = dvflnet(
        *("evaluate", tiny_folder, "--dataset", "ucf101", "--data-dir", ucf101, "--output", tmp_path / "out")
    )
    refused(result, "the model has 6 and the data 101", "only the model has 'LABEL_0'", "ApplyEyeMakeup")


def test_twelve_views_are_repeatable_to_the_last_digit(checkpoint, ucf101, tiny_processor):
    model, clips = load_model(str(checkpoint)), load_benchmark("ucf101", ucf101, "test").select(range(3))
    first, second, single = (predict_clips(model, tiny_processor, clips, views=views)[0] for views in (12, 12, 1))
    assert first == second != single


def test_a_clip_that_cannot_be_decoded_forbids_the_figure_unless_allowed(evaluate, ucf101, tmp_path):
    root = tmp_path / "release"
    shutil.copytree(ucf101, root)
    (root / "UCF-101" / "JumpRope" / "v_JumpRope_g01_c02.avi").write_bytes(b"broken")
    code, out, err = evaluate(data_dir=root)
    assert (code, out) == (1, "")
    assert "not read: JumpRope/v_JumpRope_g01_c02" in err
    assert "1 of 10 clips of ucf101, official fold 1, test are missing" in err
    code, out, _ = evaluate("--allow-missing", data_dir=root, output="allowed")
    assert code == 0
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (shown["clips"], shown["listed"]) == ("9", "10")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_clip_that_is_not_there_forbids_the_figure_too(evaluate, ucf101, tmp_path):
    root = tmp_path / "release"
    shutil.copytree(ucf101, root)
    (root / "UCF-101" / "JumpRope" / "v_JumpRope_g01_c02.avi").unlink()
    assert "1 of 10 clips" in evaluate(data_dir=root)[2]


@pytest.mark.parametrize(
    ("trained", "warning"),
    [
        ({"benchmark": "ucf101", "protocol": "official", "fold": 1, "split": "test"}, "trained on this same split"),
        ({"benchmark": "ucf101", "protocol": "official", "fold": 2, "split": "train"}, "may share clips"),
        ({"benchmark": "ucf101", "protocol": "official", "fold": 1, "split": "train"}, None),
        ({"benchmark": "ucf50", "protocol": "logo", "fold": 1, "split": "train"}, None),
    ],
)
def test_a_checkpoint_that_knows_the_split_warns(tiny_config, ucf101, trained, warning, recwarn):
    tiny_config.training_data = trained
    facts = split_facts(load_benchmark("ucf101", ucf101, "test"))
    warn_of_training_data(VideoFocalNetForVideoClassification(tiny_config), facts)
    said = [str(one.message) for one in recwarn if "trained on" in str(one.message)]
    assert bool(said) == bool(warning)
    assert all(warning in one for one in said)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_blocked_clip_is_counted_once(evaluate, dvflnet, ucf101, tmp_path):
    root = tmp_path / "release"
    shutil.copytree(ucf101, root)
    (root / "UCF-101" / "JumpRope" / "v_JumpRope_g01_c01.avi").unlink()
    (root / "UCF-101" / "JumpRope" / "v_JumpRope_g01_c02.avi").write_bytes(b"broken")
    dvflnet("verify", "ucf101", root, "--report", tmp_path / "report.jsonl", "--num-workers", 0)
    code, _, err = evaluate("--block-list", tmp_path / "report.jsonl", data_dir=root)
    assert code == 1 and "2 of 10 clips" in err


def test_an_earlier_evaluation_is_not_overwritten(evaluate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").touch()
    refused(evaluate(), "out: already exists and is not an empty folder; choose another --output")


def test_what_evaluate_needs_is_said(dvflnet, tmp_path, checkpoint):
    refused(dvflnet("evaluate", checkpoint), "needs MODEL, --dataset and --data_dir, or --from_predictions")
    (tmp_path / "text.jsonl").write_text("hello\n")
    refused(
        dvflnet("evaluate", "--from-predictions", tmp_path / "text.jsonl"), "text.jsonl: is not a predictions file"
    )


def test_a_predictions_file_that_names_a_clip_twice_is_refused(predictions):
    predictions.write_text(predictions.read_text() + predictions.read_text().splitlines()[-1] + "\n")
    with pytest.raises(ValueError, match="contains a clip twice"):
        read_predictions(predictions)


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one_to_the_last_digit(evaluate, checkpoint, ucf101, tmp_path):
    # 9 clips that can be read, on 2 processes in batches of 2: neither number divides
    root = tmp_path / "release"
    shutil.copytree(ucf101, root)
    (root / "UCF-101" / "JumpRope" / "v_JumpRope_g01_c02.avi").write_bytes(b"broken")
    _, alone, _ = evaluate("--batch-size", 2, "--allow-missing", "--json", data_dir=root, output="one")
    launcher = (*LAUNCH, "--multi_gpu", "--num_processes", 2, "--main_process_port", 0, "--num_machines", 1)
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", *DVFLNET[1:])
    words = ("evaluate", checkpoint, "--dataset", "ucf101", "--data-dir", root, "--output", tmp_path / "two", "--json")
    words += ("--batch-size", 2, "--allow-missing")
    said = finished(start(*launcher, *words, ACCELERATE_USE_CPU="true"))
    rows = [json.loads(text) for text in (alone, said.splitlines()[-1])]
    assert {**rows[0], "command": None} == {**rows[1], "command": None}
    one, two = (read_predictions(tmp_path / name / "predictions.jsonl")[1] for name in ("one", "two"))
    assert one == two
    assert len(one) == 9
