"""Lists, videos and predictions in storages that fsspec knows. moto stands in for S3."""

from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest
from commands import refused
from fsspec.registry import _registry, known_implementations
from videos import write_video

from hf_dvflnet import VideoDecodeError, VideoLimits, load_model, load_processor, predict_to_file, read_video
from hf_dvflnet.data.video_files import read_video_list
from hf_dvflnet.inference import bulk_prediction


moto_server = pytest.importorskip("moto.server", reason="needs moto, of the extra dev")
pytest.importorskip("s3fs", reason="needs the extra s3")


@pytest.fixture(scope="module")
def s3():
    """A filesystem with the bucket `bucket`, which this process and those that it starts find at s3://."""
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        filesystem = fsspec.filesystem("s3")
        filesystem.mkdir("bucket")
        yield filesystem
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def clips(s3, tmp_path_factory) -> Path:
    """Five clips and a file that is none, here and in s3://bucket/clips, with the list s3://bucket/list.csv."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        write_video(folder / f"{number}.mp4", "mpeg4", 8 + number, 80, 48, first_number=50 * number)
    (folder / "5.mp4").write_bytes(b"no video")
    s3.put(str(folder), "bucket/clips", recursive=True)
    s3.pipe("bucket/list.csv", ("video\n" + "".join(f"s3://bucket/clips/{n}.mp4\n" for n in range(6))).encode())
    return folder


def model_and_processor(folder: Path):
    return load_model(str(folder)), load_processor(str(folder))


def without_place(rows: list[dict], place: str) -> list[dict]:
    return [{name: str(value).replace(place, "") for name, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    "given", [["s3://bucket/clips"], ["s3://bucket/clips/*.mp4"], ["--list", "s3://bucket/list.csv"]]
)
def test_rows_of_videos_on_s3_are_those_of_the_same_files_here(dvflnet, tiny_folder, s3, clips, tmp_path, given):
    words = ("--num-workers", 0, "--output")
    assert dvflnet("predict", tiny_folder, clips, *words, tmp_path / "here.parquet")[0] == 0
    output = "s3://bucket/" + given[-1].rpartition("/")[2].replace("*", "") + ".parquet"
    code, said, _ = dvflnet("predict", tiny_folder, *given, *words, output)
    shown = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert code == 0 and (shown["videos"], shown["failures"]) == ("6", "{'VideoDecodeError': 1}")
    with s3.open(output) as file:
        there = pyarrow.parquet.read_table(file).to_pylist()
    here = pyarrow.parquet.read_table(tmp_path / "here.parquet").to_pylist()
    assert without_place(there, "s3://bucket/clips") == without_place(here, str(clips))


def test_a_run_that_writes_to_s3_goes_on_where_it_was_stopped(tiny_folder, s3, clips, monkeypatch):
    model, processor = model_and_processor(tiny_folder)
    videos, output = [str(clips / f"{number}.mp4") for number in range(5)], "s3://bucket/stopped.jsonl"
    monkeypatch.setattr(bulk_prediction, "ROWS_PER_PART", 2)
    with monkeypatch.context() as patch:
        patch.setattr(bulk_prediction.PredictionFile, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_to_file(model, processor, videos, output, num_workers=0)
    parts = sorted(Path(part).name for part in s3.ls("bucket/stopped.jsonl.parts", detail=False))
    assert parts == [f"part-{number:08d}.parquet" for number in range(3)]
    s3.rm("bucket/stopped.jsonl.parts/part-00000001.parquet")

    found = predict_to_file(model, processor, videos, output, num_workers=0)
    assert (found["written"], found["failures"]) == (2, {})
    assert s3.cat("bucket/stopped.jsonl").decode().count("\n") == 5
    s3.invalidate_cache()
    assert not s3.exists("bucket/stopped.jsonl.parts")
    with pytest.raises(ValueError, match="stopped.jsonl: belongs to a run with different top_k"):
        predict_to_file(model, processor, videos, output, num_workers=0, top_k=2)


def test_parts_of_a_run_with_a_similar_name_are_not_removed(tiny_folder, clips):
    files = fsspec.filesystem("memory")
    files.pipe("/scores1.csv.parts/part-00000000.parquet", b"of another run")
    with pytest.warns(UserWarning, match="cannot be continued"):
        predict_to_file(*model_and_processor(tiny_folder), [clips / "0.mp4"], "memory://scores[1].csv", num_workers=0)
    assert files.exists("/scores1.csv.parts/part-00000000.parquet")
    assert files.find("/scores[1].csv.parts") == []
    files.store.clear()


def stop(file):
    raise KeyboardInterrupt


def test_an_output_in_memory_is_written_and_said_not_to_be_continued(tiny_folder, clips):
    with pytest.warns(UserWarning, match="memory://a.csv: ends with this process; a run .* cannot be continued"):
        predict_to_file(*model_and_processor(tiny_folder), [clips / "0.mp4"], "memory://a.csv", num_workers=0)
    assert fsspec.filesystem("memory").cat("/a.csv").decode().count("\n") == 2
    fsspec.filesystem("memory").store.clear()


def test_a_list_in_memory_is_read():
    fsspec.filesystem("memory").pipe("/list.txt", b"a.mp4\nb.mp4\n")
    assert read_video_list("memory://list.txt") == ["a.mp4", "b.mp4"]
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (VideoLimits(max_download_bytes=100), r"larger than the limit of 100 bytes \(max_download_bytes\)"),
        (VideoLimits(max_download_seconds=1e-6), r"not downloaded within the limit of .* \(max_download_seconds\)"),
        (VideoLimits(max_frames=3), r"more frames than the limit of 3 \(max_frames\)"),
        (VideoLimits(allow_private_addresses=False), r"credentials, which is not allowed \(allow_private_addresses\)"),
    ],
)
def test_the_limits_of_videos_hold_on_s3(clips, limits, reason):
    with pytest.raises(VideoDecodeError, match=f"^s3://bucket/clips/0.mp4: .*{reason}"):
        read_video("s3://bucket/clips/0.mp4", limits=limits)


@pytest.mark.parametrize(
    "words", [["s3://b/a.mp4"], ["a.mp4", "--output", "s3://b/a.csv"], ["--list", "s3://b/a.txt"]]
)
def test_the_extra_that_reads_s3_is_named_where_it_is_not_installed(dvflnet, tiny_folder, words, monkeypatch):
    # as fsspec finds it where s3fs is not installed
    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(known_implementations, "s3", {"class": "none.S3", "err": "Install s3fs"})
    refused(dvflnet("predict", tiny_folder, *words), "needs another package: pip install 'hf_dvflnet[s3]'")


def test_a_bucket_that_is_not_there_is_one_sentence(dvflnet, tiny_folder, s3, clips):
    result = dvflnet("predict", tiny_folder, clips / "0.mp4", "--num-workers", 0, "--output", "s3://none/a.csv")
    refused(result, "s3://none/a.csv.run.json: ")
