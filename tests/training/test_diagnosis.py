"""What is said of a training's figures."""

import pytest

from hf_dvflnet.training.diagnosis import accuracy_text, diagnose, wilson_interval


TRAINING, VALIDATION = list(range(10)) * 6, list(range(10)) * 2  # ten classes; chance is 2.30


def test_the_interval_of_an_accuracy_is_that_of_wilson():
    # of 20 clips, as computed by hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    assert wilson_interval(0.65, 20) == pytest.approx((0.4329, 0.8188), abs=1e-4)
    assert accuracy_text(0.65, 20) == "65.0% (95 % interval 43% to 82%, 20 clips)"
    assert wilson_interval(1.0, 10)[1] == 1.0


@pytest.mark.parametrize(
    "losses, top1, said",
    [
        ([2.31, 2.30, 2.29], 0.10, "no better than chance (2.30): the model has not learned its own clips"),
        ([2.0, 1.0, 0.1], 0.15, "cannot be told from chance (10%), although the model fits its training clips"),
        ([2.2, 2.0, 1.9], 0.20, "The validation accuracy of 20% on 20 clips cannot be told from chance (10%). Try"),
        ([], 0.10, "cannot be told from chance"),
    ],
)
def test_a_training_that_learned_nothing_is_told_what_to_try(losses, top1, said):
    history = [{"loss": loss} for loss in losses]
    remark = diagnose(history, TRAINING, VALIDATION, top1)
    assert said in remark and "(1) start from image weights (--image_model" in remark
    assert "image weights" not in diagnose(history, TRAINING, VALIDATION, top1, image_network=True)


@pytest.mark.parametrize("top1", [0.3, 0.9])
def test_a_training_that_beats_chance_is_not_remarked_on(top1):
    assert diagnose([{"loss": 1.0}], TRAINING, VALIDATION, top1) is None


def test_always_answering_the_commonest_class_is_chance():
    assert diagnose([{"loss": 0.1}], [0] * 40 + [1] * 20, [0] * 16 + [1] * 4, 0.8) is not None


def test_label_smoothing_alone_is_not_taken_for_a_loss_that_was_not_learned():
    # 0.50 is all that smoothing of 0.1 leaves to learn of ten classes
    assert "fits its training clips" in diagnose([{"loss": 0.52}], TRAINING, VALIDATION, 0.1, smoothing=0.1)
