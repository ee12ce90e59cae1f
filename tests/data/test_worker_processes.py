import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
from mini_releases import write_ucf101
from places import HELPERS, ROOT

from hf_dvflnet import prepare_videos
from hf_dvflnet.data import clip_encoding, preparation, verification, worker_processes
from hf_dvflnet.data.verification import verify_benchmark
from hf_dvflnet.data.worker_processes import LOST, map_in_processes


def double(number: int) -> int:
    """Ends its process at 3 and 4, as a fault of a decoder does."""
    if number in (3, 4):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def double_the_second_time(marker: Path, number: int) -> int:
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


@pytest.mark.slow
def test_a_job_that_ends_its_process_is_lost_and_the_others_are_answered():
    found = list(map_in_processes(double, range(20), 2, lambda number: f"lost {number}"))
    assert found == [0, 2, 4, "lost 3", "lost 4", *range(10, 40, 2)]


@pytest.mark.slow
def test_a_job_whose_process_was_ended_once_is_done_again(tmp_path):
    jobs = partial(double_the_second_time, tmp_path / "marker")
    assert list(map_in_processes(jobs, range(12), 2, lost=str)) == list(range(0, 24, 2))


def test_jobs_are_taken_as_they_are_needed():
    taken = []
    jobs = (taken.append(number) or number for number in range(100, 200))
    results = map_in_processes(double, jobs, 1, lost=str)
    assert [next(results), next(results)] == [200, 202] and len(taken) <= 6
    results.close()


def fail(limits):
    raise ImportError("no such module")


@pytest.mark.slow
def test_no_job_is_lost_where_no_process_can_be_started(monkeypatch):
    monkeypatch.setattr(worker_processes, "_set_up", fail)
    with pytest.raises(BrokenProcessPool):
        list(map_in_processes(double, range(3), 1, lost=str))


def say_who_and_wait(seconds: int):
    print(os.getpid(), flush=True)
    time.sleep(seconds)


@pytest.mark.slow
def test_no_worker_outlives_a_command_that_is_killed():
    code = (
        "from tests.data.test_worker_processes import *\nif __name__ == '__main__':\n"
        "    list(map_in_processes(say_who_and_wait, [600, 600], 2, lost=str))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HELPERS}"}
    command = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    workers = [int(command.stdout.readline()) for _ in range(2)]
    command.kill()
    command.wait()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    left = [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def check_or_crash(job):
    return double(3) if "v_JumpRope_g08_c01" in str(job[0]) else verification._check(job)


def prepare_or_crash(task):
    return double(3) if "wave" in task.name else clip_encoding.prepare_one(task)


@pytest.mark.slow
def test_a_clip_that_crashes_its_decoder_is_undecodable_in_the_report(tmp_path, monkeypatch):
    write_ucf101(tmp_path / "ucf101")
    monkeypatch.setattr(verification, "_check", check_or_crash)
    counts = verify_benchmark("ucf101", tmp_path / "ucf101", tmp_path / "report.jsonl", num_workers=2)["counts"]
    assert counts["train"]["undecodable"] == 1 and counts["test"]["undecodable"] == 0
    rows = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows if row["outcome"] == "undecodable"] == [LOST]


@pytest.mark.slow
def test_a_video_that_crashes_its_decoder_is_unreadable_in_the_manifest(tmp_path, video_files, monkeypatch):
    for name in ("run", "wave"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        shutil.copy(video_files["h264_short_gop.mp4"], tmp_path / "videos" / name / "a.mp4")
    monkeypatch.setattr(preparation, "prepare_one", prepare_or_crash)
    found = prepare_videos(tmp_path / "videos", tmp_path / "out", layout="folder", num_workers=2)
    assert found["ok"] == 1 and [row["reason"] for row in found["failures"]] == [LOST]
    assert [path.parent.name for path in (tmp_path / "out").rglob("*.mp4")] == ["run"]
