import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import datasets
import fsspec
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from mini_releases import WRITERS
from videos import KINDS, read_number, write_video

from hf_dvflnet import load_benchmark, load_video_folder, prepare_videos, read_video
from hf_dvflnet.data import preparation
from hf_dvflnet.data.video_column import video_source


def prepare(source: Path, out: Path, **options) -> dict:
    return prepare_videos(source, out, **{"num_workers": 0, **options})


def manifest(out: Path) -> dict[str, dict]:
    return {row["path"]: row for row in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(first.astype(float) - second).mean())


@pytest.fixture
def tree(tmp_path, video_files) -> Path:
    """Class folders of seven videos."""
    for number, path in enumerate(
        ("train/run/a.avi", "train/run/b.x.avi", "train/run/c.avi", "train/swim/a.avi", "train/swim/b.avi")
    ):
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "tree" / path, "mpeg4", 6 + number, tag="XVID", first_number=100 * number)
    for path in ("val/swim/a.mp4", "val/run/d.mp4"):
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video_files["h264_short_gop.mp4"], tmp_path / "tree" / path)
    return tmp_path / "tree"


@pytest.fixture(scope="session")
def kinds(tmp_path_factory, video_files) -> Path:
    """Every kind of file, prepared, each in a folder of its own name."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name, path in video_files.items():
        (source / name).mkdir()
        shutil.copy(path, source / name / name)
    prepare(source, out)
    return out


# The clips


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clip_keeps_the_times_of_frames_whose_rate_varies(tmp_path, suffix):
    times = [*range(10), *range(20, 60, 8), *range(60, 70)]
    path = tmp_path / "tree" / "train" / "run" / f"varying.{suffix}"
    path.parent.mkdir(parents=True)
    write_video(path, num_frames=len(times), timestamps=times)
    prepare(tmp_path / "tree", tmp_path / "out")
    frames, metadata = read_video(tmp_path / "out" / "train" / "run" / "varying.mp4")
    assert [read_number(frame) for frame in frames] == list(range(25))
    np.testing.assert_allclose(metadata.frame_times, np.array(times) / 25, atol=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_has_the_frames_of_its_source(kinds, video_files, kind):
    source, _ = read_video(video_files[kind])
    clip, metadata = read_video(next((kinds / kind).iterdir()))
    assert clip.shape == source.shape
    stored = np.rot90(clip, -1, axes=(1, 2)) if "rotated" in kind else clip
    assert [read_number(frame) for frame in stored] == list(range(len(source)))
    assert psnr(source, clip) > 33
    assert metadata.codec == "h264"


def test_a_clip_has_no_sound_and_short_closed_gops_and_its_index_first(kinds):
    path = next((kinds / "h264_audio_first.mp4").iterdir())
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == list(range(0, 40, 4))
    assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 482, (340, 256)), (480, 854, (256, 456)), (160, 96, (160, 96)), (640, 256, (640, 256))],
)
def test_the_short_side_shrinks_and_never_grows(tmp_path, width, height, expected):
    (tmp_path / "source").mkdir()
    write_video(tmp_path / "source" / "a.mp4", num_frames=3, width=width, height=height)
    prepare(tmp_path / "source", tmp_path / "out")
    clip, _ = read_video(tmp_path / "out" / "a.mp4")
    assert (clip.shape[2], clip.shape[1]) == expected
    assert [read_number(frame) for frame in clip] == [0, 1, 2]
    assert (manifest(tmp_path / "out")["a.mp4"]["width"], manifest(tmp_path / "out")["a.mp4"]["height"]) == expected


def write_coloured(path: Path, codec: str, pixel_format: str, space: Colorspace, colour_range: ColorRange):
    """Three frames of four flat colours."""
    image = np.repeat(np.repeat([[[200, 40, 40], [40, 180, 60]], [[50, 60, 210], [230, 220, 90]]], 51, 0), 79, 1)
    reformatter = VideoReformatter()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "5"} if "264" in codec else {})
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], pixel_format
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            picture = reformatter.reformat(
                frame, format=pixel_format, dst_colorspace=space, dst_color_range=colour_range
            )
            stream.codec_context.colorspace, stream.codec_context.color_range = picture.colorspace, colour_range
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "space", "colour_range"),
    [
        ("bt601.mkv", "libx264", "yuv444p", Colorspace.ITU601, ColorRange.MPEG),
        ("bt709.mkv", "libx264", "yuv444p", Colorspace.ITU709, ColorRange.MPEG),
        ("full_range.mkv", "libx264", "yuv444p", Colorspace.ITU709, ColorRange.JPEG),
        ("rgb.mov", "png", "rgb24", Colorspace.DEFAULT, ColorRange.JPEG),
    ],
)
def test_colours_and_odd_sizes_survive(tmp_path, name, codec, pixel_format, space, colour_range):
    (tmp_path / "source").mkdir()
    write_coloured(tmp_path / "source" / name, codec, pixel_format, space, colour_range)
    prepare(tmp_path / "source", tmp_path / "out")
    source, clip = (
        read_video(path)[0] for path in (tmp_path / "source" / name, tmp_path / "out" / Path(name).with_suffix(".mp4"))
    )
    assert (source.shape[1:3], clip.shape[1:3]) == ((102, 158), (102, 158))
    for y, x in ((20, 30), (20, 120), (80, 30), (80, 120)):
        assert np.abs(source[:, y, x].astype(int) - clip[:, y, x]).max() <= 4


# Outcomes


def test_a_truncated_video_is_repaired_and_a_broken_one_unreadable(tmp_path, dvflnet):
    source = tmp_path / "source"
    source.mkdir()
    whole = write_video(source / "whole.avi", "mpeg4", tag="XVID")
    (source / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (source / "broken.mp4").write_bytes(b"moov atom not found")
    (source / "empty.webm").touch()
    code, out, err = dvflnet("prepare", source, tmp_path / "out", "--num-workers", 0)
    assert code == 1
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert [shown[name] for name in ("videos", "ok", "repaired", "unreadable", "prepared")] == list("41124")
    assert "unreadable: broken.mp4: cannot be opened" in err and "unreadable: empty.webm: 0 bytes" in err
    rows = manifest(tmp_path / "out")
    assert {path: row["outcome"] for path, row in rows.items()} == {
        **{"broken.mp4": "unreadable", "cut.mp4": "repaired"},
        **{"empty.mp4": "unreadable", "whole.mp4": "ok"},
    }
    assert rows["cut.mp4"]["reason"].startswith("is truncated (")
    with pytest.warns(UserWarning, match="is truncated"):
        assert rows["cut.mp4"]["frames"] == len(read_video(source / "cut.avi")[0]) < 40
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["cut.mp4", "whole.mp4"]


def test_the_manifest_has_every_clips_checksum(tree, tmp_path):
    prepare(tree, tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert list(rows) == sorted(rows) and len(rows) == 7
    for path, row in rows.items():
        clip = (tmp_path / "out" / path).read_bytes()
        assert hashlib.sha256(clip).hexdigest() == row["sha256"]
        assert row["source_bytes"] == (tree / row["source"]).stat().st_size
        assert read_video(clip)[0].shape == (row["frames"], row["height"], row["width"], 3)


# Going on


def test_a_second_run_encodes_nothing_and_leaves_the_files_alone(tree, tmp_path):
    assert prepare(tree, tmp_path / "out")["prepared"] == 7
    kept = {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (tmp_path / "out").rglob("*")
        if path.suffix == ".mp4"
    }
    assert prepare(tree, tmp_path / "out")["prepared"] == 0
    assert kept == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}


class Killed(BaseException):
    pass


@pytest.fixture
def prepare_killed(monkeypatch):
    """`prepare`, killed just before the nth time that something is moved to its place."""

    def prepare_killed(moment: int, *arguments):
        replace, moves = os.replace, []

        def killed(*names):
            moves.append(names)
            if len(moves) == moment:
                raise Killed
            replace(*names)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(preparation.os, "replace", killed)
            prepare(*arguments)

    return prepare_killed


@pytest.mark.parametrize("moment", [1, 2, 5, 10])  # of settings, manifest, clips, manifest
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_files(tree, tmp_path, prepare_killed, moment):
    prepare_killed(moment, tree, tmp_path / "out")
    prepare(tree, tmp_path / "out")
    prepare(tree, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_is_really_killed_goes_on_to_the_same_files(motion_tree, tmp_path):
    """`kill -9` of the command and its workers, a few clips after each start."""
    out, whole = tmp_path / "killed", tmp_path / "whole"
    prepare_videos(motion_tree, whole, num_workers=0)
    command = [sys.executable, "-m", "dvflnet_cli", "prepare", str(motion_tree), str(out)]
    kills = 0
    for clips in (5, 25, 40):
        process = subprocess.Popen([*command, "--num-workers", "1"], start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if len(list(out.rglob("*.mp4"))) >= clips:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
    assert kills == 3
    assert subprocess.run([*command, "--num-workers", "1"]).returncode == 0
    assert contents(out) == contents(whole)


def test_a_cut_last_line_of_the_manifest_is_made_good(tree, tmp_path):
    prepare(tree, tmp_path / "out")
    whole = (tmp_path / "out" / "manifest.jsonl").read_bytes()
    (tmp_path / "out" / "manifest.jsonl").write_bytes(whole[:-40])
    assert prepare(tree, tmp_path / "out")["prepared"] == 1
    assert (tmp_path / "out" / "manifest.jsonl").read_bytes() == whole


def test_a_clip_that_was_cut_is_written_again(tree, tmp_path):
    prepare(tree, tmp_path / "out")
    file = tmp_path / "out" / "train/run/a.mp4"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert prepare(tree, tmp_path / "out")["prepared"] == 1
    assert file.read_bytes() == whole


@pytest.mark.parametrize("change", ["changed", "gone", "new"])
def test_what_has_changed_in_the_source_is_prepared_again(tree, tmp_path, change):
    prepare(tree, tmp_path / "out")
    video = tree / "train" / "run" / "a.avi"
    if change == "changed":
        write_video(video, "mpeg4", 9, tag="XVID", first_number=500)
    elif change == "gone":
        video.unlink()
    else:
        write_video(video.with_name("new.avi"), "mpeg4", 9, tag="XVID", first_number=500)
    assert prepare(tree, tmp_path / "out")["prepared"] == (change != "gone")
    prepare(tree, tmp_path / "anew")
    assert contents(tmp_path / "out") == contents(tmp_path / "anew")


def test_other_settings_are_refused(tree, tmp_path, dvflnet):
    prepare(tree, tmp_path / "out")
    code, _, err = dvflnet("prepare", tree, tmp_path / "out", "--short-side", 128)
    assert code == 1
    assert err == (f"dvflnet: {tmp_path / 'out'}: was written with short_side 256, not 128; choose another folder\n")


# What is refused


@pytest.mark.parametrize("out", ["", "inner", ".."])
def test_an_output_in_its_source_is_refused(tree, out):
    with pytest.raises(ValueError, match="must be outside of .*, and must not contain it"):
        prepare(tree, tree / out)


def test_a_folder_that_holds_something_else_is_refused(tree, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").touch()
    with pytest.raises(ValueError, match="is neither empty nor a folder of an earlier run"):
        prepare(tree, tmp_path / "out")


def test_archives_and_hidden_files_are_neither_prepared_nor_copied(tree, tmp_path):
    for name in ("parts.tar.gz", "train/videos.rar", "train/run/._a.avi", ".DS_Store"):
        (tree / name).touch()
    with (
        pytest.warns(UserWarning, match=r"2 archives are neither read nor copied, .*gz, .*rar: extract them first"),
        pytest.warns(UserWarning, match=r"left out: 1 hidden or system files \(train/run/\._a\.avi\)"),
    ):
        assert prepare(tree, tmp_path / "out")["videos"] == 7
    assert {Path(name).suffix for name in contents(tmp_path / "out")} == {".mp4", ".jsonl", ".json"}


def test_two_videos_of_one_name_are_refused(tree, tmp_path):
    (tree / "train" / "run" / "a.webm").touch()
    with pytest.raises(ValueError, match=r"a\.(avi|webm) and .*a\.(avi|webm) would both be named train/run/a\.mp4"):
        prepare(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"short_side": 255}, {"crf": 52}, {"keyframe_interval": 0}])
def test_settings_out_of_range_are_refused(tree, tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        prepare(tree, tmp_path / "out", **options)


# Loading


def same_rows(prepared, source, size: int):
    """The same ids and labels in the same order; the first clip shows the same frames."""
    assert [(row["video_id"], row["label"]) for row in prepared] == [(row["video_id"], row["label"]) for row in source]
    assert len(list(source)) == size
    frames = [[read_number(frame) for frame in read_video(video_source(next(iter(rows))["video"]))[0]]
              for rows in (prepared, source)]  # fmt: skip
    assert frames[0] == frames[1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_prepared_release_of_ucf101_is_one(tmp_path):
    WRITERS["ucf101"](tmp_path / "ucf101")
    prepare(tmp_path / "ucf101", tmp_path / "out")
    for protocol in ("official", "dvflnet_8020"):
        ours, theirs = (load_benchmark("ucf101", tmp_path / name, "test", protocol) for name in ("out", "ucf101"))
        same_rows(ours, theirs, {"official": 10, "dvflnet_8020": 5}[protocol])
        assert ours["group"] == theirs["group"]


def test_a_prepared_release_is_read_where_it_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    WRITERS["jhmdb"](tmp_path / "jhmdb")
    prepare(tmp_path / "jhmdb", tmp_path / "out")
    storage = fsspec.filesystem("memory")
    storage.put(str(tmp_path / "out"), "/prepared", recursive=True)
    try:
        clips = load_benchmark("jhmdb", "memory://prepared", "test")
        same_rows(list(clips), list(load_benchmark("jhmdb", tmp_path / "out", "test")), 3)
    finally:
        storage.rm("/prepared", recursive=True)


def test_prepared_class_folders_keep_their_labels(tree, tmp_path):
    prepare(tree, tmp_path / "out")
    for split, size in (("train", 5), ("validation", 2)):
        source, prepared = (load_benchmark("folder", folder, split) for folder in (tree, tmp_path / "out"))
        assert [row["label"] for row in prepared] == [row["label"] for row in source] and len(prepared) == size
        stems = [[row["video_id"].rpartition(".")[0] for row in rows] for rows in (source, prepared)]
        assert stems[0] == stems[1]


def test_what_is_not_prepared_to_the_end_is_not_loaded(tree, tmp_path):
    prepare(tree, tmp_path / "out")
    (tmp_path / "out" / ".unfinished").mkdir()
    with pytest.raises(ValueError, match="preparation is not finished; run `dvflnet prepare` again"):
        load_video_folder(tmp_path / "out")


# Manifests that are not ours


@pytest.mark.parametrize(
    ("key", "wrong"),
    [(None, None), ("path", 7), ("stamp", 7)],
    ids=["no JSON", "a path of another kind", "a stamp of another kind"],
)
def test_a_manifest_of_another_shape_is_named_by_line(tree, tmp_path, key, wrong):
    prepare(tree, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.jsonl"
    first, *others = manifest.read_text().splitlines()
    manifest.write_text(
        ("{" if key is None else json.dumps({**json.loads(first), key: wrong})) + "\n" + "".join(others)
    )
    with pytest.raises(ValueError, match=r"manifest\.jsonl: line 1 is not a manifest line"):
        prepare(tree, tmp_path / "out")
