"""What the benchmarks share: where a figure was measured, sides that take turns, and the interval of a gain."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch


def machine() -> dict[str, str | int]:
    """Processor and its vector units, threads that torch uses, GPU if there is one, versions, and the command."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": f"{models[0] if models else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": len(models),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **{name: version(name) for name in ("torch", "transformers", "av")},
        "command": " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *map(without_place, sys.argv[1:])]),
    }


def continued(output: Path) -> dict:
    """What an earlier, stopped run of this benchmark measured here, or nothing yet but where it runs."""
    here = machine() | {"command": f"python benchmarks/{Path(sys.argv[0]).name}"}  # as its options change no figure
    found = json.loads(output.read_text()) if output.exists() else {"machine": here}
    if found["machine"] != here:
        raise SystemExit(f"{output}: was begun on another machine or with other versions; move it away")
    return found


def without_place(word: str) -> str:
    """An argument without the folders that it lies in, where these are of one machine: outside of the repository."""
    return Path(word).name if word.startswith(("/", "../")) else word


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> list[dict[str, float]]:
    """
    Seconds of each call, round by round, after one that is not counted.

    A shared machine slows all sides alike, so that their ratio tells more than their seconds.
    """
    for call in calls.values():
        call()
    times = []
    for _ in range(rounds):
        times.append({})
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[-1][name] = time.perf_counter() - began
    return times


def spread(values: list[float]) -> dict:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "quartiles": [low, high]}


def seconds(times: list[dict[str, float]], name: str) -> dict:
    """Median and quartiles of a call's seconds."""
    return spread([row[name] for row in times])


def ratio(times: list[dict[str, float]], one: str, other: str) -> dict:
    """Median and quartiles of the rounds' ratios of one call's seconds to another's."""
    return spread([row[one] / row[other] for row in times])


def labels_of(rows: datasets.Dataset) -> dict[str, Any]:
    names = rows.features["label"].names
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def gain(
    alone: np.ndarray, other: np.ndarray, groups: list, comparisons: int = 1, draws: int = 10_000
) -> tuple[float, float, float]:
    """
    Mean difference in accuracy and its 95 % interval, by a bootstrap over groups of clips and over seeds.

    Args:
        alone, other: Whether a run of each seed is right on each clip, (seeds, clips); a seed's runs are a pair.
        groups: The group of each clip, such as the title of its source video. Clips of a group are drawn together.
        comparisons: Of how many gains all intervals are to hold at once (Bonferroni).
        draws: Number of bootstrap samples.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    difference = other.astype(float) - alone
    sums = np.stack([np.bincount(numbers, row, len(names)) for row in difference])  # (seeds, groups)
    sizes = np.bincount(numbers)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        seeds, chosen = rng.integers(len(sums), size=len(sums)), rng.integers(len(names), size=len(names))
        drawn.append(sums[seeds][:, chosen].sum() / (len(sums) * sizes[chosen].sum()))
    low, high = np.quantile(drawn, [0.025 / comparisons, 1 - 0.025 / comparisons])
    return float(difference.mean()), float(low), float(high)
