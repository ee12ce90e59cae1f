import functools
import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from videos import numbered_frame, write_video

from hf_dvflnet import (
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    VideoStreamClassifier,
    read_video,
)
from hf_dvflnet.clip_sampling import evaluation_indices
from hf_dvflnet.data.jobs import run_ahead
from hf_dvflnet.inference.live_sources import open_stream


@pytest.fixture
def tiny_model(tiny_config) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(tiny_config).eval()


class SlowModel(torch.nn.Module):
    """A classifier that takes a while over each clip."""

    def __init__(self, model: VideoFocalNetForVideoClassification, seconds: float):
        super().__init__()
        self.model, self.seconds = model, seconds
        self.config, self.device, self.dtype = model.config, model.device, model.dtype

    def forward(self, pixel_values: torch.Tensor):
        time.sleep(self.seconds)
        return self.model(pixel_values)


def frames_of(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    return [numbered_frame(number, width, height) for number in range(count)]


def scores_by_hand(model, processor, frames) -> dict[str, float]:
    """What processor and model give for the frames of a window."""
    with torch.no_grad():
        scores = model(**processor(list(frames), return_tensors="pt")).logits[0].softmax(-1)
    return {model.config.id2label[index]: score for index, score in enumerate(scores.tolist())}


def same(answers, expected: dict[str, float]):
    assert dict(answers) == pytest.approx(expected, abs=1e-6)


# feeding frames


@pytest.mark.parametrize("window, stride", [(10, 3), (4, 1), (6, 9), (3, 2)])
def test_answers_come_every_stride_and_equal_processor_and_model(tiny_model, tiny_processor, window, stride):
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=window, stride=stride, top_k=6)
    frames = frames_of(31)
    answered = []
    for number, frame in enumerate(frames):
        answer = classifier.feed(frame, number / 10)
        if answer is not None:
            answered.append(number)
            assert answer.time == number / 10
            assert answer.latency > 0
            same(answer.top, scores_by_hand(tiny_model, tiny_processor, frames[number - window + 1 : number + 1]))
            assert (answer.label, answer.score) == answer.top[0]
    assert answered == list(range(window - 1, 31, stride))
    assert (classifier.frames, classifier.answers, classifier.dropped, classifier.skipped) == (31, len(answered), 0, 0)


def test_a_frame_is_made_small_once_and_only_if_it_is_shown(tiny_model, tiny_processor, monkeypatch):
    resized = []
    resize = VideoFocalNetVideoProcessor.resize
    monkeypatch.setattr(
        VideoFocalNetVideoProcessor, "resize", lambda *args, **kw: resized.append(len(args[1])) or resize(*args, **kw)
    )
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=16, stride=8)
    for frame in frames_of(64):
        classifier.feed(frame)
    # 13 / 4 frames apart, starting in the middle of the first: 1, 4, 8 and 11 of each window, two of eight behind
    # each start being shared by two windows
    assert evaluation_indices(16, num_frames=4).tolist() == [1, 4, 8, 11]
    assert resized == [1] * (4 * 64 // 8)


def test_smoothing_averages_the_softmax_exponentially(tiny_model, tiny_processor):
    options = {"window": 4, "stride": 4, "top_k": 6}
    plain = VideoStreamClassifier(tiny_model, tiny_processor, **options)
    smooth = VideoStreamClassifier(tiny_model, tiny_processor, smoothing=0.75, **options)
    average = None
    for frame in frames_of(16):
        now, answer = plain.feed(frame), smooth.feed(frame)
        if now is not None:
            scores = dict(now.top)
            average = average or scores
            average = {name: 0.75 * average[name] + 0.25 * scores[name] for name in scores}
            same(answer.top, average)
    assert average != scores


def test_a_score_below_the_threshold_has_no_label(tiny_model, tiny_processor):
    first = VideoStreamClassifier(tiny_model, tiny_processor, window=1)
    score = first.feed(frames_of(1)[0]).score
    for threshold, label in ((score - 1e-3, True), (score + 1e-3, False)):
        classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=1, threshold=threshold)
        answer = classifier.feed(frames_of(1)[0])
        assert (answer.label is not None) == label
        assert answer.score == score and len(answer.top) == 5


