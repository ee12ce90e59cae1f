import json

import pytest
import torch
from transformers import pipeline
from videos import write_video

from hf_dvflnet import (
    VideoDecodeError,
    VideoFocalNetForVideoClassification,
    VideoStreamClassifier,
    load_model,
    load_processor,
    load_video_folder,
    predict_videos,
    read_video,
)
from hf_dvflnet.inference.demo_page import classify_clip
from hf_dvflnet.inference.evaluation import predict_clips
from hf_dvflnet.inference.pipeline import score_text
from hf_dvflnet.video_decoding import VideoWarning


@pytest.fixture
def model_and_processor(tiny_folder):
    return load_model(str(tiny_folder)), load_processor(str(tiny_folder))


@pytest.mark.parametrize("num_workers, batch_size", [(0, 1), (0, 2), (3, 1), (2, 4)])
def test_videos_are_answered_in_order_and_one_that_cannot_be_read_is_named(
    model_and_processor, video_files, tmp_path, num_workers, batch_size
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    videos = [video_files["vp9.webm"], broken, video_files["xvid.avi"], video_files["h264.mkv"]]
    rows = list(predict_videos(*model_and_processor, videos, top_k=2, batch_size=batch_size, num_workers=num_workers))
    errors = {row["video"]: row["error"] for row in rows if "error" in row}
    assert list(errors) == [broken] and isinstance(errors[broken], VideoDecodeError)
    answered = [row for row in rows if "answers" in row]
    assert [row["video"] for row in answered] == [videos[0], *videos[2:]]
    assert all(len(row["answers"]) == 2 and row["views"] == 1 for row in answered)


VIEWS = [(1, {}), (4, {"num_clips": 4}), (12, {"num_clips": 4, "num_crops": 3})]


@pytest.mark.parametrize("views, shape", VIEWS)
def test_an_answer_is_that_of_processor_and_model(model_and_processor, video_files, views, shape):
    model, processor = model_and_processor
    (row,) = predict_videos(model, processor, [video_files["vp9.webm"]], views=views, num_workers=0)
    with torch.no_grad():
        scores = model(**processor(str(video_files["vp9.webm"]), return_tensors="pt", **shape)).logits[0].softmax(-1)
    expected = {model.config.id2label[index]: score for index, score in enumerate(scores.tolist())}
    assert {answer["label"]: pytest.approx(answer["score"], abs=1e-6) for answer in row["answers"]} == {
        answer["label"]: expected[answer["label"]] for answer in row["answers"]
    }


@pytest.mark.parametrize(
    "options, reason", [({"views": 3}, "views must be 1, 4 .* or 12"), ({"top_k": 0}, "top_k must be")]
)
def test_numbers_out_of_range_are_refused(model_and_processor, options, reason):
    with pytest.raises(ValueError, match=reason):
        list(predict_videos(*model_and_processor, [], **options))


@pytest.mark.parametrize("views", [1, 4, 12])
@pytest.mark.parametrize("augment", [True, False, None])
def test_crops_that_training_did_not_show_are_warned_of(model_and_processor, recwarn, views, augment):
    model, processor = model_and_processor
    if augment is not None:
        model.config.training_data = {"benchmark": "ucf101", "augment": augment}
    list(predict_videos(model, processor, [], views=views))
    said = ["was trained without random crops" in str(warning.message) for warning in recwarn]
    assert said == [True] * (views == 12 and augment is False)


def cut_video(path):
    """A video of which half of the bytes are there, which reading warns of."""
    write_video(path, "mpeg4", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_warning_of_a_video_is_in_its_row_on_the_terminal_and_on_the_page(dvflnet, tiny_folder, tmp_path):
    model, processor = load_model(str(tiny_folder)), load_processor(str(tiny_folder))
    cut = cut_video(tmp_path / "cut.avi")
    with pytest.warns(VideoWarning, match="is truncated"):
        (row,) = predict_videos(model, processor, [cut])
    assert "is truncated" in row["warning"]
    code, out, err = dvflnet("predict", tiny_folder, cut, "--json")
    assert code == 0 and json.loads(out)["warning"] == row["warning"]
    assert err == f"dvflnet: {row['warning']}\n"
    assert dvflnet("predict", tiny_folder, cut, "--output", tmp_path / "rows.jsonl")[0] == 0
    assert json.loads((tmp_path / "rows.jsonl").read_text())["warning"] == row["warning"]
    assert classify_clip(model, processor, cut).notes == [row["warning"].replace(str(cut), "cut.avi")]


# scores


PROBLEM_TYPES = [None, "single_label_classification", "multi_label_classification", "regression"]


def of_problem_type(folder, problem_type):
    """The model, its processor, and the pipeline's answer to a video: a score for each class."""
    model = load_model(str(folder))
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.config.problem_type = problem_type
    model.save_pretrained(folder)
    classifier = pipeline("video-classification", model=str(folder), device="cpu", top_k=6)
    return model, load_processor(str(folder)), lambda video: {a["label"]: a["score"] for a in classifier(str(video))}


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_every_answer_has_the_scores_of_the_pipeline(tiny_folder, video_files, problem_type, dvflnet):
    model, processor, ask = of_problem_type(tiny_folder, problem_type)
    video = video_files["h264_short_gop.mp4"]
    frames = len(read_video(video)[0])
    expected = ask(video)
    total = {"single_label_classification": 1, None: 1}.get(problem_type, sum(expected.values()))
    assert sum(expected.values()) == pytest.approx(total)
    (row,) = predict_videos(model, processor, [video], top_k=6)
    (streamed,) = VideoStreamClassifier(model, processor, window=frames, stride=frames, top_k=6).run(video)
    found = {
        "predict": {answer["label"]: answer["score"] for answer in row["answers"]},
        "stream": dict(streamed.top),
        "page": dict(classify_clip(model, processor, video, top_k=6).scores),
    }
    for name, scores in found.items():
        assert scores == pytest.approx(expected, abs=1e-5), name
    best = max(expected, key=expected.get)
    shown = f"{expected[best]:.4g}" if problem_type == "regression" else f"{expected[best]:.1%}"
    assert f"{shown}  {best}" in dvflnet("predict", tiny_folder, video)[1]


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_the_score_of_several_views_is_the_mean_of_theirs(tiny_folder, video_files, problem_type):
    model, processor, _ = of_problem_type(tiny_folder, problem_type)
    video = video_files["h264_short_gop.mp4"]
    views = processor(video, num_clips=4, num_crops=3, return_tensors="pt")["pixel_values"][0]
    with torch.no_grad():
        logits = model(views).logits
    score = {"regression": lambda x: x, "multi_label_classification": torch.sigmoid}.get(
        problem_type, lambda x: x.softmax(-1)
    )
    (row,) = predict_videos(model, processor, [video], views=12, top_k=6)
    expected = {model.config.id2label[index]: value for index, value in enumerate(score(logits).mean(0).tolist())}
    assert {answer["label"]: answer["score"] for answer in row["answers"]} == pytest.approx(expected, abs=1e-5)


def test_an_evaluation_has_the_scores_of_the_pipeline(tiny_folder, video_tree):
    rows = load_video_folder(video_tree)["test"]
    for problem_type in PROBLEM_TYPES[:3]:
        model, processor, _ = of_problem_type(tiny_folder, problem_type)
        model.config.id2label = dict(enumerate(["jump", "wave hands"]))
        model.classifier = torch.nn.Linear(64, 2)
        torch.nn.init.normal_(model.classifier.weight, std=1.0)
        model.save_pretrained(tiny_folder)
        classifier = pipeline("video-classification", model=str(tiny_folder), device="cpu")
        predictions, _ = predict_clips(model, processor, rows)
        for row, prediction in zip(rows, predictions, strict=True):
            answers = {answer["label"]: answer["score"] for answer in classifier(row["video"]["path"])}
            assert dict(prediction["top5"]) == pytest.approx(answers, abs=1e-5)


def test_figures_of_classes_are_not_given_of_values(tiny_folder, video_tree):
    rows = load_video_folder(video_tree)["test"]
    model = load_model(str(tiny_folder))
    model.config.id2label = dict(enumerate(["jump", "wave hands"]))
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="problem_type is regression"):
        predict_clips(model, load_processor(str(tiny_folder)), rows)


def test_a_model_of_one_output_answers_with_its_value(tiny_config, tiny_processor, video_files):
    tiny_config.id2label = {0: "speed"}
    model = VideoFocalNetForVideoClassification(tiny_config).eval()
    with torch.no_grad():
        value = model(**tiny_processor(video_files["h264.mkv"], return_tensors="pt")).logits.item()
    (row,) = predict_videos(model, tiny_processor, [video_files["h264.mkv"]])
    assert row["answers"] == [{"label": "speed", "score": pytest.approx(value)}]
    assert score_text(value, model.config) == f"{value:.4g}"
