"""Sides that take turns: a shared machine slows both alike, so that their ratio tells more than their seconds."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice


def turns(calls: Mapping[str, Callable[[], object]]) -> Iterator[dict[str, float]]:
    """Seconds of each call, round by round without an end, after one that is not counted."""
    for call in calls.values():
        call()
    while True:
        row = {}
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            row[name] = time.perf_counter() - began
        yield row


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> list[dict[str, float]]:
    """As many rounds of them."""
    return list(islice(turns(calls), rounds))


def spread(values: list[float]) -> dict:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "quartiles": [low, high]}


def seconds(times: list[dict[str, float]], name: str) -> dict:
    """Median and quartiles of a call's seconds."""
    return spread([row[name] for row in times])


def ratio(times: list[dict[str, float]], one: str, other: str) -> dict:
    """Median and quartiles of the rounds' ratios of one call's seconds to another's."""
    return spread([row[one] / row[other] for row in times])
