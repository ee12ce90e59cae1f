import importlib.util
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
from commands import DVFLNET, start
from places import HELPERS, ROOT
from videos import write_video

from hf_dvflnet import VideoLimits, load_model, load_processor, predict_to_file, set_video_limits
from hf_dvflnet.data import jobs
from hf_dvflnet.video_decoding import video_limits


ray = pytest.importorskip("ray", reason="needs the extra ray")
PATH = os.pathsep.join([str(ROOT), str(HELPERS), str(HELPERS / "crashing")])
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH, "RAY_USAGE_STATS_ENABLED": "0"}
ENVIRONMENT["DVFLNET_TEST_CRASH"] = "crashes.mp4"
# a warning of Ray's own, about its C++ code, that says nothing of the run
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:ray")


@pytest.fixture
def model_and_processor(tiny_folder):
    return load_model(str(tiny_folder)), load_processor(str(tiny_folder))


class GatedVideo:
    """A video that a server holds back until its gate is opened: nothing that needs it ends before."""

    def __init__(self, content: bytes):
        self.asked, self.gate = 0, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                outer.gate.wait()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *arguments: None  # whoever asked was killed
        self.url = f"http://127.0.0.1:{self.server.server_port}/gated.mp4"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def gated(tmp_path):
    video = GatedVideo(write_video(tmp_path / "gated.mp4", "mpeg4", 9, 80, 48).read_bytes())
    yield video
    video.close()


@pytest.fixture
def videos(tmp_path, gated) -> list[str]:
    """320 names of five small videos, two parts of a file; two cannot be read, and the second part waits for one."""
    few = [write_video(tmp_path / f"{n}.mp4", "mpeg4", 8 + n, 80, 48, first_number=50 * n) for n in range(5)]
    names = [tmp_path / "many" / f"{number:03d}.mp4" for number in range(320)]
    names[0].parent.mkdir()
    for number, name in enumerate(names):
        os.link(few[number % 5], name)
    names[3].unlink()
    names[4].unlink()
    names[4].write_bytes(b"no video")
    return [*map(str, names[:300]), gated.url, *map(str, names[301:])]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU, and a connection, so that workers that one test has started serve the next."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "PYTHONPATH", "RAY_USAGE_STATS_ENABLED", "DVFLNET_TEST_CRASH"):
            patch.setenv(name, ENVIRONMENT[name])
        patch.setenv("RAY_worker_niceness", "0")  # by default, workers wait for all other processes of the machine
        # a gate may be closed for long on a slow machine
        patch.setenv("DVFLNET_VIDEO_LIMITS", "max_download_seconds=600")
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
        add_node(started)
        ray.init(started.address, log_to_driver=False)
        yield started
        ray.shutdown()
        started.shutdown()


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=100 << 20)


@pytest.fixture(autouse=True)
def limits():
    before = video_limits()
    set_video_limits(VideoLimits(max_download_seconds=600))
    yield
    set_video_limits(before)


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
        ({"ray": "127.0.0.1:9"}, ConnectionError, "no Ray cluster answers at 127.0.0.1:9"),
        ({"ray": "here"}, ValueError, "here: is not the address of a Ray cluster, which is auto, local or HOST:P"),
        ({"ray": "ray://127.0.0.1:9"}, ValueError, "is the address of a Ray client"),
    ],
)
def test_what_ray_cannot_do_is_refused(model_and_processor, tmp_path, options, error, reason):
    with pytest.raises(error, match=reason):
        predict_to_file(*model_and_processor, ["a.mp4"], tmp_path / "scores.csv", **options)
    assert not (tmp_path / "scores.csv").exists()


def test_a_cluster_that_the_environment_names_and_that_is_gone_is_said(model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConnectionError, match="no Ray cluster answers at 127.0.0.1:9"):
        predict_to_file(*model_and_processor, ["a.mp4"], tmp_path / "scores.csv", ray="auto")


def test_a_launcher_beside_ray_is_refused(model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="start it without a launcher"):
        predict_to_file(*model_and_processor, ["a.mp4"], tmp_path / "scores.csv", ray="auto")


