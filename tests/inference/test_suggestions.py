import numpy as np

from hf_dvflnet.inference.suggestions import between_classes


def test_of_clips_that_are_alike_the_one_between_two_classes_is_suggested():
    features = np.repeat(np.eye(3, dtype="float32"), 4, axis=0)
    scores = [
        [0.5 + margin, 0.5 - margin] for margin in (0.01, 0.02, 0.03, 0.04, 0.3, 0.2, 0.1, 0.4, 0.2, 0.2, 0.2, 0.1)
    ]
    assert between_classes(scores, list(features), 3) == [0, 6, 11]


def test_clips_that_the_model_is_sure_of_are_not_suggested_for_being_unlike_others():
    features = np.repeat(np.eye(2, dtype="float32"), [5, 1], axis=0)
    assert between_classes([[0.5, 0.5]] * 5 + [[1.0, 0.0]], list(features), 1) == [0]
