"""Commands for videos: predict, windows, segments, watch, demo, visualize, benchmark."""

import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .common import DType, argument, one_line, option, pick, printable, say, shared, show, use_sandbox


Videos = list[str]  # named, since `list` is an option of predict
VIDEOS = "Files, folders, patterns such as '*.mp4', http(s) URLs, hf:// or s3:// paths."
CLASSIFIER = "A model folder or Hub id, or a folder written by `dvflnet export`."


@dataclass
class Predict:
    """
    Classify videos.

    If a video cannot be read, the error is printed on stderr, all other videos are classified, and the exit code is 1.

    With --output, each video is a row, with the error of one that cannot be read, and the exit code is 0. The same
    command resumes where it was stopped. Several processes share the videos: `accelerate launch -m dvflnet_cli predict
    ...`, or a cluster does: --ray.
    """

    model: str = argument(CLASSIFIER)
    videos: Videos = argument(VIDEOS, metavar="VIDEO...", default_factory=list)
    list: str | None = option(None, "List of further videos: text with one per line, or a .csv or .parquet file.")
    column: str | None = option(None, "Column of the list, unless it is the only one.")
    top_k: int = option(5, "Number of classes per video; 0 with --embeddings.", minimum=0)
    views: Literal[1, 4, 12] = shared("views")
    embeddings: bool = option(False, "Write the pooled features, too; needs --output.")
    output: str | None = option(None, "A .parquet, .jsonl or .csv file, or a folder of Parquet files.")
    retry_failed: bool = option(False, "Read videos again whose rows in the folder --output have an error.")
    suggest: int | None = option(
        None, "Print this many videos alone: those whose labels would teach the model most.", minimum=1
    )
    json: bool = option(False, "Print one line of JSON per video.")
    device: str = shared("device")
    dtype: DType = shared("dtype")
    compile: bool = shared("compile")
    batch_size: int | None = option(None, "Videos classified at once; by default 1, and 8 with --output.", minimum=1)
    ray: str | None = shared("ray")
    num_workers: int | None = option(None, "Sandboxes that decode; 1, or one per CPU with --output.", minimum=0)

    def run(self) -> int:
        if not self.videos and self.list is None:
            raise ValueError("predict needs videos: files, folders, patterns or URLs, or a --list of them")
        for refused, reason in (
            (self.column is not None and self.list is None, "--column needs --list FILE"),
            (self.output is not None and self.json, "--output cannot be combined with --json"),
            (self.output is not None and self.suggest is not None, "--suggest prints, and takes no --output"),
            (self.suggest is not None and self.top_k < 2, "--suggest needs --top_k 2 or more"),
            (self.embeddings and self.output is None, "--embeddings needs --output"),
            (self.top_k == 0 and not self.embeddings, "--top_k 0 needs --embeddings"),
            (self.ray is not None and self.output is None, "--ray needs --output"),
            (self.retry_failed and self.output is None, "--retry_failed needs --output"),
            (
                self.ray is not None and (self.num_workers is not None or self.device != "auto" or self.compile),
                "--ray has workers of its own; leave out --num_workers, --device and --compile",
            ),
        ):
            if refused:
                raise ValueError(reason)
        use_sandbox()
        from hf_dvflnet.data.video_files import list_videos
        from hf_dvflnet.hub.loading import load_processor
        from hf_dvflnet.inference.pipeline import load_placed

        videos = list_videos(self.videos)
        if self.list is not None:
            from hf_dvflnet.data.video_files import read_video_list

            videos += read_video_list(self.list, self.column)
        device = self.device if self.ray is None else "cpu"  # the workers of Ray place it
        network = load_placed(self.model, device, self.dtype, self.compile)
        processor = load_processor(self.model)
        if self.output is None:
            return self.print_rows(network, processor, videos)
        from hf_dvflnet.inference.bulk_prediction import predict_to_file

        options = pick(self, "views top_k embeddings num_workers ray retry_failed")
        found = predict_to_file(network, processor, videos, self.output, batch_size=self.batch_size or 8, **options)
        show({"output": self.output, **found}, False)
        if found["failures"]:
            failed = sum(found["failures"].values())
            say(f"dvflnet: {failed} of {found['videos']} rows have an error", err=True)
        return 0

    def print_rows(self, network, processor, videos) -> int:
        from tqdm.auto import tqdm

        from hf_dvflnet.data.jobs import quiet_videos
        from hf_dvflnet.inference.pipeline import predict_videos

        several = len(videos) > 1
        workers = 1 if self.num_workers is None else self.num_workers
        rows = predict_videos(
            *(network, processor, videos),
            **pick(self, "views top_k"),
            embeddings=self.suggest is not None,
            batch_size=self.batch_size or 1,
            num_workers=workers if several else 0,
        )
        failed, told = 0, []
        bar = tqdm(total=len(videos), unit="video", disable=None if several else True)
        with quiet_videos(), bar as progress:
            for row in rows:
                with tqdm.external_write_mode():
                    failed += "error" in row
                    remark = row.get("error") or row["warning"]
                    if remark:
                        say(f"dvflnet: {one_line(remark)}", err=True)
                    if self.suggest is not None:
                        told += [] if "error" in row else [row]
                    elif "error" not in row:
                        self.print_row(row, network.config)
                progress.update()
        if told and self.suggest is not None:
            from hf_dvflnet.inference.suggestions import between_classes

            scores = [[answer["score"] for answer in row["answers"]] for row in told]
            for place in between_classes(scores, [row.pop("embedding") for row in told], self.suggest):
                self.print_row(told[place], network.config)
        return report_failed(failed, len(videos))

    def print_row(self, row: dict[str, Any], config):
        from hf_dvflnet.inference.pipeline import answer_text, score_text

        if self.json:
            return show(row, True)
        say(row["video"])
        for answer in row["answers"]:
            say(f"  {score_text(answer['score'], config):>6}  {answer_text(answer)}")


