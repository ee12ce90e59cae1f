import os
from pathlib import Path, PureWindowsPath

import fsspec
import pyarrow.csv
import pyarrow.parquet
import pytest
from commands import run
from local_hub import LocalHub
from videos import write_among_others

from hf_dvflnet import VideoDecodeError, VideoLimits, read_video
from hf_dvflnet.data import video_files
from hf_dvflnet.data.storages import filesystem_of
from hf_dvflnet.data.video_column import video_source
from hf_dvflnet.data.video_files import HIDDEN, UNREADABLE, find_files, list_videos, read_video_list


CODECS = {
    ".gif": "gif",
    ".flv": "flv",
    ".ogv": "libvpx",
    ".webm": "libvpx",
    ".wmv": "wmv2",
    ".asf": "wmv2",
    ".vob": "mpeg2video",
}


def test_a_clip_has_the_same_id_on_windows(monkeypatch):
    root = PureWindowsPath("C:/videos")
    with monkeypatch.context() as windows:
        windows.setattr(os, "sep", "\\")
        found = video_files._below(str(root), str(root / "train" / "wave hands" / "a.mp4"))
    assert found == "train/wave hands/a.mp4"


def test_a_folder_is_replaced_by_its_videos_and_what_is_left_out_is_said(tmp_path):
    write_among_others(tmp_path)
    with pytest.warns(UserWarning) as said:
        videos = list_videos(["https://example.org/a.mp4", tmp_path, tmp_path / "none.mp4"])
    assert videos == [
        "https://example.org/a.mp4",
        *(str(tmp_path / name) for name in ("a.MP4", "b.wmv", "more/c.mp4")),
        str(tmp_path / "none.mp4"),
    ]
    assert [str(one.message) for one in said] == [
        f"{tmp_path}: left out: 4 hidden or system files (._a.mp4, ...); 2 broken links, "
        "pipes, sockets or devices (gone.mp4, ...); 2 files with other endings (notes.txt, poster.jpg)"
    ]
    assert said[0].filename == __file__


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: contains no videos"):
        list_videos([tmp_path])


def test_a_folder_that_lies_in_a_hidden_one_is_read(tmp_path):
    folder = tmp_path / ".cache" / "videos"
    folder.mkdir(parents=True)
    (folder / "a.mp4").touch()
    assert list_videos([folder]) == [str(folder / "a.mp4")]


def test_linked_folders_are_listed_in_each_place_and_circles_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").touch()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    files, left_out = find_files(tmp_path)
    assert files == [str(tmp_path / name) for name in ("a/1.mp4", "b/1.mp4")]
    assert left_out[UNREADABLE] == [str(tmp_path / "itself")]