def test_frames_may_change_size_midway_where_the_processor_crops(tiny_model, tiny_processor):
    frames = frames_of(2) + frames_of(2, 96, 96)
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=4)
    answers = [classifier.feed(frame) for frame in frames]
    assert answers[-1] is not None
    whole = VideoFocalNetVideoProcessor(num_frames=4, do_resize=False, do_center_crop=False)
    classifier = VideoStreamClassifier(tiny_model, whole, window=4, stride=1)
    with pytest.raises(ValueError, match=r"frame 2 has shape \(3, 96, 96\) .* before it have \(3, 48, 64\)"):
        for frame in frames:
            classifier.feed(frame)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"smoothing": 1.0}, "smoothing must be at least 0 and less than 1, got 1.0"),
        ({"threshold": 50}, r"threshold must lie in \[0, 1\], got 50"),
        ({"window": 8, "stride_seconds": 1.0}, "both in frames .* or both in seconds"),
        ({"window_seconds": 1.0}, "both in frames .* or both in seconds"),
        ({"window_seconds": float("nan"), "stride_seconds": 1}, "longer than 0 s and finite"),
    ],
)
def test_settings_out_of_range_are_refused(tiny_model, tiny_processor, options, reason):
    with pytest.raises(ValueError, match=reason):
        VideoStreamClassifier(tiny_model, tiny_processor, **options)


@pytest.mark.parametrize(
    "options, pace, reason",
    [
        ({"window": 8}, 5.0, "a causal model has no window"),
        ({"window_seconds": 1, "stride_seconds": 1}, 5.0, "a causal model has no window"),
        ({}, None, "its processor has no fps"),
    ],
)
def test_settings_that_do_not_suit_a_causal_model_are_refused(causal_model, tiny_processor, options, pace, reason):
    tiny_processor.fps = pace
    with pytest.raises(ValueError, match=reason):
        VideoStreamClassifier(causal_model, tiny_processor, **options)


@pytest.mark.parametrize(
    "timestamps, reason",
    [
        ([0.0, None], "needs a finite timestamp for each frame, got None"),
        ([0.0, float("nan")], "needs a finite timestamp for each frame, got nan"),
        ([0.5, 0.25], "must not go backwards, got 0.25 after 0.5"),
    ],
)
def test_a_frame_without_a_time_is_refused_where_seconds_count(
    tiny_model, causal_model, paced_processor, timestamps, reason
):
    in_seconds = VideoStreamClassifier(tiny_model, paced_processor, window_seconds=1, stride_seconds=1)
    for classifier in (in_seconds, VideoStreamClassifier(causal_model, paced_processor)):
        classifier.feed(frames_of(1)[0], timestamps[0])
        with pytest.raises(ValueError, match=reason):
            classifier.feed(frames_of(1)[0], timestamps[1])


@pytest.mark.parametrize("rate", [25, 29.97])
@pytest.mark.parametrize("window, stride", [(10, 3), (6, 9)])
def test_seconds_of_a_constant_rate_equal_frames(tiny_model, tiny_processor, rate, window, stride):
    in_frames = VideoStreamClassifier(tiny_model, tiny_processor, window=window, stride=stride, top_k=6)
    in_seconds = VideoStreamClassifier(
        tiny_model, tiny_processor, window_seconds=window / rate, stride_seconds=stride / rate, top_k=6
    )
    for number, frame in enumerate(frames_of(40)):
        expected, answer = (classifier.feed(frame, 7 + number / rate) for classifier in (in_frames, in_seconds))
        assert (answer is None) == (expected is None), number
        if answer is not None:
            assert answer.time == expected.time
            same(answer.top, dict(expected.top))
    assert (in_seconds.answers, in_seconds.dropped, in_seconds.skipped) == (in_frames.answers, 0, 0)


def test_times_that_jitter_do_not_delay_an_answer(tiny_model, tiny_processor):
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window_seconds=1, stride_seconds=0.5)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 120)
    frames = frames_of(8)
    answered = [
        number
        for number, late in enumerate(jitter)
        if classifier.feed(frames[number % 8], number / 30 + (late if number else 0))
    ]
    assert answered == list(range(29, 120, 15))


def test_after_a_gap_a_fed_frame_gives_the_newest_window(tiny_model, tiny_processor):
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window_seconds=1, stride_seconds=0.5, top_k=6)
    frames = frames_of(12)
    times = [*(number / 10 for number in range(10)), 4.2, 4.3]
    answers = [classifier.feed(frame, second) for frame, second in zip(frames, times, strict=True)]
    assert [index for index, answer in enumerate(answers) if answer] == [9, 10]
    # the windows that end at 1.5, 2, ... 4 s; the last of them shows nothing but the frame at 0.9 s
    assert (answers[10].time, answers[10].skipped) == (0.9, 5)
    same(answers[10].top, scores_by_hand(tiny_model, tiny_processor, frames[9:10]))


