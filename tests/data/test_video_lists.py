import pyarrow.csv
import pyarrow.parquet
import pytest

from hf_dvflnet.data.video_files import read_video_list


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
