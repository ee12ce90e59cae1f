"""The metrics that fit each problem type, for evaluation. Computing them needs no internet access."""

import tempfile

import datasets
import evaluate
import numpy as np
from scipy.special import softmax
from transformers import EvalPrediction

from ..hub.calibration import calibration_error


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of rows of `scores`, (clips, num_labels), in which the true class id is among the k highest scores."""
    # a stable sort ranks equal scores by class id, so that the metric is reproducible
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((ranked == labels[:, None]).any(axis=1).mean())


class TopKAccuracy(evaluate.Metric):
    """
    The share of clips whose true class is among the `k` highest scores, as a metric of `evaluate`.

    `predictions` are scores of shape (clips, num_labels), `references` class ids of shape (clips,). With fewer than
    `k` classes, every clip counts as correct. `compute` returns `{"top{k}_accuracy": float in [0, 1]}`.

    >>> TopKAccuracy(k=1).compute(predictions=[[0.2, 0.8], [0.6, 0.4]], references=[1, 1])
    {'top1_accuracy': 0.5}
    """

    def __init__(self, k: int = 5, config_name: str | None = None, **kwargs):
        self.k = k
        kwargs["config_name"] = config_name or f"top{k}"
        try:
            super().__init__(**kwargs)
        except OSError:  # its cache is in the home folder, which cannot be written in some containers
            super().__init__(**{**kwargs, "cache_dir": tempfile.mkdtemp()})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of clips whose true class is among the k highest scores.",
            citation="",
            inputs_description="predictions: scores (clips, num_labels); references: class ids (clips,)",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return {f"top{self.k}_accuracy": top_k_accuracy(np.asarray(predictions), np.asarray(references), self.k)}


def compute_top_k_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    `compute_metrics` for a Trainer: top-1 and top-5 accuracy and `ece` ([`calibration_error`]), in [0, 1], from logits
    of shape (clips, num_labels).

    Clips without a label (-100) are ignored; if there are no others, the result is empty. For labels given as
    probabilities, the most likely class is the true one.
    """
    scores, labels = prediction.predictions, np.asarray(prediction.label_ids)
    if labels.ndim == 2:
        labels = labels.argmax(-1)
    labelled = labels != -100
    if not labelled.any():
        return {}
    scores, labels = scores[labelled], labels[labelled]
    right = scores.argmax(-1) == labels
    return {
        **{f"top{k}_accuracy": top_k_accuracy(scores, labels, k) for k in (1, 5)},
        "ece": calibration_error(softmax(scores.astype(np.float64), axis=-1).max(-1), right),
    }


def compute_multi_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    `compute_metrics` for multiple labels per clip, from logits and labels of shape (clips, num_labels).

    Returns scikit-learn's `average_precision_score` and `f1_score`, both in [0, 1]:

    - `mean_average_precision`, the mean of the average precisions of the classes. Classes that no clip has are left
      out, as in SlowFast's `get_map`; if no clip has a label, so is the metric;
    - `micro_f1`, over all pairs of a clip and a class. A class is predicted if its score (sigmoid) is above 0.5.

    For labels given as probabilities, a clip has a class if the probability is at least 0.5.
    """
    from sklearn.metrics import average_precision_score, f1_score

    scores, labels = prediction.predictions, np.asarray(prediction.label_ids) >= 0.5
    metrics = {"micro_f1": float(f1_score(labels, scores > 0, average="micro", zero_division=0.0))}
    occurring = labels.any(axis=0)
    if occurring.any():
        precisions = average_precision_score(labels[:, occurring], scores[:, occurring], average=None)
        metrics["mean_average_precision"] = float(np.mean(precisions))
    return metrics


def compute_regression_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    `compute_metrics` for regression: `mean_absolute_error`, in the unit of the labels, averaged over the outputs.
    Predictions have the shape (clips, num_labels), labels too, or (clips,) for one output.
    """
    values = prediction.predictions
    return {"mean_absolute_error": float(np.abs(np.reshape(prediction.label_ids, values.shape) - values).mean())}


METRICS = {
    "single_label_classification": compute_top_k_metrics,
    "multi_label_classification": compute_multi_label_metrics,
    "regression": compute_regression_metrics,
}


def compute_metrics(problem_type: str, prediction: EvalPrediction) -> dict[str, float]:
    """
    The metrics of a problem type, as returned by [`problem_type`]. If a model returns several arrays, the first one is
    its logits.
    """
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    return METRICS[problem_type](EvalPrediction(logits, prediction.label_ids))
