import csv
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
from commands import DVFLNET, LAUNCH, finished, start
from places import ROOT
from videos import write_video

from hf_dvflnet import (
    VideoDecodeError,
    VideoLimits,
    load_model,
    load_processor,
    predict_to_file,
    predict_videos,
    set_video_limits,
)
from hf_dvflnet.inference import bulk_prediction, pipeline
from hf_dvflnet.inference.pipeline import decode_clip, decode_clips
from hf_dvflnet.video_decoding import video_limits


@pytest.fixture
def model_and_processor(tiny_folder):
    return load_model(str(tiny_folder)), load_processor(str(tiny_folder))


@pytest.fixture(scope="module")
def few_videos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("few")
    return [write_video(folder / f"{n}.mp4", "mpeg4", 8 + n, 80, 48, first_number=50 * n) for n in range(5)]


@pytest.fixture
def many_videos(few_videos, tmp_path) -> list[str]:
    """300 names of five small videos."""
    names = [tmp_path / "many" / f"{number:03d}.mp4" for number in range(300)]
    names[0].parent.mkdir()
    for number, name in enumerate(names):
        os.link(few_videos[number % 5], name)
    return list(map(str, names))


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(bulk_prediction, "ROWS_PER_PART", 4)


def write(model_and_processor, videos, output, **options):
    return predict_to_file(*model_and_processor, videos, output, **{"num_workers": 0, **options})


def rows_of(output: Path) -> list[dict]:
    return pyarrow.parquet.read_table(output).to_pylist()


def beside(output: Path) -> list[str]:
    """What a run leaves: names that begin with the output's, and hidden ones."""
    return sorted(path.name for path in output.parent.iterdir() if path.name.startswith((output.name, ".")))


# rows


def test_a_row_is_the_answer_of_predict_videos(model_and_processor, few_videos, tmp_path, small_parts):
    found = write(model_and_processor, few_videos, tmp_path / "scores.parquet", top_k=3, batch_size=2)
    rows = rows_of(tmp_path / "scores.parquet")
    for row, expected in zip(rows, predict_videos(*model_and_processor, few_videos, top_k=3), strict=True):
        assert row["source"] == str(expected["video"])
        assert row["labels"] == [answer["label"] for answer in expected["answers"]]
        assert row["scores"] == pytest.approx([answer["score"] for answer in expected["answers"]], abs=1e-6)
        assert (row["error_kind"], row["error"], row["warning"]) == (None, None, None)
    assert [(row["frames"], row["seconds"]) for row in rows] == [(8 + n, (8 + n) / 25) for n in range(5)]
    assert (found["videos"], found["written"], found["failures"]) == (5, 5, {})
    assert beside(tmp_path / "scores.parquet") == ["scores.parquet", "scores.parquet.run.json"]


