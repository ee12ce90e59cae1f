import json

import pytest


@pytest.mark.slow
def test_a_model_and_its_int8_export_are_compared_on_the_same_clips(dvflnet, motion_tree, tmp_path):
    pytest.importorskip("nncf", reason="needs pip install '.[export]'")
    assert dvflnet("create", "motions-student", tmp_path / "student")[0] == 0
    words = ("--format", "openvino", "--dtype", "int8", "--calibration", motion_tree / "train")
    code, _, err = dvflnet("export", tmp_path / "student", tmp_path / "int8", *words)
    assert code == 0, err
    code, out, err = dvflnet("compare", tmp_path / "student", tmp_path / "int8", "--data_dir", motion_tree, "--json")
    assert code == 0, err
    student, int8 = json.loads(out)["models"]
    assert student["same_answer"] == 100.0
    assert int8["same_answer"] >= 80.0
    assert int8["MB"] < student["MB"]
    assert int8["forward_ms"] > 0
    assert int8["resident_MB"] > 100
