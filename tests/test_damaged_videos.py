import multiprocessing

import av
import pytest
from damaged_videos import (
    FAULTS,
    ONLY_SANDBOX,
    damaged,
    describe,
    memory_of,
    read_both_ways,
    read_damaged,
    write_materials,
)

from hf_dvflnet import VideoDecodeError, VideoLimits, read_video


def test_what_is_read_of_damaged_videos_is_frames_or_one_error(tmp_path):
    outcomes = list(read_damaged(tmp_path, 1, list(range(64))))
    faults = [describe(outcome, 1) for outcome in outcomes if outcome.is_fault]
    assert not faults, "\n".join(faults)
    assert len(outcomes) == 64


@pytest.mark.slow
def test_of_2000_damaged_videos_none_is_a_crash_a_hang_or_another_error(tmp_path):
    outcomes = list(read_damaged(tmp_path, 0, list(range(2000))))
    faults = [describe(outcome, 0) for outcome in outcomes if outcome.is_fault]
    assert not faults, "\n".join(faults)
    assert {outcome.kind for outcome in outcomes} == set(FAULTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hf_dvflnet.video_decoding.VideoWarning")
def test_the_sandbox_ends_the_reading_of_files_that_keep_ffmpeg_busy(tmp_path):
    materials, limits = write_materials(tmp_path), VideoLimits(sandbox=True, max_seconds=8)
    refused = {}
    for number in range(2000):
        if list(FAULTS)[number % len(FAULTS)] in ONLY_SANDBOX:
            _, name, content = damaged(materials, 0, number)
            path = tmp_path / f"{number}_{name}"
            path.write_bytes(content)
            try:
                read_video(path, [0], limits=limits)
            except VideoDecodeError as error:
                refused[number] = str(error)
    assert "within the limit of 8 seconds" in refused[905]  # 201 tracks of 80 million frames each


def test_damaged_videos_are_a_function_of_the_seed(tmp_path):
    materials = write_materials(tmp_path)
    first, again, other = ([damaged(materials, seed, n) for n in range(64)] for seed in (1, 1, 2))
    assert first == again != other


def open_many(paths: list[str], connection):
    """Memory after 500 and after 5,000 opens."""
    av.logging.set_level(None)
    for number in range(1, 5001):
        read_both_ways(paths[number % len(paths)])
        if number in (500, 5000):
            connection.send(memory_of("self", "VmRSS"))


@pytest.mark.slow
def test_memory_stays_the_same_over_5000_opens(tmp_path):
    materials = write_materials(tmp_path)
    paths = []
    for number in range(64):
        kind, name, content = damaged(materials, 0, number)
        if kind not in ("huge dimensions", "huge durations and counts"):  # which take long, and large blocks
            paths.append(tmp_path / str(number) / name)
            paths[-1].parent.mkdir()
            paths[-1].write_bytes(content)
    context = multiprocessing.get_context("fork")
    connection, other = context.Pipe()
    process = context.Process(target=open_many, args=([*map(str, paths)], other), daemon=True)
    process.start()
    early, late = connection.recv(), connection.recv()
    process.join()
    assert late < 1.05 * early, f"{early / 1e6:.1f} MB after 500 opens, {late / 1e6:.1f} MB after 5,000"