def report_failed(failed: int, videos: int) -> int:
    """Say how many videos could not be read, and return the exit code."""
    if failed:
        say(f"dvflnet: {failed} of {videos} videos could not be read", err=True)
    return 1 if failed else 0


EVENTS = "start_score end_score shortest longest_gap"


@dataclass
class Segments:
    """
    Find what happens when in long videos, and print a table of events: label, start, end and score.

    If a video cannot be read, the error is printed on stderr, all other videos are classified, and the exit code is 1.
    """

    model: str = argument(CLASSIFIER)
    videos: Videos = argument(VIDEOS, metavar="VIDEO...")
    output: str | None = option(None, "A new .csv or .json file, or .vtt (subtitles) for one video, not stdout.")
    window: float = option(2.0, "Length of a window in seconds. Not for causal models.", minimum=0.001)
    stride: float = option(0.5, "Seconds between two windows. Not for causal models.", minimum=0.001)
    start_score: float = shared("start_score")
    end_score: float = shared("end_score")
    shortest: float = shared("shortest")
    longest_gap: float = shared("longest_gap")
    device: str = shared("device")
    dtype: DType = shared("dtype")

    def run(self) -> int:
        from hf_dvflnet import VideoStreamClassifier
        from hf_dvflnet.data.video_files import list_videos
        from hf_dvflnet.hub import model_folder
        from hf_dvflnet.hub.loading import load_processor
        from hf_dvflnet.inference.events import EventFinder, write_events
        from hf_dvflnet.inference.pipeline import load_placed

        suffix = ".csv" if self.output is None else Path(self.output).suffix
        if suffix not in (".csv", ".json", ".vtt"):
            raise ValueError(f"{self.output}: --output needs a .csv, .json or .vtt file")
        if self.output is not None:
            model_folder.refuse_existing(Path(self.output), False)
        use_sandbox()
        videos = list_videos(self.videos)
        if suffix == ".vtt" and len(videos) > 1:
            raise ValueError(f"{self.output}: a .vtt file is of one video, but there are {len(videos)}")
        network = load_placed(self.model, self.device, self.dtype)
        causal = getattr(network.config, "causal", False)
        lengths: dict[str, Any] = {"window_seconds": self.window, "stride_seconds": self.stride}
        every = network.config.num_labels
        classifier = VideoStreamClassifier(
            network, load_processor(self.model), **({} if causal else lengths), top_k=every
        )
        rows, failed = [], 0
        for video in videos:
            finder = EventFinder.of(classifier, **pick(self, EVENTS))
            try:
                for answer in classifier.run(video):
                    ended = list(finder.add(answer.time or 0.0, dict(answer.top)))
                    rows += [{"video": video, **event.row()} for kind, event in ended if kind == "end"]
                rows += [{"video": video, **event.row()} for _, event in finder.finish()]
                if not rows or rows[-1]["video"] != video:
                    needed = f"--start_score is {finder.start_score:g}, --shortest {self.shortest:g} s"
                    say(
                        f"dvflnet: {one_line(video)}: no events; the highest score was {finder.highest:.3f}, {needed}",
                        err=True,
                    )
            except (OSError, ValueError) as error:
                failed += 1
                say(f"dvflnet: {one_line(error)}", err=True)
        if self.output is None:
            write_events([{**row, "video": printable(row["video"])} for row in rows], sys.stdout, suffix)
        else:
            with (
                model_folder.whole_or_nothing(self.output) as path,
                open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
            ):
                write_events(rows, file, suffix)
            say(f"{self.output}: {len(rows)} events in {len(videos) - failed} videos")
        return report_failed(failed, len(videos))


