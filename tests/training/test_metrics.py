import numpy as np
import pytest
from transformers import EvalPrediction

from hf_dvflnet.training.metrics import (
    TopKAccuracy,
    compute_metrics,
    compute_multi_label_metrics,
    compute_regression_metrics,
    compute_top_k_metrics,
)


SCORES = [[0.1, 0.5, 0.4], [0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]]
LABELS = [2, 0, 0, 1]  # ranked second, first, third, second


@pytest.mark.parametrize("k, expected", [(1, 0.25), (2, 0.75), (3, 1.0), (5, 1.0)])
def test_accuracy_is_the_hand_counted_one(k, expected):
    assert TopKAccuracy(k=k).compute(predictions=SCORES, references=LABELS) == {f"top{k}_accuracy": expected}


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "home").touch()
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "home" / "metrics"))
    assert TopKAccuracy(k=2).compute(predictions=SCORES, references=LABELS) == {"top2_accuracy": 0.75}


def test_equal_scores_are_ranked_by_class_id():
    metric = TopKAccuracy(k=1)
    assert metric.compute(predictions=[[1.0, 1.0], [1.0, 1.0]], references=[0, 1]) == {"top1_accuracy": 0.5}


def test_clips_without_a_label_are_left_out():
    prediction = EvalPrediction(np.array(SCORES), np.array([2, 0, -100, -100]))
    found = compute_top_k_metrics(prediction)
    assert (found["top1_accuracy"], found["top5_accuracy"]) == (0.5, 1.0)


def test_the_calibration_error_is_of_the_softmax_of_logits():
    logits = np.log([[0.9, 0.1], [0.9, 0.1]])
    assert compute_top_k_metrics(EvalPrediction(logits, np.array([0, 1])))["ece"] == pytest.approx(0.4)


def test_no_accuracy_is_made_up_where_no_clip_has_a_label():
    assert compute_top_k_metrics(EvalPrediction(np.array(SCORES), np.full(4, -100))) == {}


# several labels per clip, and regression

# class 0 is ranked second and third of three, class 1 first; no clip has class 2
LOGITS = np.array([[0.5, 3.0, -1.0], [2.0, -1.0, -1.0], [0.1, -2.0, 1.0]])
SEVERAL = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]])


def test_precision_and_f1_of_several_labels_are_the_hand_counted_ones():
    metrics = compute_multi_label_metrics(EvalPrediction(LOGITS, SEVERAL))
    assert metrics["mean_average_precision"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2)
    # predicted: 5 pairs, of which 3 are right and none is missed
    assert metrics["micro_f1"] == pytest.approx(2 * 3 / (5 + 3))


def test_there_is_no_precision_where_no_clip_has_a_label():
    assert compute_multi_label_metrics(EvalPrediction(LOGITS, SEVERAL * 0)) == {"micro_f1": 0.0}


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_the_error_of_a_regression_is_the_mean_absolute_one(shape):
    prediction = EvalPrediction(np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([1.0, 1.0, 1.0, 0.0]).reshape(shape))
    assert compute_regression_metrics(prediction) == {"mean_absolute_error": 1.75}


def test_logits_are_the_first_of_what_a_model_returns():
    prediction = EvalPrediction((np.array(SCORES), np.zeros((4, 7))), np.array(LABELS))
    assert compute_metrics("single_label_classification", prediction)["top1_accuracy"] == 0.25
