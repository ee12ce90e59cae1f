"""Top-k accuracy for evaluation. Computing it needs no internet access."""

import datasets
import evaluate
import numpy as np
from transformers import EvalPrediction


class TopKAccuracy(evaluate.Metric):
    """
    The share of clips whose true class is among the `k` highest scores.

    `predictions` are scores of shape (clips, num_labels), `references` class ids of shape (clips,). With fewer than
    `k` classes, every clip counts as correct. `compute` returns `{"top{k}_accuracy": float in [0, 1]}`.

    >>> TopKAccuracy(k=1).compute(predictions=[[0.2, 0.8], [0.6, 0.4]], references=[1, 1])
    {'top1_accuracy': 0.5}
    """

    def __init__(self, k: int = 5, config_name: str | None = None, **kwargs):
        self.k = k
        super().__init__(config_name=config_name or f"top{k}", **kwargs)

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
        scores, labels = np.asarray(predictions), np.asarray(references)
        # a stable sort ranks equal scores by class id, so that the metric is reproducible
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        return {f"top{self.k}_accuracy": float((ranked == labels[:, None]).any(axis=1).mean())}


def compute_top_k_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    `compute_metrics` for a Trainer: top-1 and top-5 accuracy in [0, 1], from logits of shape (clips, num_labels).

    Clips without a label (-100) are ignored. For labels given as probabilities, the most likely class is the true one.
    """
    scores, labels = prediction.predictions, np.asarray(prediction.label_ids)
    if labels.ndim == 2:
        labels = labels.argmax(-1)
    labelled = labels != -100
    metrics = evaluate.combine([TopKAccuracy(k=1, keep_in_memory=True), TopKAccuracy(k=5, keep_in_memory=True)])
    return metrics.compute(predictions=scores[labelled], references=labels[labelled])


__all__ = ["TopKAccuracy", "compute_top_k_metrics"]
