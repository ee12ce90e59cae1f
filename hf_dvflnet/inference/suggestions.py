"""Which clips to label next."""

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize


CANDIDATES = 5  # for each clip that is chosen


def between_classes(scores: Sequence[Sequence[float]], features: Sequence[np.ndarray], number: int) -> list[int]:
    """
    Places of clips whose labels would teach a classifier much: those between two classes, but unlike each other.

    Of the clips with the smallest margin between their two best classes, five times as many as wanted, one is taken of
    each cluster of features (`benchmarks/suggest.py`; Zhdanov, arXiv 1901.05954).

    Args:
        scores: The best scores of each clip, best first, at least two.
        features: Pooled features of each clip, (width,).
        number: How many clips are wanted; there may be fewer.

    Returns:
        The places, of the smallest margin first.

    Raises:
        ValueError: If clips have one score.
    """
    if len(scores[0]) < 2:
        raise ValueError("clips between two classes are suggested, but the model has one output")
    order = np.argsort([best - second for best, second, *_ in scores], kind="stable")[: CANDIDATES * number]
    if number >= len(order):
        return order.tolist()
    clusters = KMeans(number, n_init=1, random_state=0).fit_predict(normalize(np.stack(features)[order]))
    return order[np.sort(np.unique(clusters, return_index=True)[1])].tolist()
