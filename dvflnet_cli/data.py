"""Commands for datasets: render, split, check, prepare, verify."""

from dataclasses import dataclass
from pathlib import Path

from .common import DATASETS, argument, option, pick, say, shared, show


@dataclass
class Render:
    """Generate small labelled videos without a download: 16 motions, as {train,validation,test}/<class>/<video>."""

    out: Path = argument("Output folder. One with the same settings is continued.")
    train: int = option(4, "Training clips per class.", minimum=0)
    validation: int = option(1, "Validation clips per class.", minimum=0)
    test: int = option(1, "Test clips per class.", minimum=0)
    frames: int = option(12, "Frames per clip, at 8 frames per second.", minimum=1)
    size: int = option(64, "Height and width in pixels, an even number.", minimum=2)
    seed: int = option(0, "Random seed of the pictures.")

    def run(self):
        from hf_dvflnet.data.motion_videos import MOTIONS, write_motion_videos

        if self.size % 2:
            raise ValueError(f"--size must be even, because H.264 halves the colour resolution; got {self.size}")
        counts = {"train": self.train, "validation": self.validation, "test": self.test}
        settings = {"num_frames": self.frames, "size": self.size, "seed": self.seed, "num_workers": 0}
        write_motion_videos(self.out, clips_per_class=counts, **settings)
        shown = ", ".join(f"{len(MOTIONS) * count} {split}" for split, count in counts.items())
        say(f"{self.out}: {len(MOTIONS)} classes; videos: {shown}")


@dataclass
class Split:
    """
    Divide your own videos by recording into OUT/{train,validation,test}/<class>/<video>, as links.

    SOURCE is a folder, [<split>/]<class>/[<recording>/]<video>, or a .csv or .parquet list with the columns path and
    label, and optionally start, end (seconds, of a segment, which is cut out), split, group (the recording).
    """

    source: Path = argument("Folder or list of videos.")
    out: Path = argument("Output folder.")
    columns: list[str] | None = option(None, "Other names of columns of the list.", metavar="NAME=COLUMN")
    seed: int = option(0, "Random seed of the division.")
    json: bool = shared("json")

    def run(self):
        from hf_dvflnet.data.own_videos import split_videos

        columns = dict(pair.partition("=")[::2] for pair in self.columns or ())
        found = split_videos(self.source, self.out, columns=columns, seed=self.seed)
        if self.json:
            return show(found, True)
        say(f"{found['clips']} clips of {found['recordings']} recordings, which were told by {found['by']}")
        for split, counts in found["counts"].items():
            say(f"{split}: {sum(counts.values())} clips ({', '.join(f'{n} {name}' for name, n in counts.items())})")


@dataclass
class Check:
    """
    Check your own videos before a training: unreadable files, copies, leaks, doubtful labels, with frames to look at.

    The exit code is 1 if a file cannot be read, or a clip and its copy are in two splits.
    """

    source: Path = argument("Folder or list of videos, as for `dvflnet split`, or what that wrote.")
    output: Path = option(Path("check"), "Folder for report.html and findings.csv. A check is continued there.")
    image_model: str = option("efficientnet-lite0", "Image network that compares clips: folder or Hub id.")
    num_workers: int | None = option(None, "Sandboxes that decode; by default one per CPU.", minimum=0)
    json: bool = shared("json")

    def run(self) -> int:
        from hf_dvflnet.training.data_check import KINDS, check_videos

        found = check_videos(self.source, self.output, network=self.image_model, num_workers=self.num_workers)
        findings = found.pop("findings")
        if self.json:
            show({**found, "findings": [one._asdict() for one in findings]}, True)
        else:
            for kind, words in KINDS.items():
                of_kind = [one for one in findings if one.kind == kind]
                if of_kind:
                    say(f"{len(of_kind)} {words}")
                for one in of_kind[:5]:
                    say(f"    {one.clip}: {one.reason}")
            show(found, False)
        return int(any(one.kind in ("unreadable", "leak") for one in findings))


@dataclass
class Prepare:
    """
    Convert a dataset's videos to small clips with fast seeking, for training.

    A prepared benchmark release can be used like the original. OUT/manifest.jsonl states for every video whether it is
    ok, repaired or unreadable. If any video is unreadable, the exit code is 1.
    """

    source: Path = argument("Folder of videos. It is not modified.")
    out: Path = argument("Output folder. One with the same settings is continued.")
    short_side: int = option(256, "Maximum short side of a clip in pixels, an even number.")
    keyframe_interval: int = option(4, "Number of frames from one keyframe to the next.")
    crf: int = option(23, "H.264 quality: 0 is lossless, 51 is the worst.")
    num_workers: int | None = option(None, "Sandboxes that encode; by default one per CPU.", minimum=0)
    json: bool = shared("json")

    def run(self) -> int:
        from hf_dvflnet import prepare_videos

        found = prepare_videos(
            self.source,
            self.out,
            **pick(self, "short_side keyframe_interval crf num_workers"),
        )
        failures = found["failures"]
        for row in failures[:5]:
            say(f"unreadable: {row['source']}: {row['reason']}", err=True)
        if len(failures) > 5:
            say(f"unreadable: {len(failures) - 5} more, listed in {found['manifest']}", err=True)
        show(found if self.json else {**found, "failures": len(failures)}, self.json)
        return 1 if failures else 0


@dataclass
class Verify:
    """
    Find missing, empty, undecodable, short, duplicate and leaked clips of a benchmark.

    The report can be passed as --block_list. The exit code is 1 if a clip is missing, empty or undecodable, or if the
    split lists are built from the file names and some of these files are missing.
    """

    dataset: str = argument(f"{DATASETS}.")
    data_dir: str = argument("Folder of the extracted or prepared release.")
    protocol: str | None = shared("protocol")
    fold: int = shared("fold")
    classes: list[str] | None = shared("classes")
    report: Path | None = option(None, "Report, which is continued; verify-DATASET-PROTOCOL-FOLD.jsonl by default.")
    min_frames: int = option(8, "Clips with fewer frames are reported as short.", minimum=1)
    num_workers: int | None = option(None, "Sandboxes that decode; by default one per CPU.", minimum=0)
    json: bool = shared("json")

    def run(self) -> int:
        if self.dataset not in DATASETS.split(", "):  # said before seconds are spent on imports
            raise ValueError(f"unknown dataset {self.dataset!r}; choose one of {DATASETS}")
        from hf_dvflnet.data.benchmarks import BENCHMARKS
        from hf_dvflnet.data.verification import OUTCOMES, verify_benchmark

        benchmark = BENCHMARKS[self.dataset]
        protocol = self.protocol or next(iter(benchmark.folds))
        report = self.report or Path(f"verify-{self.dataset}-{protocol}-{self.fold}.jsonl")
        found = verify_benchmark(
            *(self.dataset, self.data_dir, report),
            protocol=protocol,
            **pick(self, "fold classes min_frames num_workers"),
        )
        splits = found["counts"]
        if not self.json:
            del found["counts"]
            for video_id, reason in found.pop("leaked").items():
                say(f"{video_id} in train: {reason}")
            say("  ".join(f"{name:>11}" for name in ("split", "listed", "official", *OUTCOMES)))
            for split, row in splits.items():
                say("  ".join(f"{'-' if value is None else value:>11}" for value in (split, *row.values())))
        show({**found, "report": str(report)}, self.json)
        from_names = protocol in benchmark.lists_from_names
        failed = any(
            any(row[outcome] for outcome in ("missing", "empty", "undecodable"))
            or (from_names and row["official"] not in (None, row["listed"]))
            for row in splits.values()
        )
        return 1 if failed else 0