def test_what_cannot_be_read_is_a_row_with_its_error(model_and_processor, few_videos, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos = [few_videos[0], tmp_path / "broken.mp4", tmp_path / "none.mp4", tmp_path, "file:///etc/passwd"]
    found = write(model_and_processor, videos, tmp_path / "scores.parquet")
    rows = rows_of(tmp_path / "scores.parquet")
    kinds = [None, "VideoDecodeError", "FileNotFoundError", "VideoDecodeError", "VideoDecodeError"]
    assert [row["error_kind"] for row in rows] == kinds
    assert found["failures"] == {"VideoDecodeError": 3, "FileNotFoundError": 1}
    reasons = ["broken.mp4: cannot be opened", "none.mp4", "is a folder", "only http and https URLs are fetched"]
    for row, reason in zip(rows[1:], reasons, strict=True):
        assert reason in row["error"] and row["labels"] is None and row["frames"] is None


def test_a_folder_has_the_rows_of_a_file_and_is_continued(model_and_processor, few_videos, tmp_path, small_parts):
    write(model_and_processor, few_videos, tmp_path / "scores.parquet")
    done = write(model_and_processor, few_videos, tmp_path / "scores")
    dataset = pyarrow.dataset.dataset(tmp_path / "scores")
    assert dataset.to_table().to_pylist() == rows_of(tmp_path / "scores.parquet")
    assert len(dataset.files) > 1 and (done["videos"], done["failures"]) == (len(few_videos), {})
    Path(dataset.files[0]).unlink()
    assert 0 < write(model_and_processor, few_videos, tmp_path / "scores")["written"] < len(few_videos)
    assert pyarrow.dataset.dataset(tmp_path / "scores").to_table().to_pylist() == dataset.to_table().to_pylist()


def test_json_lines_and_csv_say_the_same_as_parquet(model_and_processor, few_videos, tmp_path):
    videos = [*few_videos, tmp_path / "none.mp4"]
    for suffix in ("parquet", "jsonl", "csv"):
        write(model_and_processor, videos, tmp_path / f"scores.{suffix}", top_k=2)
    expected = rows_of(tmp_path / "scores.parquet")
    lines = (tmp_path / "scores.jsonl").read_text().splitlines()
    for row, line in zip(expected, map(json.loads, lines), strict=True):
        assert list(row) == list(line)
        assert {**row, "scores": None} == {**line, "scores": None}
        assert line["scores"] == (row["scores"] and pytest.approx(row["scores"], rel=1e-6))
    with open(tmp_path / "scores.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0])[:5] == ["source", "label_1", "score_1", "label_2", "score_2"]
    assert [line["label_1"] for line in cells] == [(row["labels"] or [""])[0] for row in expected]
    assert float(cells[0]["score_2"]) == pytest.approx(expected[0]["scores"][1], rel=1e-6)
    assert (cells[-1]["score_1"], cells[-1]["frames"], cells[-1]["error_kind"]) == ("", "", "FileNotFoundError")


@pytest.mark.parametrize("views", [1, 12])
def test_an_embedding_is_what_the_head_is_given(model_and_processor, few_videos, tmp_path, views):
    model, processor = model_and_processor
    write(model_and_processor, few_videos, tmp_path / "scores.parquet", embeddings=True, top_k=0, views=views)
    rows = rows_of(tmp_path / "scores.parquet")
    assert "labels" not in rows[0]
    shape = {"num_clips": 4, "num_crops": 3} if views == 12 else {}
    for row, video in zip(rows, few_videos, strict=True):
        clips = processor(video, return_tensors="pt", **shape)["pixel_values"].flatten(0, -5)
        with torch.no_grad():
            expected = model.videofocalnet(clips).pooler_output.mean(0)
        assert np.allclose(row["embedding"], expected, atol=1e-5)
    assert not model.classifier._forward_pre_hooks


@pytest.mark.slow
def test_the_limits_of_this_process_hold_where_videos_are_decoded(tiny_processor):
    limits = video_limits()
    set_video_limits(VideoLimits(allow_private_addresses=False))
    try:
        (clip,) = decode_clips(["http://127.0.0.1:9/a.mp4"], tiny_processor, num_workers=1)
    finally:
        set_video_limits(limits)
    assert isinstance(clip.error, VideoDecodeError) and "private addresses are not allowed" in str(clip.error)


def test_a_source_that_repeats_has_one_row_and_it_is_said(model_and_processor, few_videos, tmp_path):
    with pytest.warns(UserWarning, match="2 of 4 sources repeat others"):
        write(model_and_processor, [few_videos[0], few_videos[1], *few_videos[:2]], tmp_path / "scores.parquet")
    assert [row["source"] for row in rows_of(tmp_path / "scores.parquet")] == list(map(str, few_videos[:2]))


def test_a_name_that_is_not_utf8_is_escaped(model_and_processor, few_videos, tmp_path):
    video = tmp_path / os.fsdecode(b"\xff.mp4")
    os.link(few_videos[0], video)
    write(model_and_processor, [video], tmp_path / "scores.parquet")
    (row,) = rows_of(tmp_path / "scores.parquet")
    assert row["source"].endswith(r"\udcff.mp4") and row["error"] is None


# refusals


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"top_k": 1}, "top_k"),
        ({"views": 12}, "views"),
        ({"embeddings": True}, "embeddings"),
        ("videos", "videos"),
        ("weights", "model"),
        ("processor", "processor"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_output_of_another_run_is_refused(
    model_and_processor, few_videos, tmp_path, monkeypatch, change, difference, finished
):
    output = tmp_path / "scores.parquet"
    if not finished:
        monkeypatch.setattr(bulk_prediction.PredictionFile, "finish", lambda self: None)
    write(model_and_processor, few_videos, output)
    model, processor = model_and_processor
    videos, options = few_videos, {}
    if change == "videos":
        videos = few_videos[::-1]
    elif change == "weights":
        torch.nn.init.ones_(model.classifier.bias)
    elif change == "processor":
        processor.frame_interval = 2
    else:
        options = change
    with pytest.raises(ValueError, match=rf"scores.parquet: belongs to a run with different {difference}; choose"):
        write((model, processor), videos, output, **options)


@pytest.mark.parametrize("file", ["scores.csv", "scores/notes.txt"])
def test_what_another_program_wrote_is_kept(model_and_processor, few_videos, tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine")
    with pytest.raises(FileExistsError, match=r"scores.*: exists, and no earlier run of this command is known"):
        write(model_and_processor, few_videos, tmp_path / file.partition("/")[0])
    assert (tmp_path / file).read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"output": "scores.txt"}, "must be a folder, or end in .parquet, .jsonl, .csv"),
        ({"views": 2}, "views must be 1, 4 .* or 12"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"output": "scores.csv", "embeddings": True}, "CSV has no lists, which embeddings are"),
        ({"sources": []}, "there are no videos to classify"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    model_and_processor, few_videos, tmp_path, options, reason
):
    videos, output = options.pop("sources", few_videos), tmp_path / "out" / options.pop("output", "scores.parquet")
    with pytest.raises(ValueError, match=reason):
        write(model_and_processor, videos, output, **options)
    assert not output.parent.exists()