@dataclass
class Watch:
    """
    Continuously classify a camera, a network stream or a file, and print the answers.

    For a live source, answers are never late by more than one stride and one forward pass: if the model is too slow,
    windows are skipped and counted. Ctrl-C stops and prints a summary.
    """

    model: str = argument(CLASSIFIER)
    source: str = argument("A file; an rtsp, rtmp, udp or http(s) URL; /dev/video0, avfoundation:0, dshow:video=NAME.")
    window: float | None = option(
        None, "Length of a window in seconds; 2 if unset. Not for causal models.", minimum=0.001
    )
    stride: int | None = option(
        None, "Frames between answers; those of half a second if unset, and for causal models 1.", minimum=1
    )
    smoothing: float = option(0.0, "Weight of the previous answers in the average: at least 0, below 1.")
    threshold: float | None = option(
        None,
        "Minimum score for a label, and to start an event; that of the model, if it has one, if unset.",
        minimum=0,
        maximum=1,
    )
    top_k: int = option(5, "Number of classes in a line of JSON.", minimum=1)
    fps: float | None = option(None, "Frame rate to count at, if that of the source is wrong.", minimum=0.001)
    realtime: bool = option(False, "Read a file at its own frame rate.")
    reconnect: float = option(60.0, "Seconds for which a live source that stopped is opened again.", minimum=0)
    events: bool = option(False, "Join answers to events: print a line of JSON when one starts and when it ends.")
    start_score: float = shared("start_score")
    end_score: float = shared("end_score")
    shortest: float = shared("shortest")
    longest_gap: float = shared("longest_gap")
    device: str = shared("device")
    dtype: DType = shared("dtype")
    json: bool = option(False, "Print one line of JSON per answer, and one at the end.")

    def run(self):
        from hf_dvflnet import VideoStreamClassifier
        from hf_dvflnet.hub.loading import load_processor
        from hf_dvflnet.inference import live_sources
        from hf_dvflnet.inference.events import EventFinder
        from hf_dvflnet.inference.pipeline import load_placed

        network = load_placed(self.model, self.device, self.dtype)
        latencies: deque[float] = deque(maxlen=100_000)  # bounded, as a camera may be watched for months
        failure = None
        causal = getattr(network.config, "causal", False)
        if causal and (self.window or self.fps):
            raise ValueError(f"{self.model}: a causal model has no window; leave out --window and --fps")
        with live_sources.open_stream(self.source, reconnect=self.reconnect) as stream:
            stream.say = lambda sentence: say(f"dvflnet: {one_line(sentence)}", err=True)
            lengths = {"stride": self.stride} if causal else self.lengths(stream.fps)
            options = {**lengths, **pick(self, "smoothing threshold top_k")}
            if self.events:
                options["top_k"] = network.config.num_labels
            classifier = VideoStreamClassifier(network, load_processor(self.model), **options)
            finder = EventFinder.of(classifier, self.fps, **pick(self, EVENTS)) if self.events else None
            try:
                for answer in classifier.run(stream, realtime=self.realtime):
                    latencies.append(answer.latency)
                    if finder is None:
                        self.print_answer(answer, network.config)
                    else:
                        self.print_events(finder.add(answer.time or 0.0, dict(answer.top)))
            except KeyboardInterrupt:
                pass
            except (OSError, ValueError) as error:  # raised after the summary
                failure = error
            if finder is not None:
                self.print_events(finder.finish())
        self.print_summary(classifier, latencies)
        if failure is not None:
            raise failure
        if not classifier.answers:
            length = "" if self.window is None else f" of {self.window:g} s"
            raise ValueError(f"{self.source}: ended before a window{length} was full; shorten --window")

    def lengths(self, fps: float | None) -> dict[str, Any]:
        """Window and stride, as `VideoStreamClassifier` takes them, for a source of this frame rate."""
        window = 2.0 if self.window is None else self.window
        if self.fps:
            stride = self.stride or max(1, round(self.fps / 2))
            return {"window": max(1, round(window * self.fps)), "stride": stride}
        if self.stride and not fps:
            raise ValueError(f"{self.source}: states no frame rate, which --stride (in frames) needs; pass --fps")
        return {"window_seconds": window, "stride_seconds": self.stride / fps if self.stride and fps else 0.5}

    def print_answer(self, answer, config):
        from hf_dvflnet.inference.pipeline import score_text

        if self.json:
            top = [{"label": label, "score": score} for label, score in answer.top]
            return show({**vars(answer), "top": top}, True)
        say(
            f"{answer.time:9.2f} s  {score_text(answer.score, config):>6}  {answer.label or '-'}  "
            f"(latency {1000 * answer.latency:.0f} ms, dropped {answer.dropped}, skipped {answer.skipped})"
        )

    def print_events(self, events):
        for kind, event in events:
            show({"event": kind, **event.row()}, True)
        sys.stdout.flush()  # whoever reads a pipe is told at once

    def print_summary(self, classifier, latencies: deque[float]):
        import numpy as np

        found = pick(classifier, "frames answers dropped skipped")
        if latencies:
            found["latency_median"], found["latency_p95"] = np.percentile(latencies, [50, 95]).tolist()
        show(found, self.json or self.events)