@pytest.mark.parametrize("name", ["lost+found", "clips"])
def test_only_a_system_folder_may_be_unreadable(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(video_files.os, "scandir", refuse)
    if name == "lost+found":
        assert find_files(tmp_path)[0] == []
    else:
        with pytest.raises(PermissionError, match=f"{tmp_path}/clips"):
            find_files(tmp_path)


def test_hidden_files_of_a_remote_folder_are_left_out():
    filesystem = fsspec.filesystem("memory")
    for name in ("a.mp4", "._a.mp4", ".cache/b.mp4"):
        filesystem.pipe_file(f"/listing/{name}", b"")
    try:
        assert find_files("/listing", filesystem) == (
            ["/listing/a.mp4"],
            {HIDDEN: ["/listing/._a.mp4", "/listing/.cache/b.mp4"], UNREADABLE: []},
        )
    finally:
        filesystem.rm("/listing", recursive=True)


# patterns


def test_a_pattern_stands_for_what_it_matches(tmp_path):
    for name in ("a.mp4", "b.mp4", "more/c.mp4", "more/[1].mp4", "c.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list_videos([tmp_path / "*.mp4", tmp_path / "**" / "c.*", tmp_path / "more" / "[1].mp4", tmp_path / "m*"])
    expected = ["a.mp4", "b.mp4", "c.webm", "more/c.mp4", "more/[1].mp4", "more/[1].mp4", "more/c.mp4"]
    assert found == [str(tmp_path / name) for name in expected]
    assert list_videos(["https://example.org/a.mp4?part=[1]"]) == ["https://example.org/a.mp4?part=[1]"]


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_name_with_the_characters_of_patterns_is_what_it_names(tmp_path, protocol):
    root = protocol or f"{tmp_path}/"
    files = fsspec.filesystem("memory") if protocol else fsspec.filesystem("file", auto_mkdir=True)
    for folder in ("clips1", "clips[1]"):
        for name in ("a1.mp4", "a[1].mp4"):
            files.pipe(f"{root}{folder}/{name}", b"video")
    given = [f"{root}clips[1]/a[1].mp4", f"{root}clips[1]/*1.mp4"]
    names = [name[name.index("clips") :] for name in list_videos(given)]
    assert names == ["clips[1]/a[1].mp4", "clips[1]/a1.mp4"]
    if protocol:
        files.store.clear()


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\*\.mp4: no file or folder matches this pattern"):
        list_videos([tmp_path / "*.mp4"])


# names with characters of patterns and of fsspec's chains


@pytest.fixture
def storage():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_two_colons_in_a_name_are_no_chain(storage, tmp_path, video_files):
    content = video_files["vp9.webm"].read_bytes()
    storage.pipe("memory://a::b.webm", content)
    assert read_video("memory://a::b.webm")[1].total_num_frames == 40
    with video_source({"path": "memory://a::b.webm", "bytes": None}) as file:
        assert file.read() == content
    folder = tmp_path / "a::b[1]"
    folder.mkdir()
    (folder / "c.mp4").touch()
    filesystem, path = filesystem_of(str(folder))
    assert find_files(path, filesystem)[0] == list_videos([folder]) == [str(folder / "c.mp4")]


# the Hub


@pytest.mark.slow
def test_videos_on_the_hub_are_listed_and_read(tmp_path, video_files):
    code = """
        from hf_dvflnet import VideoDecodeError, VideoLimits, read_video
        from hf_dvflnet.data.video_files import list_videos
        print(list_videos(["hf://datasets/me/clips"]), list_videos(["hf://datasets/me/clips/*/a.*"]))
        for name in ("a.mp4", "none.mp4"):
            try:
                print(len(read_video(f"hf://datasets/me/clips/train/{name}")[0]))
            except ValueError as error:
                print(error)
    """
    with LocalHub() as hub:
        hub.repositories["me/clips"] = {
            "train/a.mp4": video_files["h264_short_gop.mp4"].read_bytes(),
            "train/.b.mp4": b"",
            "README.md": b"",
        }
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        out = run(code, tmp_path, **environment, HF_HOME=str(tmp_path / "home")).splitlines()
    assert out[0] == "['hf://datasets/me/clips/train/a.mp4'] ['hf://datasets/me/clips/train/a.mp4']"
    assert out[1] == "40"
    assert out[2].startswith("hf://datasets/me/clips/train/none.mp4: cannot be downloaded: 404")


def test_the_token_for_the_hub_is_not_used_for_the_paths_of_strangers():
    limits = VideoLimits(allow_private_addresses=False)
    with pytest.raises(VideoDecodeError, match="is read with this machine's credentials, which is not allowed"):
        read_video("hf://datasets/me/clips/a.mp4", limits=limits)


# lists


VIDEOS = ["a.mp4", "folder/b c.mp4", "https://example.org/ä.mp4"]


@pytest.fixture
def write_list(tmp_path):
    """Write a list by each kind of file: `write_list("a.csv", {"path": [...]})`."""

    def write(name: str, columns: dict[str, list]):
        table = pyarrow.table(columns)
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(table, tmp_path / name)
        else:
            pyarrow.csv.write_csv(table, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_file_has_a_video_a_line(tmp_path, end):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + end.join(VIDEOS).encode())
    assert read_video_list(tmp_path / "list.txt") == VIDEOS


def test_empty_lines_are_left_out_and_said(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4\n\n  \nb.mp4\n")
    with pytest.warns(UserWarning, match="list.txt: left out: 2 empty lines or cells") as said:
        assert read_video_list(tmp_path / "list.txt") == ["a.mp4", "b.mp4"]
    assert said[0].filename == __file__


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_has_a_column_of_videos(write_list, suffix):
    file = write_list(f"list.{suffix}", {"label": [1, 2, 3], "path": VIDEOS})
    assert read_video_list(file, "path") == VIDEOS
    assert read_video_list(write_list(f"one.{suffix}", {"file": VIDEOS})) == VIDEOS


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "reason"), [(None, "has several columns; choose one of 'a', 'b'"), ("c", "has no column 'c'; choose")]
)
def test_a_column_is_never_guessed(write_list, suffix, column, reason):
    file = write_list(f"list.{suffix}", {"a": ["x"], "b": ["y"]})
    with pytest.raises(ValueError, match=rf"list.{suffix}: {reason}"):
        read_video_list(file, column)


def test_what_is_no_list_is_refused(tmp_path, write_list):
    for content, reason in ((b"\n", "contains no videos"), (b"ab\0c", "line 1 has a zero byte")):
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(ValueError, match=f"list.txt: {reason}"):
            read_video_list(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="list.txt: is read as text, which has no column 'a'"):
        read_video_list(tmp_path / "list.txt", "a")
    with pytest.raises(ValueError, match=r"list.parquet: the column 'a' contains int64; text is expected"):
        read_video_list(write_list("list.parquet", {"a": [1]}))
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match="bad.parquet: "):
        read_video_list(tmp_path / "bad.parquet")
    with pytest.raises(FileNotFoundError, match=r"none.csv"):
        read_video_list(tmp_path / "none.csv")
