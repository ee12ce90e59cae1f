import pytest
import torch

from hf_dvflnet import VideoDecodeError, load_model, load_processor, predict_videos


@pytest.fixture
def model_and_processor(tiny_folder):
    return load_model(str(tiny_folder)), load_processor(str(tiny_folder))


def test_videos_are_answered_in_order_and_one_that_cannot_be_read_is_named(model_and_processor, video_files, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    videos = [video_files["vp9.webm"], broken, video_files["xvid.avi"], video_files["h264.mkv"]]
    rows = list(predict_videos(*model_and_processor, videos, top_k=2, batch_size=2))
    errors = {row["video"]: row["error"] for row in rows if "error" in row}
    assert list(errors) == [broken] and isinstance(errors[broken], VideoDecodeError)
    answered = [row for row in rows if "answers" in row]
    assert [row["video"] for row in answered] == [videos[0], *videos[2:]]
    assert all(len(row["answers"]) == 2 and row["views"] == 1 for row in answered)


@pytest.mark.parametrize("views, shape", [(1, {}), (12, {"num_clips": 4, "num_crops": 3})])
def test_an_answer_is_that_of_processor_and_model(model_and_processor, video_files, views, shape):
    model, processor = model_and_processor
    (row,) = predict_videos(model, processor, [video_files["vp9.webm"]], views=views, num_workers=0)
    with torch.no_grad():
        scores = model(**processor(str(video_files["vp9.webm"]), return_tensors="pt", **shape)).logits[0].softmax(-1)
    expected = {model.config.id2label[index]: score for index, score in enumerate(scores.tolist())}
    assert {answer["label"]: pytest.approx(answer["score"], abs=1e-6) for answer in row["answers"]} == {
        answer["label"]: expected[answer["label"]] for answer in row["answers"]
    }


@pytest.mark.parametrize("options, reason", [({"views": 3}, "views must be 1 or 12"), ({"top_k": 0}, "top_k must be")])
def test_numbers_out_of_range_are_refused(model_and_processor, options, reason):
    with pytest.raises(ValueError, match=reason):
        list(predict_videos(*model_and_processor, [], **options))