def test_what_is_no_frame_is_refused(tiny_model, tiny_processor):
    classifier = VideoStreamClassifier(tiny_model, tiny_processor)
    for frame, found in (
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        ("a.png", "str"),
    ):
        with pytest.raises(ValueError, match=rf"uint8 array of shape \(height, width, 3\), RGB, but it is .*{found}"):
            classifier.feed(frame)


def test_memory_is_flat_over_ten_thousand_frames(tiny_model, tiny_processor):
    class Fixed(torch.nn.Module):  # how long the model takes is not what is asked about
        config, device, dtype = tiny_model.config, tiny_model.device, tiny_model.dtype

        def forward(self, pixel_values):
            return (torch.zeros(len(pixel_values), 6),)

    classifier = VideoStreamClassifier(
        Fixed(), tiny_processor, window_seconds=1.0, stride_seconds=25 / 30, smoothing=0.5
    )
    frames = frames_of(8)
    blocks = {}
    for number in range(1, 10_001):
        classifier.feed(frames[number % 8].copy(), number / 30)
        if number in (1_000, 10_000):
            gc.collect()
            blocks[number] = sys.getallocatedblocks()
    assert classifier.answers == 399
    assert sum(small is not None for small in classifier._window.frames) <= 30
    assert blocks[10_000] - blocks[1_000] < 900


# sources


def test_a_file_is_answered_whole_and_as_by_hand(tiny_model, tiny_processor, video_files):
    path = video_files["h264_late_start.mp4"]
    frames, _ = read_video(path)
    classifier = VideoStreamClassifier(SlowModel(tiny_model, 0.01), tiny_processor, window=16, stride=8, top_k=6)
    answers = list(classifier.run(path))
    # a window ends at 16, 24, 32 and 40 frames of 25 a second
    assert [answer.time for answer in answers] == pytest.approx([0.6, 0.92, 1.24, 1.56])
    for end, answer in zip((16, 24, 32, 40), answers, strict=True):
        same(answer.top, scores_by_hand(tiny_model, tiny_processor, frames[end - 16 : end]))
    assert (classifier.frames, classifier.dropped, classifier.skipped) == (40, 0, 0)
    assert len(list(classifier.run(path))) == 4  # from the start again


def test_a_slow_model_drops_frames_and_does_not_fall_behind(tiny_model, tiny_processor, tmp_path):
    path = write_video(tmp_path / "paced.mp4", num_frames=100, width=64, height=48, rate=50)
    # a window lasts 0.16 s, a stride 0.08 s, an answer 0.4 s
    classifier = VideoStreamClassifier(SlowModel(tiny_model, 0.4), tiny_processor, window=8, stride=4, top_k=6)
    frames, _ = read_video(path)
    answers = list(classifier.run(path, realtime=True))
    print([round(answer.latency, 2) for answer in answers], classifier.dropped, classifier.skipped)
    assert classifier.frames == 100
    assert 3 <= len(answers) <= 6  # 2 s of video, which hold 24 strides
    # a forward pass and at most a stride, and room for a busy machine; a queue of 24 answers would end 7.6 s late
    assert max(answer.latency for answer in answers) < 1.5
    assert classifier.dropped == answers[-1].dropped > 20
    assert classifier.skipped + len(answers) == (100 - 8) // 4 + 1
    for answer in answers:  # what is answered is a window without gaps
        end = round(answer.time * 50) + 1
        same(answer.top, scores_by_hand(tiny_model, tiny_processor, frames[end - 8 : end]))


@pytest.fixture(params=["mp4", "mkv"])
def varied(request, tmp_path) -> tuple[Path, list[float]]:
    """A recording of 6 s at 30 frames a second, then 2.5, which is a still screen, then 30; and its frames' times."""
    ticks = np.cumsum([0] + [1] * 45 + [12] * 10 + [1] * 44).tolist()
    path = tmp_path / f"varied.{request.param}"
    write_video(path, num_frames=len(ticks), width=64, height=48, rate=30, timestamps=ticks)
    return path, [tick / 30 for tick in ticks]


def shown_between(times: list[float], start: float, end: float) -> list[int]:
    """The frames on the screen from start to end; cuts that fall on a frame may be off by the clock's milliseconds."""
    until = [*times[1:], float("inf")]
    return [i for i, time in enumerate(times) if time < end - 0.002 and until[i] > start + 0.002]


