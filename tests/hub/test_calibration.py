import numpy as np
import pytest
import torch

from hf_dvflnet import VideoFocalNetForVideoClassification
from hf_dvflnet.hub.calibration import (
    calibration_error,
    divide_logits,
    error_interval,
    fit_temperature,
    threshold_of,
    threshold_of_coverage,
    threshold_of_false_alarms,
    uncalibrate,
)
from hf_dvflnet.inference.evaluation import bootstrap


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_the_temperature_of_drawn_labels_is_found(temperature, views):
    torch.manual_seed(0)
    logits = 2 * torch.randn(4000, views, 5)
    labels = torch.multinomial(logits.softmax(-1).mean(1), 1)[:, 0]
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.1)


def test_clips_without_an_error_do_not_make_the_model_certain():
    logits = torch.eye(4)[:, None].repeat(20, 1, 1)
    temperature = fit_temperature(logits, torch.arange(4).repeat(20))
    scores = (logits / temperature).softmax(-1).amax(-1)
    assert scores.mean().item() == pytest.approx(81 / 82, abs=1e-3)


def test_each_label_has_a_temperature_unless_it_is_rare():
    torch.manual_seed(0)
    logits = torch.randn(3000, 1, 3)
    labels = torch.bernoulli(logits[:, 0].sigmoid()).long()
    labels[:, 2] = torch.arange(3000) < 9
    found = fit_temperature(logits * torch.tensor([4.0, 0.5, 3.0]), labels, "multi_label_classification")
    assert found[:2] == pytest.approx([4.0, 0.5], rel=0.15)
    assert found[2] == 1.0


def test_the_calibration_error_is_the_hand_counted_one():
    # of 4 clips, 2 with a confidence of 0.9 of which 1 is right, and 2 with 0.6 that are right
    confidence, right = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx((0.4 + 0.4) / 2)
    assert calibration_error(confidence, right, np.array([2, 0, 1, 1])) == pytest.approx((0.1 + 0.4) / 2)


def test_the_interval_of_a_small_calibration_error_holds_the_true_one():
    """Scores with a calibration error of 0.0825 in the limit; the errors of draws alone lie above it in most sets."""
    rng, inside, above = np.random.default_rng(0), 0, 0
    for _ in range(40):
        confidence = rng.beta(5, 1.5, 245)
        right = rng.random(245) < 1 / (1 + (1 / confidence - 1) ** 0.6)
        drawn = bootstrap(lambda w, c=confidence, r=right: {"ece": calibration_error(c, r, w)}, range(245), draws=200)
        low, high = error_interval(calibration_error(confidence, right), drawn["ece"])
        inside, above = inside + (low <= 0.0825 <= high), above + (drawn["ece"][0] > 0.0825)
    assert inside >= 34 > 40 - above


def test_a_threshold_has_the_stated_share_of_answers_or_of_wrong_ones():
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.5, 0.4])
    right = np.array([True, True, False, True, True, False])
    assert threshold_of_coverage(confidence, 0.5) == 0.7  # both of this score are answered
    assert threshold_of_false_alarms(confidence, right, 0.0) == 0.8
    assert threshold_of_false_alarms(confidence, right, 0.2) == 0.5
    with pytest.raises(ValueError, match="even the surest of 6 answers"):
        threshold_of_false_alarms(confidence, ~right, 0.1)


def test_a_calibrated_model_gets_its_logits_back(tiny_config, caplog):
    model = VideoFocalNetForVideoClassification(tiny_config).eval()
    clip = torch.randn(2, 4, 3, 32, 32)
    own = model(clip).logits
    divide_logits(model, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    model.config.calibration, model.config.threshold = {"temperature": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, 0.5
    torch.testing.assert_close(model(clip).logits, own / torch.arange(1, 7))
    uncalibrate(model, "it is trained further")
    torch.testing.assert_close(model(clip).logits, own)
    assert not hasattr(model.config, "calibration") and threshold_of(model.config) == 0


def test_a_damaged_threshold_or_temperature_is_refused(tiny_config):
    tiny_config.threshold = "high"
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 'high'"):
        threshold_of(tiny_config)
    tiny_config.calibration = {"temperature": 0.0}
    with pytest.raises(ValueError, match="the temperature 0.0, expected are > 0"):
        uncalibrate(VideoFocalNetForVideoClassification(tiny_config), "it teaches")
