import http.server
import threading

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

from hf_dvflnet import VideoFocalNetForVideoClassification, VideoFocalNetImageProcessor, read_video
from hf_dvflnet.clip_sampling import frame_times, paced_indices


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
    cells = {"path": str(path), "bytes": None}, {"path": "vp9.webm", "bytes": path.read_bytes()}
    for video in (path, path.read_bytes(), frames, torch.from_numpy(frames).permute(0, 3, 1, 2), *cells):
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


@pytest.mark.parametrize("num_frames", [None, 2, 8])
def test_num_frames_of_the_pipeline_rules_and_is_that_of_the_model_by_default(classifier, video_files, num_frames):
    path = str(video_files["xvid.avi"])
    classifier.video_processor.num_frames = 16
    clip = classifier.video_processor(path, num_frames=num_frames or 4, return_tensors="pt")
    with torch.no_grad():
        expected = classifier.model(**clip).logits[0].softmax(-1).max().item()
    assert clip["pixel_values"].shape[1] == (num_frames or 4)
    options = {} if num_frames is None else {"num_frames": num_frames}
    assert classifier(path, top_k=1, **options)[0]["score"] == pytest.approx(expected, abs=1e-6)


def test_a_pipeline_samples_at_the_rate_of_its_processor(tiny_folder, video_files):
    classifier = pipeline("video-classification", model=str(tiny_folder), device="cpu")
    classifier.video_processor.fps = 10
    frames, metadata = read_video(video_files["xvid.avi"])
    indices = paced_indices(frame_times(metadata), num_frames=4, fps=10)
    assert classifier(str(video_files["xvid.avi"])) == classifier(frames[indices])


@pytest.mark.parametrize("num_frames", [4, 16])
def test_an_image_processor_beside_the_model_gives_a_pipeline_of_the_models_num_frames(
    tiny_config, tiny_processor, tmp_path, video_files, num_frames
):
    """What the video classification guide of transformers leaves in a folder: a model and an image processor."""
    tiny_config.num_frames = num_frames
    VideoFocalNetForVideoClassification(tiny_config).save_pretrained(tmp_path)
    VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size).save_pretrained(tmp_path)
    classifier = pipeline("video-classification", model=str(tmp_path), device="cpu")
    assert classifier.video_processor.num_frames == num_frames
    tiny_processor.num_frames = num_frames
    with torch.no_grad():
        expected = classifier.model(**tiny_processor(str(video_files["vp9.webm"]), return_tensors="pt")).logits[0]
    assert classifier(str(video_files["vp9.webm"]))[0]["score"] == pytest.approx(expected.softmax(-1).max().item())
