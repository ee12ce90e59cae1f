import csv
import itertools
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hf_dvflnet.data.motion_videos import FRAMES_PER_SECOND, MOTIONS, look_at, random_plane, to_uint8
from hf_dvflnet.hub import model_folder
from hf_dvflnet.inference.events import EventFinder, write_events


STUDENT = Path(model_folder.__file__).parent / "motions-student"


def found(scores, **settings) -> list[tuple[str, float, float]]:
    """The events of a class that has these scores every half second; `None` is an answer that did not come."""
    finder = EventFinder(**{"start_score": 0.6, "end_score": 0.4, "shortest": 1.0, "longest_gap": 1.0, **settings})
    answers = [finder.add(0.5 * (n + 1), {"a": score}) for n, score in enumerate(scores) if score is not None]
    return [(kind, event.start, event.end) for kind, event in map_now(itertools.chain(*answers, finder.finish()))]


def map_now(events):
    """Events as they are when they are told, since one that goes on changes."""
    for kind, event in events:
        yield kind, type(event)(event.label, event.start, event.end, event.score)


@pytest.mark.parametrize(
    "scores, settings, expected",
    [
        # it starts with the higher score, goes on with the lower one, and is said once it is long enough
        ([0.1, 0.5, 0.7, 0.5, 0.5, 0.1, 0.1, 0.1], {}, [("start", 1.0, 2.0), ("end", 1.0, 2.5)]),
        # a gap of a second does not end it, a longer one does
        ([0.7, 0.7, 0.1, 0.1, 0.7, 0.1], {}, [("start", 0, 1.0), ("end", 0, 2.5)]),
        (
            [0.7, 0.7, 0.1, 0.1, 0.1, 0.7, 0.7],
            {},
            [("start", 0, 1), ("end", 0, 1), ("start", 2.5, 3.5), ("end", 2.5, 3.5)],
        ),
        ([0.7, 0.1, 0.1, 0.1, 0.7], {}, []),  # shorter than a second each
        ([0.5, 0.5, 0.5, 0.5], {}, []),
        # nothing is known of a gap in the stream
        (
            [0.7, 0.7, None, None, None, 0.7, 0.7, 0.7],
            {},
            [("start", 0, 1), ("end", 0, 1), ("start", 3, 4), ("end", 3, 4)],
        ),
        # answers that come with frames, a little later than a stride
        ([0.7, 0.7, 0.7], {"longest_gap": 0.48, "stride": 0.48}, [("start", 0, 1.0), ("end", 0, 1.5)]),
        # half a window before the answer
        ([0.1, 0.7, 0.7, 0.7], {"lag": 0.5}, [("start", 0, 1.0), ("end", 0, 1.5)]),
    ],
)
def test_events_by_hand(scores, settings, expected):
    assert found(scores, **settings) == expected


def test_the_score_of_an_event_is_the_mean_of_its_answers_and_classes_do_not_disturb_each_other():
    finder = EventFinder(shortest=0.0)
    told = [event for kind, event in finder.add(0.5, {"a": 0.6, "b": 0.9}) if kind == "start"]
    list(finder.add(1.0, {"a": 0.8}))
    list(finder.add(1.5, {"a": 0.05}))
    assert [(event.label, event.end, round(event.score, 6)) for event in told] == [("a", 1.0, 0.7), ("b", 0.5, 0.9)]


def test_the_highest_score_is_known_where_nothing_started():
    finder = EventFinder()
    assert not [*finder.add(0.5, {"a": 0.3, "b": 0.1}), *finder.add(1.0, {}), *finder.finish()]
    assert finder.highest == 0.3


@pytest.mark.parametrize("scores", [(0.4, 0.6), (1.1, 0.5), (0.5, 0.0), (float("nan"), 0.5)])
def test_scores_out_of_order_are_refused(scores):
    with pytest.raises(ValueError, match="the score that starts an event must be"):
        EventFinder(*scores)


