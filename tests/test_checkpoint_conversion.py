import pickle

import pytest
import torch
from conftest import GOLDEN
from safetensors.torch import load_file
from test_modeling_videofocalnet import published_model

from hf_dvflnet.checkpoint_conversion import (
    convert_published_state_dict,
    load_published_checkpoint,
    rename_published_key,
)


@pytest.mark.parametrize("variant", ["default", "options", "tubelet"])
def test_published_weights_fill_the_model_exactly(variant):
    state_dict = convert_published_state_dict(load_published_checkpoint(GOLDEN / f"{variant}.pth")["model"])
    ours = published_model(variant).state_dict()
    assert {name: weight.shape for name, weight in state_dict.items()} == {n: w.shape for n, w in ours.items()}


def test_a_name_that_is_not_published_comes_back_unchanged():
    assert rename_published_key("videofocalnet.layernorm.weight") == "videofocalnet.layernorm.weight"


def test_the_configuration_of_a_checkpoint_is_read_without_yacs():
    config = load_published_checkpoint(GOLDEN / "default.pth")["config"]
    assert config["MODEL"]["FOCAL"]["DEPTHS"] == [1, 1, 2, 1]


def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path):
    marker = tmp_path / "ran"

    class Command:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"model": {}, "config": Command()}, tmp_path / "hostile.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Command()))
    for name in ("hostile.pth", "plain.pth"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as a published checkpoint"):
            load_published_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth"):
        load_published_checkpoint(tmp_path / "none.pth")


def test_the_golden_image_network_has_no_temporal_weights():
    # what a later conversion from images relies on
    state_dict = convert_published_state_dict(load_published_checkpoint(GOLDEN / "imagenet_2d.pth")["model"])
    assert not any("temporal" in name for name in state_dict)
    assert load_file(GOLDEN / "imagenet_2d.expected.safetensors")["logits"].shape == (2, 20)
