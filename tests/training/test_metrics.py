import numpy as np
import pytest
from transformers import EvalPrediction

from hf_dvflnet import TopKAccuracy
from hf_dvflnet.training.metrics import compute_top_k_metrics


SCORES = [[0.1, 0.5, 0.4], [0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]]
LABELS = [2, 0, 0, 1]  # ranked second, first, third, second


@pytest.mark.parametrize("k, expected", [(1, 0.25), (2, 0.75), (3, 1.0), (5, 1.0)])
def test_accuracy_is_the_hand_counted_one(k, expected):
    assert TopKAccuracy(k=k).compute(predictions=SCORES, references=LABELS) == {f"top{k}_accuracy": expected}


def test_batches_add_up_to_the_whole():
    metric = TopKAccuracy(k=2)
    metric.add_batch(predictions=SCORES[:3], references=LABELS[:3])
    metric.add_batch(predictions=SCORES[3:], references=LABELS[3:])
    assert metric.compute() == {"top2_accuracy": 0.75}


def test_equal_scores_are_ranked_by_class_id():
    metric = TopKAccuracy(k=1)
    assert metric.compute(predictions=[[1.0, 1.0], [1.0, 1.0]], references=[0, 1]) == {"top1_accuracy": 0.5}


def test_trainer_metrics_are_top_one_and_top_five():
    prediction = EvalPrediction(np.array(SCORES), np.array(LABELS))
    assert compute_top_k_metrics(prediction) == {"top1_accuracy": 0.25, "top5_accuracy": 1.0}


def test_clips_without_a_label_are_left_out():
    prediction = EvalPrediction(np.array(SCORES), np.array([2, 0, -100, -100]))
    assert compute_top_k_metrics(prediction) == {"top1_accuracy": 0.5, "top5_accuracy": 1.0}


def test_labels_that_are_probabilities_count_as_their_likeliest_class():
    prediction = EvalPrediction(np.array(SCORES), np.eye(3)[LABELS] * 0.9 + 0.1 / 3)
    assert compute_top_k_metrics(prediction) == {"top1_accuracy": 0.25, "top5_accuracy": 1.0}