def test_strides_of_a_file_whose_rate_varies_last_their_seconds(tiny_model, tiny_processor, varied):
    path, times = varied
    frames, _ = read_video(path)
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window_seconds=1, stride_seconds=0.7, top_k=6)
    answers = list(classifier.run(path))
    ends = [1 + 0.7 * number for number in range(len(answers))]
    assert len(answers) == 9  # the last ends at 6.6 of 6.97 s
    assert (classifier.frames, classifier.dropped, classifier.skipped) == (len(times), 0, 0)
    for end, answer in zip(ends, answers, strict=True):
        shown = shown_between(times, end - 1, end)
        assert answer.time == pytest.approx(times[shown[-1]], abs=0.002)
        same(answer.top, scores_by_hand(tiny_model, tiny_processor, frames[shown]))


def test_after_a_gap_a_live_source_is_answered_once(tiny_model, tiny_processor, video_files):
    times = [*(number / 10 for number in range(10)), 4.0]
    with open_stream(video_files["h264.mkv"]) as stream:
        frames = [frame for frame, _ in islice(stream.frames, 11)]

        def shown():
            yield from zip(frames[:10], times, strict=False)
            answered.wait(5)
            yield frames[10], times[10]

        answered, found = threading.Event(), []
        live = type(stream)("camera", 10.0, True, shown())
        classifier = VideoStreamClassifier(tiny_model, tiny_processor, window_seconds=1, stride_seconds=0.5)
        for answer in classifier.run(live):
            found.append((answer.time, answer.skipped, answer.dropped))
            answered.set()
    assert found == [(0.9, 0, 0), (0.9, 5, 0)]  # of the windows that end at 1.5, 2, ... 4 s the last


def test_a_clock_that_starts_anew_goes_on_where_it_stopped(tiny_model, tiny_processor, video_files):
    with open_stream(video_files["h264.mkv"]) as stream:
        shown = list(islice(stream.frames, 20))
        twice = type(stream)("joined", 25.0, False, iter(shown * 2))
        classifier = VideoStreamClassifier(tiny_model, tiny_processor, window_seconds=0.4, stride_seconds=0.4)
        times = [answer.time for answer in classifier.run(twice)]
    assert times == pytest.approx([0.36, 0.76, 1.16], abs=0.002)  # 40 frames, of which two come at 0.76 s


def test_calls_ahead_keep_their_order_and_run_before_they_are_asked_for():
    started = threading.Event()

    def call(number: int) -> int:
        time.sleep(0.02 * (3 - number % 3))
        if number == 2:
            started.set()
        if number == 4:
            raise ValueError("four")
        return number

    results = run_ahead((functools.partial(call, number) for number in range(9)), 3)
    assert next(results)() == 0
    assert started.wait(1)
    found = []
    for get in results:
        try:
            found.append(get())
        except ValueError as error:
            found.append(str(error))
    assert found == [1, 2, 3, "four", 5, 6, 7, 8]


# the command line


# what stdout holds back until the process ends, as it does a short table
PRINTS = "import dvflnet_cli; dvflnet_cli.run = lambda words: print('a row'); dvflnet_cli.main()"