def test_scores_that_are_not_finite_stop_the_run_and_name_the_video(model_and_processor, few_videos, tmp_path):
    torch.nn.init.constant_(model_and_processor[0].classifier.bias, torch.nan)
    with pytest.raises(ValueError, match=rf"{few_videos[0]}: .*its scores are not finite"):
        write(model_and_processor, few_videos, tmp_path / "scores.parquet")


# interruptions


def in_a_child(function) -> int:
    """Run a function in a forked process, and return the process's id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            function()
            code = 0
        finally:
            os._exit(code)
    return child


def counted(log: Path):
    """`decode_clip` that writes each source into a log."""

    def decode(source: str, *options, **more):
        with open(log, "ab", buffering=0) as file:
            file.write(f"{source}\n".encode())
        return decode_clip(source, *options, **more)

    return decode


def test_a_run_that_was_stopped_goes_on_where_it_was(
    model_and_processor, many_videos, tmp_path, small_parts, monkeypatch
):
    videos, output, log = many_videos[:20], tmp_path / "scores.csv", tmp_path / "log"

    def decode(source: str, *options, **more):
        if source == videos[10]:
            raise KeyboardInterrupt
        return counted(log)(source, *options, **more)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decode_clip", decode)
        with pytest.raises(KeyboardInterrupt):
            write(model_and_processor, videos, output, batch_size=2)
    assert not output.exists()
    monkeypatch.setattr(pipeline, "decode_clip", counted(log))
    assert write(model_and_processor, videos, output, batch_size=2)["written"] == 12
    assert log.read_text().splitlines() == [*videos[:10], *videos[8:]]  # blocks of four
    monkeypatch.undo()
    write(model_and_processor, videos, tmp_path / "whole.csv", batch_size=2)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("output", ["scores", "scores.jsonl"])
def test_failed_rows_are_tried_again_when_it_is_asked_for(
    model_and_processor, few_videos, tmp_path, small_parts, monkeypatch, output
):
    videos = [few_videos[0], tmp_path / "late.mp4", *few_videos[1:], tmp_path / "none.mp4"]
    with monkeypatch.context() as patch:
        patch.setattr(bulk_prediction.PredictionFile, "finish", lambda self: None)
        write(model_and_processor, videos, tmp_path / output, top_k=2)
    os.link(few_videos[0], tmp_path / "late.mp4")
    again = write(model_and_processor, videos, tmp_path / output, top_k=2, retry_failed=True)
    assert (again["written"], again["failures"]) == (2, {"FileNotFoundError": 1})
    write(model_and_processor, videos, tmp_path / "whole", top_k=2)
    kind = "parquet" if output == "scores" else "json"
    rows = pyarrow.dataset.dataset(tmp_path / output, format=kind).to_table().to_pylist()
    expected = pyarrow.dataset.dataset(tmp_path / "whole").to_table().to_pylist()
    assert [row["source"] for row in rows] == [row["source"] for row in expected]
    assert [row["labels"] for row in rows] == [row["labels"] for row in expected]


def test_rows_of_a_finished_file_are_not_tried_again(model_and_processor, few_videos, tmp_path):
    write(model_and_processor, few_videos, tmp_path / "scores.csv")
    with pytest.raises(ValueError, match=r"scores.csv: is finished; only rows in a folder of parts can be replaced"):
        write(model_and_processor, few_videos, tmp_path / "scores.csv", retry_failed=True)


def test_a_platforms_number_of_processes_without_a_rank_is_not_waited_for(
    model_and_processor, few_videos, tmp_path, small_parts, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = write(model_and_processor, few_videos, tmp_path / "scores.csv")
    assert (done["written"], done["processes"]) == (5, 1)


def test_a_process_that_waits_for_others_says_so(model_and_processor, few_videos, tmp_path, small_parts, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(bulk_prediction, "SECONDS_OF_SILENCE", 0.0)

    def stop(message, *arguments, **options):
        raise KeyboardInterrupt(message)

    monkeypatch.setattr("warnings.warn", stop)
    with pytest.raises(KeyboardInterrupt, match="waits for 1 parts that other.* without RANK and WORLD_SIZE"):
        write(model_and_processor, few_videos, tmp_path / "scores.csv")


def test_processes_share_the_blocks_and_another_number_of_them_goes_on(
    model_and_processor, many_videos, tmp_path, small_parts, monkeypatch
):
    videos, output = many_videos[:30], tmp_path / "scores.csv"
    monkeypatch.setattr(bulk_prediction.PredictionFile, "finish", lambda self: None)

    def as_process(rank: int, processes: int) -> int:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        return write(model_and_processor, videos, output)["written"]

    # 8 blocks, of which the last has 2 rows; one of three processes never comes
    assert (as_process(0, 3), as_process(1, 3)) == (12, 10)
    monkeypatch.undo()
    monkeypatch.setattr(bulk_prediction, "ROWS_PER_PART", 4)
    assert write(model_and_processor, videos, output)["written"] == 8
    write(model_and_processor, videos, tmp_path / "whole.csv")
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def parts_of(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(f"{output}.parts").glob("part-*.parquet")}


@pytest.mark.slow
def test_a_run_that_is_killed_at_twenty_random_moments_loses_and_repeats_nothing(
    model_and_processor, many_videos, tmp_path, small_parts, monkeypatch
):
    output, log = tmp_path / "scores.jsonl", tmp_path / "log"
    write(model_and_processor, many_videos, tmp_path / "whole.jsonl")
    monkeypatch.setattr(pipeline, "decode_clip", counted(log))

    def check_the_finished_run(kills: int):
        assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        decoded = log.read_text().splitlines()
        assert set(decoded) == set(many_videos)
        assert len(decoded) <= len(many_videos) + kills * bulk_prediction.ROWS_PER_PART
        assert beside(output) == ["scores.jsonl", "scores.jsonl.run.json"]

    draw = random.Random(0)
    kills, kills_of_this_run, before = 0, 0, {}
    while kills < 20:
        child = in_a_child(lambda: write(model_and_processor, many_videos, output))
        time.sleep(draw.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):  # a fast machine finishes first: check that run and start another
            assert status == 0
            check_the_finished_run(kills_of_this_run)
            for path in (output, Path(f"{output}.run.json"), log):
                path.unlink()
            kills_of_this_run, before = 0, {}
            continue
        kills += 1
        kills_of_this_run += 1
        if not output.exists():  # the parts are removed once it does
            after = parts_of(output)
            assert before.items() <= after.items()  # no part is written again
            before = after
    write(model_and_processor, many_videos, output)
    check_the_finished_run(kills_of_this_run)


@pytest.mark.slow
def test_a_run_that_is_killed_before_any_of_its_file_operations_goes_on(
    model_and_processor, few_videos, tmp_path, monkeypatch
):
    monkeypatch.setattr(bulk_prediction, "ROWS_PER_PART", 1)
    output = tmp_path / "out" / "scores.csv"
    write(model_and_processor, few_videos[:2], tmp_path / "whole.csv")
    for operation in range(1000):
        child = in_a_child(lambda n=operation: killed_before(n, output, model_and_processor, few_videos[:2]))
        _, status = os.waitpid(child, 0)
        write(model_and_processor, few_videos[:2], output)
        assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
        assert sorted(path.name for path in output.parent.iterdir()) == ["scores.csv", "scores.csv.run.json"]
        shutil.rmtree(output.parent)
        if os.WIFEXITED(status):
            assert status == 0
            break
    assert operation > 20


def killed_before(operation: int, output: Path, model_and_processor, videos):
    """Write predictions, and end this process at the n-th operation on a file beside the output."""
    left = [operation]

    def count(event: str, arguments: tuple):
        touched = any(str(output.parent) in str(one) for one in arguments)
        if touched and event.startswith(("open", "os.", "shutil.")):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(count)
    write(model_and_processor, videos, output)


# commands


@pytest.mark.slow
def test_a_command_with_decoding_processes_that_is_killed_leaves_none_of_them_and_goes_on(
    tiny_folder, many_videos, tmp_path
):
    for number in range(300, 500):
        many_videos.append(str(Path(many_videos[0]).with_stem(f"{number:03d}")))
        os.link(many_videos[number % 5], many_videos[-1])
    (tmp_path / "list.txt").write_text("\n".join(many_videos))
    output = tmp_path / "scores.parquet"
    words = [tiny_folder, "--list", tmp_path / "list.txt", "--output", output, "--num-workers", 2]
    first = start(*DVFLNET, "predict", *words)
    end = time.monotonic() + 400
    while not parts_of(output) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    children = [child.pid for child in psutil.Process(first.pid).children(recursive=True)]
    first.kill()
    first.communicate()
    assert len(parts_of(output)) == 1 and len(children) >= 2
    done = finished(start(*DVFLNET, "predict", *words))
    assert re.search(r"^written +244$", done, flags=re.MULTILINE)  # of 500, without the part of 256
    assert [row["source"] for row in rows_of(output)] == many_videos
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.slow
def test_two_processes_of_a_launcher_write_one_file(tiny_folder, few_videos, tmp_path, model_and_processor):
    videos = []
    for number in range(600):  # three blocks
        videos.append(tmp_path / "more" / f"{number:03d}.mp4")
        videos[-1].parent.mkdir(exist_ok=True)
        os.link(few_videos[number % 5], videos[-1])
    output = tmp_path / "scores.csv"
    launcher = (*LAUNCH, "--config_file", ROOT / "examples/accelerate_configs/cpu_2_processes.yaml", *DVFLNET[1:])
    words = ("predict", tiny_folder, tmp_path / "more", "--output", output, "--num-workers", 0)
    done = finished(start(*launcher, *words))
    assert sorted(re.findall(r"^written +(\d+)$", done, flags=re.MULTILINE)) == ["256", "344"]
    write(model_and_processor, videos, tmp_path / "one.csv")
    assert output.read_text().splitlines() == (tmp_path / "one.csv").read_text().splitlines()
