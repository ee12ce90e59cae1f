import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_dvflnet.configuration_videofocalnet import PRESETS


def test_config_equals_itself_after_saving_and_loading(tmp_path):
    config = VideoFocalNetConfig(focal_levels=(3, 2, 2, 1), use_layerscale=True, num_labels=7)
    config.save_pretrained(tmp_path)
    assert VideoFocalNetConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"depths": [1, 1, 2]}, "one entry per stage"),
        ({"depths": [1, 0, 2, 1]}, "non-empty list of positive integers"),
        ({"focal_windows": [3, 3, 4, 3]}, "must be odd"),
        ({"drop_path_rate": 1.0}, "must be in"),
        ({"embed_dim": 0}, "at least 1"),
        ({"hidden_act": "gleu"}, "not an activation of transformers"),
        ({"num_frames": 9, "tubelet_size": 2}, "multiple of tubelet_size"),
        ({"use_conv_embed": True, "tubelet_size": 2}, "requires patch_size=4 and tubelet_size=1"),
        ({"use_conv_embed": True, "patch_size": 2}, "requires patch_size=4 and tubelet_size=1"),
        ({"pair_frames": True, "causal": True}, "excludes causal=True"),
        ({"pair_frames": True, "num_frames": 6, "tubelet_size": 2}, "an even number of frames after the stem"),
        (
            {"pair_frames": True, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]},
            "requires three stages",
        ),
        ({"embed_dim": "96"}, "embed_dim"),
    ],
)
def test_config_refuses(wrong, message):
    with pytest.raises(StrictDataclassError, match=message):
        VideoFocalNetConfig(**wrong)


def test_what_is_computed_is_in_the_dict_and_cannot_be_set(tmp_path):
    config = VideoFocalNetConfig(embed_dim=8, depths=[1, 1, 2, 1])
    computed = {"hidden_size": 64, "hidden_sizes": [8, 16, 32, 64], "num_hidden_layers": 4}
    assert config.to_dict().items() >= computed.items()
    config.save_pretrained(tmp_path)
    assert VideoFocalNetConfig.from_pretrained(tmp_path, embed_dim=16).hidden_sizes == [16, 32, 64, 128]
    for name in computed:
        with pytest.raises(AttributeError, match=f"'{name}' of 'VideoFocalNetConfig' object has no setter"):
            VideoFocalNetConfig(embed_dim=8, depths=[1, 1, 2, 1], **{name: 3})
        with pytest.raises(AttributeError, match=f"'{name}' of 'VideoFocalNetConfig' object has no setter"):
            VideoFocalNetConfig.from_pretrained(tmp_path, **{name: 3})


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="nano, tiny, small, base"):
        VideoFocalNetConfig.from_preset("huge")


PARAMETERS = {"nano": 22.44, "tiny": 49.55, "small": 88.74, "base": 157.39, "pico": 4.39, "femto": 1.76}  # millions


def test_every_preset_is_checked():
    assert PARAMETERS.keys() == PRESETS.keys()


@pytest.mark.parametrize("name, millions", PARAMETERS.items())
def test_presets_have_the_documented_number_of_parameters(name, millions):
    with torch.device("meta"):
        model = VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(name, num_labels=400))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.01)