def test_python_says_nothing_at_its_end_of_what_nobody_read():
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", PRINTS], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_named():
    with open("/dev/full", "w") as disk:
        process = subprocess.run([sys.executable, "-c", PRINTS], stdout=disk, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (1, "dvflnet: [Errno 28] No space left on device\n")


def test_watch_prints_a_line_per_answer_and_a_summary(dvflnet, tiny_folder, video_files):
    command = ("watch", tiny_folder, video_files["h264_long_gop.mp4"], "--window", 1, "--stride", 10)
    code, out, _ = dvflnet(*command)
    lines = out.splitlines()
    assert code == 0
    assert len([line for line in lines if " s " in line]) == 4  # 60 frames, 25 a second: after 25, 35, 45 and 55
    assert lines[0].split()[:2] == ["0.96", "s"]
    assert dict(line.split() for line in lines[4:]).items() >= {"frames": "60", "answers": "4", "dropped": "0"}.items()
    rows = [json.loads(line) for line in dvflnet(*command, "--json", "--threshold", 1)[1].splitlines()]
    assert [row["label"] for row in rows[:-1]] == [None] * 4
    assert {"frames", "answers", "dropped", "skipped", "latency_median", "latency_p95"} == set(rows[-1])


def times_watched(dvflnet, *arguments) -> list[float]:
    lines = [json.loads(line) for line in dvflnet("watch", *arguments, "--json")[1].splitlines()]
    return [line["time"] for line in lines[:-1]]


def test_watch_answers_every_half_second_or_counts_frames_where_it_is_told_their_rate(dvflnet, tiny_folder, varied):
    path, times = varied
    ends = [1 + 0.5 * number for number in range(13)]
    expected = [times[shown_between(times, end - 1, end)[-1]] for end in ends]
    assert times_watched(dvflnet, tiny_folder, path, "--window", 1) == pytest.approx(expected, abs=0.002)
    counted = times_watched(dvflnet, tiny_folder, path, "--window", 1, "--fps", 20)
    assert counted == pytest.approx(times[19::10], abs=0.002)


@pytest.mark.parametrize("options, reason", [((), None), (("--stride", 5), "states no frame rate.*pass --fps")])
def test_watch_needs_a_rate_only_for_a_stride_in_frames(
    dvflnet, tiny_folder, video_files, monkeypatch, options, reason
):
    @contextmanager
    def without_rate(source, **options):
        with open_stream(source, **options) as stream:
            stream.fps = None
            yield stream

    monkeypatch.setattr("hf_dvflnet.inference.live_sources.open_stream", without_rate)
    code, out, err = dvflnet("watch", tiny_folder, video_files["h264.mkv"], "--window", 1, *options)
    assert code == (1 if reason else 0)
    assert re.search(reason, err) if reason else re.search(r"^answers +2$", out, flags=re.MULTILINE)


def test_watch_ends_with_its_summary_when_interrupted(dvflnet, tiny_folder, video_files, monkeypatch):
    def interrupted(self, due, answer=VideoStreamClassifier._answer):
        if self.answers == 2:
            raise KeyboardInterrupt
        return answer(self, due)

    monkeypatch.setattr(VideoStreamClassifier, "_answer", interrupted)
    for realtime in ((), ("--realtime",)):
        path = video_files["h264_long_gop.mp4"]
        code, out, err = dvflnet("watch", tiny_folder, path, "--window", 0.4, "--stride", 5, *realtime)
        assert (code, err) == (0, "")
        assert re.search(r"^answers +2$", out, flags=re.MULTILINE)


def test_watch_refuses_in_one_line_what_it_cannot_open_or_answer(dvflnet, tiny_folder, video_files, tmp_path):
    for source, reason in ((tmp_path / "none.mp4", "none.mp4"), ("ftp://host/a", "only rtsp")):
        code, out, err = dvflnet("watch", tiny_folder, source)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert reason in err
    code, out, err = dvflnet("watch", tiny_folder, video_files["h264_long_gop.mp4"], "--window", 100)
    assert code == 1 and "answers" in out and "ended before a window of 100 s was full" in err


def test_benchmark_times_each_stage_and_names_the_slowest(dvflnet, tiny_folder, video_files):
    videos = [video_files[name] for name in ("vp9.webm", "h264_long_gop.mp4", "xvid.avi")]
    code, out, _ = dvflnet("benchmark", tiny_folder, *videos, "--repeat", 2, "--batch-size", 2, "--json")
    found = json.loads(out)
    assert code == 0
    stages = ("decode", "preprocess", "forward")
    assert found["bound_by"] == max(stages, key=lambda name: found[name]["median"])
    assert sum(found[name]["share"] for name in stages) == pytest.approx(1)
    for name in (*stages, "overall"):
        assert 0 < found[name]["least"] <= found[name]["median"] <= found[name]["greatest"]
        assert found[name]["clips_per_second"] == pytest.approx(3 / found[name]["median"])
    assert found["video_seconds"] == pytest.approx((40 + 60 + 40) / 25, abs=0.05)
    assert found["realtime_factor"] == pytest.approx(found["video_seconds"] / found["overall"]["median"])
    assert (found["device"], found["dtype"], found["threads"]) == ("cpu", "float32", torch.get_num_threads())
    code, out, _ = dvflnet("benchmark", tiny_folder, *videos, "--repeat", 1)
    assert "bound by" in out and "3 clips of 4 frames, 5.6 s of video" in out
    code, out, err = dvflnet("benchmark", tiny_folder, *videos, "none.mp4")  # no figure leaves a video out
    assert (code, out) == (1, "") and "none.mp4" in err


# causal models


@pytest.fixture
def causal_model(tiny_config) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(type(tiny_config)(**{**tiny_config.to_dict(), "causal": True}))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def paced_processor(tiny_processor) -> VideoFocalNetVideoProcessor:
    tiny_processor.fps = 5.0
    return tiny_processor


def score_by_hand(model, processor, frames) -> float:
    """The best score after the last of these frames."""
    with torch.no_grad():
        clip = processor(list(frames), do_sample_frames=False, return_tensors="pt")
        return model(**clip).logits[0].softmax(-1).max().item()


def on_screen(times: list[float], until: float, pace: float = 5.0) -> list[int]:
    """The frames that are on the screen at the ticks until a time."""
    ticks = np.arange(int(until * pace + 1e-6) + 1) / pace
    return (np.searchsorted(times, ticks + 1e-6, side="right") - 1).tolist()


@pytest.mark.parametrize("rate, stride", [(25, 1), (25, 3), (25, 7), (12, 1), (3, 1)])
def test_a_causal_model_is_stepped_at_its_pace(causal_model, paced_processor, rate, stride):
    frames, times = frames_of(70), [number / rate for number in range(70)]
    classifier = VideoStreamClassifier(causal_model, paced_processor, stride=stride)
    answered = 0
    for frame, seconds in zip(frames, times, strict=True):
        answer, shown = classifier.feed(frame, seconds), on_screen(times, seconds)
        assert (answer is not None) == (len(shown) // stride > answered)
        answered = len(shown) // stride
        if answer is not None:
            shown = shown[: answered * stride]
            expected = score_by_hand(causal_model, paced_processor, [frames[number] for number in shown])
            assert (answer.time, answer.score) == (seconds, pytest.approx(expected, abs=1e-5))
    assert answered >= 2 and classifier.dropped == 0


def test_a_causal_model_begins_anew_after_a_gap(causal_model, paced_processor):
    classifier, frames = VideoStreamClassifier(causal_model, paced_processor), frames_of(40)
    for number, frame in enumerate(frames):
        answer = classifier.feed(frame, number / 5 + (0.8 if number >= 20 else 0))  # as long as a clip of 4 frames
    expected = score_by_hand(causal_model, paced_processor, frames[20:])
    assert answer.score == pytest.approx(expected, abs=1e-5)


def test_a_causal_model_answers_a_file_as_by_hand(causal_model, paced_processor, video_files):
    frames, info = read_video(video_files["h264.mkv"])
    times = info.frame_times - info.frame_times[0]
    answers = list(VideoStreamClassifier(causal_model, paced_processor).run(video_files["h264.mkv"]))
    shown = on_screen(times, times[-1])
    assert [answer.time for answer in answers] == pytest.approx(np.arange(len(shown)) / 5, abs=0.04)
    for count, answer in enumerate(answers, 1):
        expected = score_by_hand(causal_model, paced_processor, [frames[number] for number in shown[:count]])
        assert answer.score == pytest.approx(expected, abs=1e-4)


def test_a_causal_model_that_is_too_slow_drops_frames_and_goes_on(causal_model, paced_processor, tmp_path):
    step = causal_model.step

    def slow(*arguments):
        time.sleep(0.5)
        return step(*arguments)

    causal_model.step, paced_processor.fps = slow, 25.0
    video = write_video(tmp_path / "paced.mp4", num_frames=75, options={"g": "25"})
    classifier = VideoStreamClassifier(causal_model, paced_processor)
    answers = list(classifier.run(video, realtime=True))
    # each step takes 12 frames' time, of which 5 can wait
    assert 4 <= len(answers) <= 8
    assert 25 <= classifier.dropped <= 75 - len(answers)
    assert answers[-1].latency < 1.5


def test_watch_prints_an_answer_per_frame_of_a_causal_model(
    dvflnet, causal_model, paced_processor, video_files, tmp_path
):
    causal_model.save_pretrained(tmp_path)
    paced_processor.save_pretrained(tmp_path)
    expected = VideoStreamClassifier(causal_model, paced_processor, stride=2).run(video_files["h264.mkv"])
    assert times_watched(dvflnet, tmp_path, video_files["h264.mkv"], "--stride", 2) == [
        pytest.approx(answer.time) for answer in expected
    ]
    code, _, err = dvflnet("watch", tmp_path, video_files["h264.mkv"], "--window", 1)
    assert code == 1 and "a causal model has no window" in err
