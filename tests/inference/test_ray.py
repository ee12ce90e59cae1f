import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
from crashing_processor import CrashingProcessor
from places import ROOT
from videos import write_video

from hf_dvflnet import load_model, load_processor, predict_to_file, predict_with_ray
from hf_dvflnet.inference import ray_prediction


pytest.importorskip("ray")
PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH, "RAY_USAGE_STATS_ENABLED": "0"}
# a warning of Ray's own, about its C++ code, that says nothing of the run
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:ray")


@pytest.fixture
def model_and_processor(tiny_folder):
    return load_model(str(tiny_folder)), load_processor(str(tiny_folder))


@pytest.fixture
def videos(tmp_path) -> list[str]:
    """600 names of five small videos, three parts of a file, and two that cannot be read."""
    few = [write_video(tmp_path / f"{n}.mp4", "mpeg4", 8 + n, 80, 48, first_number=50 * n) for n in range(5)]
    names = [tmp_path / "many" / f"{number:03d}.mp4" for number in range(600)]
    names[0].parent.mkdir()
    for number, name in enumerate(names):
        os.link(few[number % 5], name)
    names[3].unlink()
    names[4].unlink()
    names[4].write_bytes(b"no video")
    return list(map(str, names))


@pytest.fixture
def cluster(monkeypatch):
    """A head of 2 CPUs and a node of 1."""
    from ray.cluster_utils import Cluster

    for name in ("OMP_NUM_THREADS", "PYTHONPATH", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20})
    add_node(started)
    yield started
    started.shutdown()


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=100 << 20)


def rows_of(output: Path) -> list[dict]:
    return pyarrow.parquet.read_table(output).to_pylist()


def assert_equal(rows: list[dict], expected: list[dict]):
    for row, other in zip(rows, expected, strict=True):
        assert {**row, "scores": None} == {**other, "scores": None}
        assert row["scores"] == (other["scores"] and pytest.approx(other["scores"], abs=1e-6))


def parts_of(output: Path) -> set[str]:
    return {path.name for path in Path(f"{output}.parts").glob("part-*.parquet")}


# refusals


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"address": "127.0.0.1:9"}, ConnectionError, "no Ray cluster answers at 127.0.0.1:9"),
        ({"address": "here"}, ValueError, "here: is not the address of a Ray cluster, which is auto, local or HOST:P"),
        ({"address": "ray://127.0.0.1:9"}, ValueError, "is the address of a Ray client"),
        ({"device": "mps"}, ValueError, "device must be auto, cpu or cuda, got mps"),
    ],
)
def test_what_ray_cannot_do_is_refused(model_and_processor, tmp_path, options, error, reason):
    with pytest.raises(error, match=reason):
        predict_with_ray(*model_and_processor, ["a.mp4"], tmp_path / "scores.csv", **options)
    assert not (tmp_path / "scores.csv").exists()


def test_a_cluster_that_the_environment_names_and_that_is_gone_is_said(model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConnectionError, match="no Ray cluster answers at 127.0.0.1:9"):
        predict_with_ray(*model_and_processor, ["a.mp4"], tmp_path / "scores.csv")


