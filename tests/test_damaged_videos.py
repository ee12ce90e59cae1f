import threading
from pathlib import Path

import pytest
from damaged_videos import damaged, write_materials
from places import HELPERS

from hf_dvflnet import VideoDecodeError, VideoLimits
from hf_dvflnet.data import sandbox


# files that may keep FFmpeg busy until the sandbox ends it: SECURITY.md, "Only the sandbox stops"
BUSY = ("wrong_numbers", "repeated_tracks")


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """What comes of the file of a number, read in a child process that a crash or a hang ends."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    monkeypatch.setattr(sandbox, "_local", threading.local())  # a child that finds `sandbox_jobs.py`
    materials = write_materials(tmp_path)

    def read(seed: int, number: int) -> str:
        kind, name, content = damaged(materials, seed, number)
        path = Path(tmp_path, str(number), name)
        path.parent.mkdir()
        path.write_bytes(content)
        try:
            found = sandbox.call("sandbox_jobs:read_both_ways", path, VideoLimits(max_seconds=60, max_memory=4 << 30))
        except VideoDecodeError as error:
            if kind in BUSY and "not decoded within the limit" in str(error):
                return "ended"
            raise AssertionError(f"seed {seed}, file {number}, {name} ({kind})") from error
        assert found in ("frames", "refused"), f"seed {seed}, file {number}, {name} ({kind}): {found}"
        return found

    return read


def test_what_is_read_of_damaged_videos_is_frames_or_an_error_that_names_the_file(outcome):
    assert {outcome(1, number) for number in range(60)} >= {"frames", "refused"}


@pytest.mark.slow
def test_of_2000_damaged_videos_none_is_a_crash_a_hang_or_another_error(outcome):
    outcomes = [outcome(0, number) for number in range(2000)]
    assert min(outcomes.count("frames"), outcomes.count("refused")) > 500