def test_ray_that_is_not_installed_is_named_with_its_extra(dvflnet, tiny_folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(jobs, "find_spec", lambda name: None if name == "ray" else find(name))
    code, _, error = dvflnet("predict", tiny_folder, "http://a/b.mp4", "--output", tmp_path / "a.csv", "--ray", "auto")
    assert (code, error) == (1, "dvflnet: --ray needs Ray: pip install 'hf_dvflnet[ray]'\n")


# on a cluster


@pytest.mark.slow
def test_rows_are_those_of_a_local_run_and_a_crash_of_a_decoder_is_one_of_them(
    model_and_processor, videos, tmp_path, cluster
):
    model, processor = model_and_processor
    videos = videos[:40]
    os.link(videos[20], tmp_path / "crashes.mp4")
    videos[20] = str(tmp_path / "crashes.mp4")
    predict_to_file(model, processor, videos, tmp_path / "local.parquet", num_workers=0, embeddings=True)
    options = {"embeddings": True, "batch_size": 3, "ray": "auto"}
    found = predict_to_file(model, processor, videos, tmp_path / "ray.parquet", **options)
    assert found["written"] == 40
    assert found["failures"] == {"FileNotFoundError": 1, "VideoDecodeError": 1, "DecoderCrash": 1}
    rows, expected = rows_of(tmp_path / "ray.parquet"), rows_of(tmp_path / "local.parquet")
    assert rows[20]["error"].startswith(f"{videos[20]}: the process that decoded it ended")
    del rows[20], expected[20]
    for row, other in zip(rows, expected, strict=True):
        embedding, of_other = row.pop("embedding"), other.pop("embedding")
        assert embedding == (of_other and pytest.approx(of_other, abs=1e-5))
    assert_equal(rows, expected)


@pytest.mark.slow
def test_workers_have_the_folder_and_the_limits_of_the_command(
    model_and_processor, videos, tmp_path, cluster, monkeypatch
):
    monkeypatch.chdir(tmp_path / "many")
    set_video_limits(VideoLimits(max_frames=10))
    names = ["000.mp4", "006.mp4", "007.mp4", "008.mp4"]
    predict_to_file(*model_and_processor, names, tmp_path / "ray.parquet", ray="auto")
    rows = rows_of(tmp_path / "ray.parquet")
    assert [row["frames"] for row in rows] == [8, 9, 10, None]
    assert "more frames than the limit of 10 (max_frames)" in rows[3]["error"]


def wait_until(holds, is_running):
    end = time.monotonic() + 400
    while not (found := holds()) and is_running() and time.monotonic() < end:
        time.sleep(0.02)
    assert found and is_running()
    return found


def decoding() -> list[psutil.Process]:
    """The workers of the cluster that decode and have a child."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::_run" in " ".join(process.cmdline()) and process.children():
                found.append(process)
        except psutil.Error:
            continue
    return found


def children_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [child for process in processes for child in process.children(recursive=True)]


@pytest.mark.slow
def test_a_worker_and_then_a_node_are_killed_and_no_row_is_lost_or_double(
    model_and_processor, videos, tmp_path, cluster, gated
):
    output = tmp_path / "scores.parquet"
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(predict_to_file, *model_and_processor, videos, output, ray="auto")
        try:
            wait_until(lambda: parts_of(output) and gated.asked, lambda: not run.done())
            workers = decoding()
            children = children_of(workers)
            for worker in workers:
                worker.kill()
            _, alive = psutil.wait_procs(children, timeout=60)
            assert children and not alive
            wait_until(lambda: gated.asked > 1, lambda: not run.done())  # the task runs again
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            add_node(cluster)
        finally:
            gated.gate.set()
        assert run.result(timeout=400)["written"] == 320
    predict_to_file(*model_and_processor, videos, tmp_path / "local.parquet", num_workers=0)
    assert_equal(rows_of(output), rows_of(tmp_path / "local.parquet"))


@pytest.mark.slow
def test_the_command_is_killed_and_run_again_and_leaves_no_child(
    tiny_folder, model_and_processor, videos, tmp_path, cluster, gated, dvflnet
):
    output = tmp_path / "scores.parquet"
    (tmp_path / "list.txt").write_text("\n".join(videos))
    words = ("--list", tmp_path / "list.txt", "--output", output, "--ray", cluster.address)
    run = start(*DVFLNET, "predict", tiny_folder, *words, PYTHONPATH=PATH)
    try:
        wait_until(lambda: parts_of(output) and gated.asked, lambda: run.poll() is None)
        children = children_of(decoding())
    finally:
        run.kill()
        run.communicate()
    assert children and parts_of(output) == {"part-00000000.parquet"}
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive and not decoding()
    gated.gate.set()
    code, said, error = dvflnet("predict", tiny_folder, *words)
    assert code == 0 and re.search(r"^written +64$", said, flags=re.MULTILINE), error
    predict_to_file(*model_and_processor, videos, tmp_path / "local.parquet", num_workers=0)
    assert_equal(rows_of(output), rows_of(tmp_path / "local.parquet"))
    assert not Path(f"{output}.parts").exists()
