import http.server
import threading
import warnings

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetVideoProcessor, read_video


@pytest.fixture
def classifier(tiny_folder):
    return pipeline("video-classification", model=str(tiny_folder), device="cpu")


def by_hand(folder, video) -> torch.Tensor:
    processor = AutoVideoProcessor.from_pretrained(folder)
    model = AutoModelForVideoClassification.from_pretrained(folder)
    with torch.no_grad():
        return model(**processor(video, return_tensors="pt")).logits


def test_scores_equal_those_of_processor_and_model_called_by_hand(classifier, tiny_folder, video_files):
    path = video_files["h264_b_frames.mp4"]
    expected = by_hand(tiny_folder, path)[0].tolist()
    answers = classifier(str(path), top_k=6, function_to_apply="none")
    names = classifier.model.config.id2label
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(
        {names[index]: logit for index, logit in enumerate(expected)}, abs=1e-6
    )


def test_every_kind_of_input_gets_the_same_answer(classifier, video_files):
    path = video_files["vp9.webm"]
    frames, _ = read_video(path)
    expected = classifier(str(path), top_k=1)
    assert len(expected) == 1
    for video in (path, path.read_bytes(), frames, torch.from_numpy(frames).permute(0, 3, 1, 2)):
        assert classifier(video, top_k=1)[0]["score"] == pytest.approx(expected[0]["score"], abs=1e-6)


def test_a_clip_that_was_sampled_already_is_not_sampled_again(classifier, video_files):
    frames, _ = read_video(video_files["vp9.webm"], [3, 11, 20, 31])
    clip = classifier.video_processor(frames, do_sample_frames=False, return_tensors="pt")
    with torch.no_grad():
        scores = classifier.model(**clip).logits[0].softmax(-1)
    expected = {classifier.model.config.id2label[number]: score for number, score in enumerate(scores.tolist())}
    for video in (frames, torch.from_numpy(frames)):
        answers = classifier(video, top_k=6)
        assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(expected, abs=1e-6)


def test_a_cell_of_a_video_column_is_classified(classifier, video_files):
    path = video_files["vp9.webm"]
    for cell in ({"path": str(path), "bytes": None}, {"path": "vp9.webm", "bytes": path.read_bytes()}):
        assert classifier(cell) == classifier(str(path))


def test_a_url_gets_the_answer_of_the_file(classifier, video_files):
    path = video_files["vp9.webm"]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=path.parent)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert classifier(f"http://127.0.0.1:{server.server_port}/vp9.webm") == classifier(str(path))
        server.shutdown()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_list_of_paths_gets_a_list_of_answers(classifier, video_files, batch_size):
    paths = [str(video_files[name]) for name in ("vp9.webm", "xvid.avi", "h264_rotated.mp4")]
    answers = classifier(paths, top_k=2, batch_size=batch_size)
    assert [len(answer) for answer in answers] == [2, 2, 2]
    for path, answer in zip(paths, answers, strict=True):
        assert answer[0]["score"] == pytest.approx(classifier(path)[0]["score"], abs=1e-6)


def test_a_prediction_gives_no_warning(tiny_folder, video_files, caplog):
    logging.enable_propagation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipeline("video-classification", model=str(tiny_folder), device="cpu")(str(video_files["xvid.avi"]))
    finally:
        logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_a_processor_of_another_num_frames_is_refused(tiny_folder, video_files):
    other = VideoFocalNetVideoProcessor(num_frames=16)
    classifier = pipeline("video-classification", model=str(tiny_folder), video_processor=other, device="cpu")
    with pytest.raises(ValueError, match="the model takes 4 frames, but its processor samples 16"):
        classifier(str(video_files["xvid.avi"]))


def test_the_image_processor_is_never_what_decodes(classifier):
    assert isinstance(classifier.video_processor, VideoFocalNetVideoProcessor)
    assert np.allclose(classifier.video_processor.image_mean, [0.485, 0.456, 0.406])