def test_a_launcher_beside_ray_is_refused(model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start one process, without a launcher"):
        predict_with_ray(*model_and_processor, ["a.mp4"], tmp_path / "scores.csv")


def test_ray_that_is_not_installed_is_named_with_its_extra(dvflnet, tiny_folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(ray_prediction, "find_spec", lambda name: None if name == "ray" else find(name))
    code, _, error = dvflnet("predict", tiny_folder, "http://a/b.mp4", "--output", tmp_path / "a.csv", "--ray", "auto")
    assert (code, error) == (1, "dvflnet: --ray needs Ray: pip install 'hf_dvflnet[ray]'\n")


@pytest.mark.parametrize("options", [[], ["--output", "a.csv", "--num-workers", "2"]])
def test_the_command_refuses_options_that_ray_does_not_have(dvflnet, tiny_folder, options):
    code, _, error = dvflnet("predict", tiny_folder, "a.mp4", "--ray", "auto", *options)
    assert code == 1 and "--ray needs --output, without --windows and --num-workers" in error


# on a cluster


@pytest.mark.slow
def test_rows_are_those_of_a_local_run_and_a_crash_of_a_decoder_is_one_of_them(
    model_and_processor, videos, tmp_path, cluster
):
    model, processor = model_and_processor
    videos = videos[:40]
    predict_to_file(model, processor, videos, tmp_path / "local.parquet", num_workers=0, embeddings=True)
    crashing = CrashingProcessor(processor, videos[20])
    found = predict_with_ray(
        *(model, crashing, videos, tmp_path / "ray.parquet"), address=cluster.address, embeddings=True, batch_size=3
    )
    assert (found["written"], found["nodes"], found["gpus"]) == (40, 2, 0)
    assert found["failures"] == {"FileNotFoundError": 1, "VideoDecodeError": 1, "DecoderCrash": 1}
    rows, expected = rows_of(tmp_path / "ray.parquet"), rows_of(tmp_path / "local.parquet")
    assert rows[20]["error"].startswith(f"{videos[20]}: the process that read this video ended")
    del rows[20], expected[20]
    for row, other in zip(rows, expected, strict=True):
        embedding, of_other = row.pop("embedding"), other.pop("embedding")
        assert embedding == (of_other and pytest.approx(of_other, abs=1e-5))
    assert_equal(rows, expected)


def start(tiny_folder, tmp_path, videos: list[str], cluster) -> subprocess.Popen:
    (tmp_path / "list.txt").write_text("\n".join(videos))
    words = ["--list", tmp_path / "list.txt", "--output", tmp_path / "scores.parquet", "--ray", cluster.address]
    command = [sys.executable, "-m", "dvflnet_cli", "predict", tiny_folder, *words]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=ENVIRONMENT, **output)


def finish(run: subprocess.Popen) -> str:
    said, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    return said


def wait_until(holds, run: subprocess.Popen):
    end = time.monotonic() + 400
    while not (found := holds()) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert run.poll() is None, run.communicate()
    assert found
    return found


def decoding() -> list[psutil.Process]:
    """The tasks that decode and have a child. Started by this test, since their videos are of its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if "MapBatches(_decode)" in " ".join(process.cmdline()) and process.children():
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if os.getpid() in [parent.pid for parent in process.parents()]]


def children_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [child for process in processes for child in process.children(recursive=True)]


@pytest.mark.slow
def test_a_worker_and_then_a_node_are_killed_and_no_row_is_lost_or_double(
    tiny_folder, model_and_processor, videos, tmp_path, cluster
):
    predict_to_file(*model_and_processor, videos, tmp_path / "local.parquet", num_workers=0)
    node = cluster.list_all_nodes()[-1]
    run = start(tiny_folder, tmp_path, videos, cluster)
    first = wait_until(decoding, run)
    first[0].kill()
    wait_until(lambda: parts_of(tmp_path / "scores.parquet"), run)
    cluster.remove_node(node, allow_graceful=False)
    add_node(cluster)
    assert "\n600 videos, " in finish(run)  # after what Ray says of the killed worker
    assert_equal(rows_of(tmp_path / "scores.parquet"), rows_of(tmp_path / "local.parquet"))


@pytest.mark.slow
def test_the_command_is_killed_and_run_again_and_leaves_no_child(
    tiny_folder, model_and_processor, videos, tmp_path, cluster
):
    predict_to_file(*model_and_processor, videos, tmp_path / "local.parquet", num_workers=0)
    run = start(tiny_folder, tmp_path, videos, cluster)
    wait_until(lambda: parts_of(tmp_path / "scores.parquet"), run)
    children = children_of(decoding())
    run.kill()
    run.communicate()
    parts = parts_of(tmp_path / "scores.parquet")
    assert parts
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive and not decoding()
    written = 600 - sum(min(256, 600 - 256 * int(part[5:13])) for part in parts)
    assert finish(start(tiny_folder, tmp_path, videos, cluster)).startswith(f"{written} videos, ")
    assert_equal(rows_of(tmp_path / "scores.parquet"), rows_of(tmp_path / "local.parquet"))
    assert not Path(f"{tmp_path / 'scores.parquet'}.parts").exists()
