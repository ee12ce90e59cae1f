import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ConvNextConfig, ConvNextModel, FocalNetConfig, FocalNetModel

from hf_dvflnet import (
    FrameModelForVideoClassification,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    prepare_for_inference,
)
from hf_dvflnet.hub import loading
from hf_dvflnet.inference.inference_form import ShortConvolution


SHIPPED = loading.__file__.replace("loading.py", "motions-student")
OPTIONS = {
    "default": {},
    "layerscale, post norms": {
        "use_layerscale": True,
        "layerscale_value": 0.5,
        "use_post_layernorm": True,
        "use_post_layernorm_in_modulation": True,
        "normalize_modulator": True,
    },
    "kernels 3, 5 and 7": {"focal_levels": [3, 3, 3, 3]},
    "depthwise along frames": {"depthwise_along_frames": True},
}


def make(**options) -> VideoFocalNetForVideoClassification:
    """A network whose maps, 16, 8, 4 and 2 a side for 64 pixels, are computed in either form."""
    torch.manual_seed(0)
    config = VideoFocalNetConfig(embed_dim=8, image_size=64, num_labels=6, drop_path_rate=0.0, **options)
    model = VideoFocalNetForVideoClassification(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases too, which are zero otherwise
            weight.normal_(0, 0.5 if weight.ndim == 1 else 1.5 / weight[0].numel() ** 0.5)
    return model


def clips(frames: int = 8, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 7, 8, 9, 14, 16])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_outputs_are_those_of_the_plain_form(options, frames):
    plain = make(**options)
    prepared = prepare_for_inference(copy.deepcopy(plain))
    expected, found = (model(clips(frames), output_modulators=True) for model in (plain, prepared))
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-4)
    for kind in ("spatial_modulators", "temporal_modulators"):
        for one, other in zip(found[kind], expected[kind], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def channels_last(frames: torch.Tensor) -> torch.Tensor:
    """(frames, positions, channels) of (1, channels, frames, positions)."""
    return frames.squeeze(0).permute(1, 2, 0)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("channels", [96, 384])
def test_a_short_convolution_rounds_little_more_than_a_plain_one(kernel_size, channels):
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, channels, (kernel_size, 1), padding=(kernel_size // 2, 0), bias=False)
    nn.init.normal_(convolution.weight, std=(channels * kernel_size) ** -0.5)  # outputs of unit variance
    frames = torch.randn(1, channels, 8, 49).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = F.conv2d(frames.double(), convolution.weight.double(), padding=(kernel_size // 2, 0))
        error = (ShortConvolution(convolution)(channels_last(frames)) - channels_last(exact)).abs()
    assert error.square().mean().sqrt() < 2e-6
    assert error.max() < 2e-5


@pytest.mark.parametrize("name", ["projection_context", "temporal_projection_context", "projection_out"])
def test_what_replaces_a_layer_after_preparation_is_called(name):
    model = prepare_for_inference(make())
    before = model(clips()).logits
    for layer in model.videofocalnet.stages[0].layers:  # whose maps are large enough for the faster form
        adapted = nn.Sequential(getattr(layer.modulation.plain, name), nn.Hardtanh(-0.01, 0.01))
        adapted.weight, adapted.bias = adapted[0].weight, adapted[0].bias  # as an adapter shows its base's
        layer.modulation._modules[name] = adapted
    assert not torch.equal(model(clips()).logits, before)


def test_the_plain_convolution_computes_where_a_map_is_small():
    model = prepare_for_inference(make())
    computed = []
    for number, stage in enumerate(model.videofocalnet.stages):
        for layer in stage.layers:
            layer.modulation.temporal_focal_layers[0].register_forward_hook(lambda *_, n=number: computed.append(n))
    model(clips())
    assert computed == [2, 2, 3]  # 4 x 4 positions with 32 channels, and 2 x 2 with 64


def test_a_saved_folder_is_that_of_the_plain_form(tmp_path):
    plain = make()
    plain.save_pretrained(tmp_path / "plain")
    prepare_for_inference(copy.deepcopy(plain)).save_pretrained(tmp_path / "prepared")
    for path in (tmp_path / "plain").iterdir():
        assert (tmp_path / "prepared" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_prepared_model_is_pickled_for_other_processes():
    model = prepare_for_inference(make())
    assert torch.equal(pickle.loads(pickle.dumps(model))(clips()).logits, model(clips()).logits)


def test_weights_that_are_loaded_later_are_used():
    prepared = prepare_for_inference(make())
    other = make()
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.9)
    prepared.load_state_dict(other.state_dict())
    torch.testing.assert_close(prepared(clips()).logits, other(clips()).logits, rtol=0, atol=1e-4)


class Adapted(nn.Linear):
    """Stands for a linear layer with an adapter."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return 1.5 * super().forward(hidden_states)


@pytest.mark.parametrize("name", ["projection_in", "temporal_projection_in"])
@pytest.mark.parametrize("prepared_first", [True, False])
def test_an_adapter_is_not_passed_over(name, prepared_first):
    plain, prepared = make(), make()
    if prepared_first:
        prepare_for_inference(prepared)
    for model in (plain, prepared):
        modulation = model.videofocalnet.stages[0].layers[0].modulation
        linear = getattr(modulation, name)
        adapted = Adapted(linear.in_features, linear.out_features)
        adapted.load_state_dict(linear.state_dict())
        setattr(modulation, name, adapted)
    prepare_for_inference(prepared)
    torch.testing.assert_close(prepared(clips()).logits, plain(clips()).logits, rtol=0, atol=1e-4)


def test_training_is_refused():
    model = prepare_for_inference(make())
    model.train()
    with pytest.raises(RuntimeError, match="prepared for inference; load it again to train it"):
        model(clips())
    model.eval()(clips())


def test_a_model_in_half_precision_is_refused():
    with pytest.raises(ValueError, match=r"videofocalnet.*is torch.bfloat16 on cpu; only models in float32"):
        prepare_for_inference(make().bfloat16())


@pytest.mark.parametrize("kind", ["focalnet", "convnext"])
def test_an_image_network_with_stages_of_its_own_stays_as_it_is(kind):
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1]}
    focalnet = FocalNetConfig(image_size=32, embed_dim=8, focal_levels=[1, 1], focal_windows=[3, 3], **sizes)
    body = FocalNetModel(focalnet) if kind == "focalnet" else ConvNextModel(ConvNextConfig(num_stages=2, **sizes))
    model = FrameModelForVideoClassification.from_image_model(body, num_labels=3, image_size=32).eval()
    before = model(pixel_values=clips(4)[..., :32, :32]).logits
    prepare_for_inference(model)
    torch.testing.assert_close(model(pixel_values=clips(4)[..., :32, :32]).logits, before)
