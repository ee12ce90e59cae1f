import os
import signal
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import start
from places import HELPERS, ROOT
from videos import KINDS, write_video

from hf_dvflnet import VideoDecodeError, VideoLimits, read_video
from hf_dvflnet.data import sandbox
from hf_dvflnet.data.jobs import cpu_count, run_ahead
from hf_dvflnet.data.sandbox import DecoderCrash, SandboxError, call, open_video


SANDBOX = VideoLimits(sandbox=True)


@pytest.fixture(autouse=True)
def own_child(monkeypatch):
    """A child process for each test, which finds the functions of `sandbox_jobs.py`."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    monkeypatch.setattr(sandbox, "_local", threading.local())


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_facts_are_those_of_this_process(video_files, kind):
    def last_and_first(info):
        return [info.total_num_frames - 1, 0, 3]

    frames, info = read_video(video_files[kind], last_and_first, limits=SANDBOX)
    expected, expected_info = read_video(video_files[kind], last_and_first)
    assert np.array_equal(frames, expected) and info == expected_info
    assert np.array_equal(info.frame_times, expected_info.frame_times)
    assert np.array_equal(info.frames_indices, expected_info.frames_indices)


def test_a_relative_path_is_read_after_a_change_of_folder(video_files, monkeypatch):
    read_video(video_files["vp9.webm"], [0], limits=SANDBOX)  # starts the child process in another folder
    monkeypatch.chdir(video_files["vp9.webm"].parent)
    assert len(read_video("vp9.webm", [0], limits=SANDBOX)[0]) == 1


def test_frames_come_one_by_one(video_files):
    with open_video(video_files["xvid.avi"], SANDBOX) as (info, pictures):
        found = list(pictures)
    expected, expected_info = read_video(video_files["xvid.avi"])
    assert info.fps == expected_info.fps and np.array_equal(found, expected)


def test_a_cut_file_warns_and_asks_for_its_frames_again(tmp_path, video_files):
    data = video_files["xvid.avi"].read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="cut.avi: is truncated"):
        _, info = read_video(tmp_path / "cut.avi", lambda info: [info.total_num_frames - 1], limits=SANDBOX)
    assert info.total_num_frames < 40 and "is truncated" in info.remarks[0]


def test_errors_keep_their_kind_and_the_given_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no video")
    with pytest.raises(VideoDecodeError, match=r"^text.mp4: cannot be opened as a video"):
        read_video("text.mp4", [0], limits=SANDBOX)
    with pytest.raises(FileNotFoundError, match="nothing.mp4"):
        read_video("nothing.mp4", [0], limits=SANDBOX)


def test_the_child_process_imports_neither_torch_nor_transformers(video_files):
    read_video(video_files["vp9.webm"], [0], limits=SANDBOX)
    loaded = {name.partition(".")[0] for name in call("sandbox_jobs:modules", b"", SANDBOX)}
    foreign = {name for name in loaded - set(sys.stdlib_module_names) if not name.startswith(("_", "sandbox_jobs"))}
    assert foreign <= {"av", "numpy", "hf_dvflnet", "cython_runtime", "distutils-precedence", "sitecustomize"}


def test_the_next_video_is_decoded_by_the_same_process():
    assert call("sandbox_jobs:process", b"", SANDBOX) == call("sandbox_jobs:process", b"", SANDBOX)


def test_a_video_that_crashes_its_decoder_twice_is_named_and_the_next_one_is_read(video_files):
    with pytest.raises(DecoderCrash, match=r"<3 bytes>: the process that decoded it ended \(SIGSEGV\)"):
        call("sandbox_jobs:crash", b"abc", SANDBOX)
    assert len(read_video(video_files["vp9.webm"], [0], limits=SANDBOX)[0]) == 1


def test_a_video_whose_process_was_ended_once_is_tried_again(tmp_path):
    assert call("sandbox_jobs:crash_once", b"", SANDBOX, marker=str(tmp_path / "marker")) == "done"


def test_a_video_whose_process_ended_while_frames_were_chosen_is_tried_again(video_files):
    def choose(info):
        sandbox._local.sandbox.child.kill()
        sandbox._local.sandbox.child.wait()
        return [7]

    expected, _ = read_video(video_files["vp9.webm"], [7])
    assert np.array_equal(read_video(video_files["vp9.webm"], choose, limits=SANDBOX)[0], expected)


@pytest.mark.parametrize("job", ["wait", "compute"])
def test_a_video_that_takes_too_long_ends_in_time(job, video_files):
    started = time.monotonic()
    with pytest.raises(
        VideoDecodeError, match=r"<3 bytes>: not decoded within the limit of 1 seconds \(max_seconds\)"
    ):
        call(f"sandbox_jobs:{job}", b"abc", VideoLimits(sandbox=True, max_seconds=1))
    assert time.monotonic() - started < 20
    assert len(read_video(video_files["vp9.webm"], [0], limits=SANDBOX)[0]) == 1


def test_cpu_time_is_limited_where_the_clock_is_not():
    request = {"job": "call", "function": "sandbox_jobs:compute", "arguments": {}, "name": "a", "path": ""}
    request |= {"limits": {}, "max_memory": 1 << 40, "max_seconds": 1}
    with pytest.raises(sandbox._Ended) as ended:
        list(sandbox.Sandbox().work(request, b"", VideoLimits(max_seconds=60)))
    assert not ended.value.retry


def test_the_time_of_the_caller_does_not_count(video_files):
    with open_video(video_files["vp9.webm"], VideoLimits(sandbox=True, max_seconds=1)) as (_, pictures):
        next(pictures)
        time.sleep(1.2)
        assert len(list(pictures)) == 39


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_memory_is_limited_and_the_limit_is_named():
    with pytest.raises(VideoDecodeError, match=r"<3 bytes>: needs more memory than the limit of 4 GiB \(max_memory\)"):
        call("sandbox_jobs:allocate", b"abc", SANDBOX)


def test_a_file_that_fills_the_memory_does_not_spoil_the_next_one(video_files):
    path = video_files["h264_short_gop.mp4"]
    expected, _ = read_video(path, [0, 39])
    for megabytes in (220, 240, 260, 300):  # where memory runs out depends on the machine
        limits = VideoLimits(sandbox=True, max_memory=megabytes << 20)
        with suppress(VideoDecodeError):
            assert np.array_equal(read_video(path, [0, 39], limits=limits)[0], expected)
        assert np.array_equal(read_video(path, [0, 39], limits=SANDBOX)[0], expected)


def test_a_process_that_the_system_refuses_is_not_the_fault_of_a_video(monkeypatch):
    def refuse(*arguments, **options):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(sandbox.subprocess, "Popen", refuse)
    with pytest.raises(SandboxError, match="Resource temporarily unavailable"):
        call("sandbox_jobs:process", b"", SANDBOX)


def test_work_that_nobody_waits_for_is_ended():
    calls = [lambda: call("sandbox_jobs:process", b"", SANDBOX)]
    calls += [lambda: call("sandbox_jobs:wait", b"", SANDBOX)] * 2
    results = run_ahead(calls, 2)
    next(results)()
    time.sleep(0.5)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 20  # the jobs take a minute


def with_frames_of_one_size(content: bytes, count: int) -> bytes:
    """An mp4 whose header says that it has `count` frames of one byte, in as many bytes as before."""
    data = bytearray(content)
    sizes, chunks = data.index(b"stsz"), data.index(b"stsc")
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, count)
    data[chunks + 12 : chunks + 20] = struct.pack(">II", 1, count)
    return bytes(data)


def inflated_index(content: bytes) -> bytes:
    return with_frames_of_one_size(content, 80_000_000)


def inflated_tracks(content: bytes) -> bytes:
    content = with_frames_of_one_size(content, 999_999)
    header, track = content.index(b"moov") - 4, content.index(b"trak") - 4
    header_size, size = (int.from_bytes(content[place : place + 4], "big") for place in (header, track))
    return (
        content[:header]
        + struct.pack(">I", header_size + 200 * size)
        + content[header + 4 : track]
        + 201 * content[track : track + size]
        + content[track + size :]
    )


def inflated_fragment(content: bytes) -> bytes:
    data = bytearray(content)
    run = data.index(b"trun")
    data[run + 4 : run + 12] = struct.pack(">II", 0, 50_000_000)  # nothing is told of each
    return bytes(data)


@pytest.mark.parametrize("inflate", [inflated_index, inflated_tracks, inflated_fragment])
def test_a_header_that_would_fill_the_memory_is_one_sentence_within_the_limit(tmp_path, inflate):
    flags = {"movflags": "frag_keyframe+empty_moov"} if inflate is inflated_fragment else {}
    content = inflate(write_video(tmp_path / "a.mp4", num_frames=5, container_options=flags).read_bytes())
    limits = VideoLimits(sandbox=True, max_memory=1 << 30, max_seconds=30)
    try:
        read_video(content, limits=limits)
    except VideoDecodeError as error:
        assert "\n" not in str(error)
    child = sandbox._sandbox().child.pid
    peak = next(line for line in Path(f"/proc/{child}/status").read_text().splitlines() if line.startswith("VmPeak"))
    assert int(peak.split()[1]) <= 1 << 20  # in KiB


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(3840, 2160), (7680, 4320)])
def test_true_4k_and_8k_are_decoded_at_the_default_limits(tmp_path, width, height):
    path = write_video(tmp_path / "large.mp4", "libx264", 9, width, height, options={"preset": "ultrafast"})
    frames, _ = read_video(path, range(8), limits=SANDBOX)
    assert frames.shape == (8, height, width, 3)


def test_a_process_that_cannot_start_is_not_the_fault_of_a_video(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import no_such_module")
    monkeypatch.setattr(sandbox.Sandbox, "program", tmp_path / "broken.py")
    with pytest.raises(SandboxError, match="cannot be started; run it to see why"):
        call("sandbox_jobs:process", b"", SANDBOX)


class Decoding(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return int(read_video(self.path, [index], limits=SANDBOX)[0].shape[1])


def test_it_works_in_forked_workers_of_a_data_loader(video_files):
    read_video(video_files["vp9.webm"], [0], limits=SANDBOX)  # forked workers must not use this process's child
    dataset = Decoding(video_files["vp9.webm"])
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context="fork")
    assert [int(batch) for batch in loader] == [96] * 4


SCRIPT = """
import sys
from hf_dvflnet import VideoLimits, read_video
from hf_dvflnet.data import sandbox
read_video(sys.argv[1], [0], limits=VideoLimits(sandbox=True))
print(sandbox._sandbox().child.pid, flush=True)
sandbox.call("sandbox_jobs:wait", b"", VideoLimits())
"""


def test_it_ends_with_a_script_without_a_main_guard_that_is_killed(tmp_path, video_files):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(HELPERS), str(ROOT)])
    script = start(sys.executable, tmp_path / "script.py", video_files["vp9.webm"], PYTHONPATH=path)
    child = int(script.stdout.readline())
    time.sleep(0.5)
    script.send_signal(signal.SIGKILL)
    script.wait()
    end = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_as_many_workers_as_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