@dataclass
class Demo:
    """
    Serve a web page on which users upload, record or pick a clip and see the predicted classes.

    By default only this machine can open the page. Uploads are deleted after 5 minutes.
    """

    models: list[str] = argument("Model folders, Hub ids or exported folders.", metavar="MODEL...")
    examples: Path | None = option(None, "Folder of example videos; the first 12 are shown.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 is open to other machines.")
    port: int = option(7860, "Port to listen on.", minimum=1, maximum=65535)
    max_megabytes: float = option(50, "Maximum size of an upload, in MB.", minimum=0.001)
    max_seconds: float = option(60, "Maximum duration of a clip, in seconds.", minimum=0.001)
    device: str = shared("device")
    dtype: DType = shared("dtype")

    def run(self):
        from hf_dvflnet.inference.demo_page import serve_demo

        serve_demo(
            self.models,
            max_bytes=int(self.max_megabytes * 2**20),
            **pick(self, "examples host port max_seconds device dtype"),
        )


@dataclass
class Visualize:
    """
    Draw the modulation maps of a video: one map per stage, next to the frames that the model saw.

    A map is the L2 norm of a modulator over its channels, coloured from its minimum to its maximum in the clip.
    """

    model: str = argument("A model folder or Hub id.")
    video: str = argument("A path or http(s) URL.")
    out: Path = argument("Output file.", metavar="OUT.png")
    stages: list[int] | None = option(None, "Stages to draw, such as 1 2; all by default.")
    device: str = shared("device")
    dtype: DType = shared("dtype")
    overwrite: bool = shared("overwrite")

    def run(self):
        import torch

        from hf_dvflnet import modulation_maps
        from hf_dvflnet.hub.loading import load_processor
        from hf_dvflnet.hub.model_folder import refuse_existing
        from hf_dvflnet.inference import modulation_maps as plots
        from hf_dvflnet.inference.pipeline import best_classes, class_scores, load_placed, score_text

        # checked before the work rather than after it
        if self.out.suffix.lower() != ".png":
            raise ValueError(f"{self.out}: visualize writes .png files")
        refuse_existing(self.out, self.overwrite)
        network = load_placed(self.model, self.device, self.dtype)
        plots.refuse_without_modulators(network)
        stages = self.stages or list(range(1, len(network.config.depths) + 1))
        processor = load_processor(self.model)
        pixel_values = processor(self.video, num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
        maps = modulation_maps(network, pixel_values)
        scores = class_scores(torch.from_numpy(maps.logits), network.config)
        answers = [f"{name} {score_text(score, network.config)}" for name, score in best_classes(network, scores, 3)]
        plots.save_modulation_maps(
            plots.pixels_to_frames(pixel_values, processor),
            maps,
            self.out,
            f"{Path(self.video).name}\n{', '.join(answers)}",
            stages=stages,
        )
        say(f"{self.out}: {', '.join(answers)}")


@dataclass
class Benchmark:
    """
    Measure decoding, preprocessing and forward pass separately, with one view per video, without overlap.

    The time of a stage covers all videos of a pass; the table shows its median, minimum and maximum over the passes.
    The real-time factor is seconds of video per second of computation.
    """

    model: str = argument(CLASSIFIER)
    videos: list[str] = argument(VIDEOS, metavar="VIDEO...")
    repeat: int = option(5, "Number of measured passes, after one that is not measured.", minimum=1)
    batch_size: int = option(1, "Clips that are classified at once.", minimum=1)
    device: str = shared("device")
    dtype: DType = shared("dtype")
    compile: bool = shared("compile")
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet.data.video_files import list_videos
        from hf_dvflnet.hub.loading import load_processor
        from hf_dvflnet.inference.pipeline import load_placed
        from hf_dvflnet.inference.speed import STAGES, time_stages

        network = load_placed(self.model, self.device, self.dtype, self.compile)
        videos = list_videos(self.videos)
        found = time_stages(network, load_processor(self.model), videos, **pick(self, "repeat batch_size"))
        if self.json:
            return show(found, True)
        seconds, factor = (found[name] or float("nan") for name in ("video_seconds", "realtime_factor"))
        say(
            f"{found['clips']} clips of {found['frames']} frames, {seconds:.1f} s of video; batches of "
            f"{self.batch_size}; {found['device']}, {found['dtype']}, {found['threads']} threads; {self.repeat} passes"
        )
        say(f"{'':12}{'median':>10}{'least':>10}{'greatest':>10}{'clips/s':>10}{'share':>8}")
        for name in (*STAGES, "overall"):
            row = found[name]
            times = "".join(f"{row[key]:8.3f} s" for key in ("median", "least", "greatest"))
            say(f"{name:12}{times}{row['clips_per_second']:10.2f}{row['share']:8.0%}")
        say(f"real-time factor {factor:.2f}; bound by {found['bound_by']}")