def test_answers_whose_time_runs_backwards_are_refused():
    finder = EventFinder()
    list(finder.add(2.0, {}))
    with pytest.raises(ValueError, match=r"in the order of their times, got 1.0 after 2.0"):
        list(finder.add(1.0, {}))


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Path:
    """A file of two motions, 6 seconds each."""
    rng = np.random.default_rng(0)
    time = torch.arange(6 * FRAMES_PER_SECOND)[:, None, None] / FRAMES_PER_SECOND
    path = tmp_path_factory.mktemp("joined") / "two.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for name in ("zoom_in_fast", "turn_left_slow"):
            for picture in to_uint8(look_at(random_plane(rng, 64), rng.random(4), MOTIONS[name], time)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


OPTIONS = ("--window", 1)


def test_segments_of_a_file_are_written_in_each_format_and_equal_what_watch_says(dvflnet, joined, tmp_path):
    code, out, _ = dvflnet("segments", STUDENT, joined, *OPTIONS)
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0
    assert [row["label"] for row in rows] == ["zoom_in_fast", "turn_left_slow"]
    assert [float(row[name]) for row in rows for name in ("start", "end")] == pytest.approx([0, 6, 6, 12], abs=0.8)
    for name in ("a.csv", "a.json", "a.vtt"):
        assert dvflnet("segments", STUDENT, joined, *OPTIONS, "--output", tmp_path / name)[0] == 0
    assert (tmp_path / "a.csv").read_text() == out
    written = json.loads((tmp_path / "a.json").read_text())
    assert [{name: str(value) for name, value in row.items()} for row in written] == rows
    cues = (tmp_path / "a.vtt").read_text().split("\n\n")
    assert cues[0] == "WEBVTT" and cues[1].startswith("00:00:00.000 --> 00:00:0") and "zoom_in_fast" in cues[1]
    lines = [json.loads(line) for line in dvflnet("watch", STUDENT, joined, *OPTIONS, "--events")[1].splitlines()]
    by_kind = {kind: [line for line in lines[:-1] if line["event"] == kind] for kind in ("start", "end")}
    assert [line["label"] for line in by_kind["start"]] == ["zoom_in_fast", "turn_left_slow"]
    ends = [{name: line[name] for name in ("label", "start", "end", "score")} for line in by_kind["end"]]
    assert ends == [{name: value for name, value in row.items() if name != "video"} for row in written]


def test_a_video_without_events_is_said_with_its_highest_score(dvflnet, joined):
    code, out, err = dvflnet("segments", STUDENT, joined, *OPTIONS, "--shortest", 100)
    assert (code, out) == (0, "video,label,start,end,score\n")
    assert re.search(r"two.mp4: no events; the highest score was 0\.9\d+, --start_score is 0.4, --shortest 100 s", err)


def test_subtitles_are_escaped(tmp_path):
    with open(tmp_path / "a.vtt", "w+") as file:
        write_events([{"label": "a\n<b> & c", "start": 3661.5, "end": 3662.25}], file, ".vtt")
    assert (tmp_path / "a.vtt").read_text() == "WEBVTT\n\n01:01:01.500 --> 01:01:02.250\na &lt;b&gt; &amp; c\n"


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("v.mp4", "--output", "a.txt"), "--output needs a .csv, .json or .vtt file"),
        (("v.mp4", "w.mp4", "--output", "a.vtt"), "a .vtt file is of one video, but there are 2"),
        (("none.mp4",), "none.mp4"),
        (("none.mp4", "--stride", 2), "there is an answer every 2 s"),
        (("none.mp4", "--end_score", 0.5), "the score that starts an event must be"),
    ],
)
def test_what_segments_cannot_do_is_said_in_a_sentence(dvflnet, arguments, reason):
    code, _, err = dvflnet("segments", STUDENT, *arguments)
    assert code == 1 and reason in err.splitlines()[0]
