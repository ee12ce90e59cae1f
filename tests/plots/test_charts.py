from itertools import pairwise

import matplotlib
import numpy as np
import pytest

from hf_dvflnet.plots import charts


SLOW = pytest.mark.slow


def confusion(classes: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (classes, classes)) + 20 * np.eye(classes, dtype=int)


def rows(accuracies: list[float | None]) -> list[dict]:
    return [
        {"class": f"class {number}", "clips": 0 if top1 is None else 10, "top1": top1}
        for number, top1 in enumerate(accuracies)
    ]


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that were saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def remember(figure, *arguments, **options):
        figures.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return figures


# one look


@pytest.mark.parametrize("picture", [pytest.param("confusion", marks=SLOW), "bars"])
def test_a_picture_is_the_same_whatever_style_the_user_has(tmp_path, picture):
    def draw(path):
        if picture == "confusion":
            charts.save_confusion_matrix(confusion(3), ["a", "b", "c"], path, "title")
        else:
            charts.save_class_bars(rows([0.5, 1.0]), path, "title")

    draw(tmp_path / "plain.png")
    with matplotlib.style.context(["dark_background", {"font.size": 20}]):
        draw(tmp_path / "styled.png")
        assert matplotlib.rcParams["font.size"] == 20
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_dollar_signs_in_names_are_no_formula(tmp_path):
    charts.save_confusion_matrix(confusion(2), ["$\\frac$", "b$"], tmp_path / "a.png", "for $5 or $\\6")
    assert (tmp_path / "a.png").is_file()


# bars


def test_bars_go_from_the_best_class_to_the_worst(tmp_path, drawn):
    charts.save_class_bars(rows([0.2, 1.0, None, 0.5]), tmp_path / "bars.png", "title")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class 1", "class 3", "class 0"]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5, 0.2]


def test_classes_without_clips_are_counted_in_the_title(tmp_path, drawn):
    charts.save_class_bars(rows([0.2, None, None, 0.5]), tmp_path / "bars.png", "title")
    assert "classes without clips: 2" in drawn[0].get_suptitle()


def overlapping(labels, axis: int) -> bool:
    """Whether any two labels that follow each other overlap along an axis (0: across, 1: down)."""
    boxes = sorted((box.min[axis], box.max[axis]) for box in (label.get_window_extent() for label in labels))
    return any(following[0] < box[1] - 0.5 for box, following in pairwise(boxes))


@pytest.mark.parametrize("classes", [16, pytest.param(101, marks=SLOW)])
def test_names_of_classes_in_a_confusion_matrix_do_not_overlap(tmp_path, drawn, classes):
    names = [f"a class of number {number}" for number in range(classes)]
    charts.save_confusion_matrix(confusion(classes), names, tmp_path / "confusion.png", "title")
    axes = drawn[0].axes[0]
    assert not overlapping(axes.get_yticklabels(), axis=1)
    assert not overlapping(axes.get_xticklabels(), axis=0)
