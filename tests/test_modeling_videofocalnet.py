import copy
import json

import numpy as np
import pytest
import torch
from places import GOLDEN
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import pipeline

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification, VideoFocalNetModel
from hf_dvflnet.hub.checkpoint_conversion import convert_published_state_dict, load_published_checkpoint
from hf_dvflnet.modeling_videofocalnet import VideoFocalNetModulation


PUBLISHED_NAMES = {
    "img_size": "image_size",
    "num_classes": "num_labels",
    "use_postln": "use_post_layernorm",
    "use_postln_in_modulation": "use_post_layernorm_in_modulation",
}


def published_model(variant: str) -> VideoFocalNetForVideoClassification:
    settings = json.loads((GOLDEN / "variants.json").read_text())[variant]
    config = VideoFocalNetConfig(**{PUBLISHED_NAMES.get(name, name): value for name, value in settings.items()})
    model = VideoFocalNetForVideoClassification(config).eval()
    weights = load_published_checkpoint(GOLDEN / f"{variant}.pth")["model"]
    model.load_state_dict(convert_published_state_dict(weights), strict=True)
    return model


def new_model(config: VideoFocalNetConfig, **changes) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    return VideoFocalNetForVideoClassification(config)


def clips(batch: int = 2, frames: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("outputs", ["default.expected", "options.expected", "tubelet.expected", "default.rect"])
def test_outputs_equal_those_of_the_published_modules(outputs):
    variant = outputs.split(".")[0]
    expected = load_file(GOLDEN / f"{outputs}.safetensors")
    with torch.no_grad():
        ours = published_model(variant)(expected["pixel_values"], output_hidden_states=True, output_modulators=True)
    difference = (ours.logits - expected["logits"]).abs().max().item()
    print(f"{outputs}: logits differ by at most {difference:.1e}")
    assert difference <= 1e-5
    for stage in range(1, 5):
        found = {
            f"stage{stage}.hidden": ours.hidden_states[stage].flatten(0, 1).flatten(1, 2),
            f"stage{stage}.modulator_spatial": ours.spatial_modulators[stage - 1].flatten(0, 1).permute(0, 3, 1, 2),
            f"stage{stage}.modulator_temporal": ours.temporal_modulators[stage - 1].flatten(0, 1).permute(0, 3, 1, 2),
        }
        for name, value in found.items():
            if name in expected:
                torch.testing.assert_close(value, expected[name], rtol=0, atol=5e-5, msg=lambda m, n=name: f"{n}: {m}")


# the seed of each input, as numpy draws it
SIZES = {(2, 8, 112, 112): 1, (1, 8, 160, 120): 2, (1, 8, 110, 90): 3, (1, 16, 72, 56): 4, (1, 8, 224, 224): 5}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("variant", ["default", "options", "tubelet"])
def test_logits_equal_the_published_ones_where_a_stage_does_not_halve_evenly(variant, size):
    batch, frames, height, width = size
    shape = (batch, frames, 3, height, width)
    pixel_values = torch.from_numpy(np.random.default_rng(SIZES[size]).standard_normal(shape).astype(np.float32))
    expected = load_file(GOLDEN / "sizes.expected.safetensors")[f"{variant}.{'x'.join(map(str, shape))}"]
    with torch.no_grad():
        difference = (published_model(variant)(pixel_values).logits - expected).abs().max().item()
    print(f"{variant} on {'x'.join(map(str, shape))}: logits differ by at most {difference:.1e}")
    assert difference <= 1e-5


def test_what_fills_no_patch_at_the_border_is_not_seen(tiny_config):
    model = new_model(tiny_config).eval()
    clip = clips(1, 4, 35, 33)
    other = clip.clone()
    other[..., 32:, :], other[..., 32:] = 9.0, -9.0
    assert torch.equal(model(clip).logits, model(other).logits)
    assert torch.equal(model(clip).logits, model(clip[..., :32, :32]).logits)


def test_a_map_smaller_than_a_patch_is_completed_with_zeros(tiny_config):
    model = new_model(tiny_config).eval()
    clip = clips(1, 4, 3, 2)
    torch.testing.assert_close(model(clip).logits, model(F.pad(clip, (0, 2, 0, 1))).logits)


@pytest.mark.parametrize("frames, height, width", [(1, 32, 32), (3, 33, 47), (7, 4, 4), (2, 1, 1)])
@pytest.mark.parametrize("use_conv_embed", [False, True])
def test_any_number_of_frames_and_any_size_work(tiny_config, frames, height, width, use_conv_embed):
    model = new_model(tiny_config, use_conv_embed=use_conv_embed).eval()
    logits = model(clips(2, frames, height, width)).logits
    assert logits.shape == (2, 6) and logits.isfinite().all()


def test_hidden_states_and_modulators_have_the_documented_shapes(tiny_config):
    model = VideoFocalNetModel(tiny_config)
    output = model(clips(), output_hidden_states=True, output_modulators=True)
    stages = [(2, 4, 8, 8, 8), (2, 4, 4, 4, 16), (2, 4, 2, 2, 32), (2, 4, 1, 1, 64)]
    assert [tuple(h.shape) for h in output.hidden_states] == [stages[0], *stages]
    assert [tuple(m.shape) for m in output.spatial_modulators] == stages
    assert [tuple(m.shape) for m in output.temporal_modulators] == stages
    assert output.last_hidden_state.shape == (2, 4, 64) and output.pooler_output.shape == (2, 64)


def test_the_cheaper_forms_change_only_what_they_name(tiny_config):
    dense, depthwise, paired = (
        new_model(tiny_config, **fields).eval()
        for fields in ({}, {"depthwise_along_frames": True}, {"pair_frames": True})
    )
    # in each channel, the convolution of its own
    for ours, theirs in zip(depthwise.modules(), dense.modules(), strict=True):
        if isinstance(theirs, VideoFocalNetModulation):
            for one, other in zip(ours.temporal_focal_layers, theirs.temporal_focal_layers, strict=True):
                other.weight.data = torch.diag_embed(one.weight.data[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    weights = dense.state_dict()
    depthwise.load_state_dict({k: v for k, v in weights.items() if ".temporal_focal_layers." not in k}, strict=False)
    torch.testing.assert_close(depthwise(clips()).logits, dense(clips()).logits)
    # the weights are the same, and so are the first two stages and the means of pairs
    paired.load_state_dict(weights)
    of_all, of_pairs = (model(clips(), output_hidden_states=True).hidden_states for model in (dense, paired))
    assert [stage.shape[1] for stage in of_pairs] == [4, 4, 4, 2, 2]
    torch.testing.assert_close(of_pairs[:3], of_all[:3])
    means = of_all[2].unflatten(1, (2, 2)).mean(2)
    torch.testing.assert_close(of_pairs[3], dense.videofocalnet.stages[2](means)[0])


def test_an_odd_number_of_frames_has_no_pairs(tiny_config):
    with pytest.raises(ValueError, match="multiple of twice tubelet_size=1"):
        new_model(tiny_config, pair_frames=True)(clips(frames=3))


@pytest.mark.parametrize(
    "shape",
    [(4, 3, 32, 32), (2, 3, 4, 32, 32), (2, 3, 3, 32, 32), (2, 0, 3, 32, 32)],
    ids=["4 dimensions", "4 channels", "3 frames", "no frames"],
)
def test_a_wrong_input_is_named(tiny_config, shape):
    model = VideoFocalNetModel(VideoFocalNetConfig(**{**tiny_config.to_dict(), "tubelet_size": 2}))
    with pytest.raises(ValueError, match=r"\(batch, frames, 3, height, width\).*multiple of tubelet_size=2") as error:
        model(torch.zeros(shape))
    assert str(error.value).endswith(f"have the shape {shape}")


def test_no_tensor_stays_on_a_module_after_forward(tiny_config):
    model = new_model(tiny_config).train()
    model(clips(), labels=torch.tensor([0, 1]), output_hidden_states=True, output_modulators=True).loss.backward()
    kept = [
        (name, key)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if torch.is_tensor(value) or (isinstance(value, (list, tuple)) and any(map(torch.is_tensor, value)))
    ]
    assert not kept


@pytest.mark.parametrize(
    "fields",
    [
        {"use_layerscale": True, "use_post_layernorm_in_modulation": True},
        {"depthwise_along_frames": True, "pair_frames": True},
    ],
)
def test_every_parameter_gets_a_gradient(tiny_config, fields):
    model = new_model(tiny_config, **fields).train()
    model(clips(), labels=torch.tensor([0, 1])).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# a block of each kind, since each is traced anew
SHALLOW = {"depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]}


def test_compiles_without_a_graph_break(tiny_config):
    model = new_model(VideoFocalNetConfig(**{**tiny_config.to_dict(), **SHALLOW})).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for arguments in ({}, {"output_hidden_states": True, "output_modulators": True}):
        with torch.no_grad():
            expected, found = model(clips(), **arguments), compiled(clips(), **arguments)
        torch.testing.assert_close(found.logits, expected.logits)
        assert found.keys() == expected.keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_full(tiny_config, dtype):
    model = new_model(tiny_config).eval()
    with torch.no_grad():
        full = model(clips()).logits
        half = copy.deepcopy(model).to(dtype)(clips()).logits  # float32 input is cast
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.02)


def test_another_head_keeps_the_rest_of_the_weights(tiny_config, tmp_path):
    model = new_model(tiny_config)
    model.save_pretrained(tmp_path)
    other = VideoFocalNetForVideoClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert other.classifier.weight.shape == (9, 64)
    for name, weight in model.videofocalnet.state_dict().items():
        assert torch.equal(weight, other.videofocalnet.state_dict()[name]), name


def test_drop_path_drops_whole_frames_at_its_rate(tiny_config):
    model = new_model(VideoFocalNetConfig(**{**tiny_config.to_dict(), "drop_path_rate": 0.5})).train()
    rates = [layer.drop_path_rate for stage in model.videofocalnet.stages for layer in stage.layers]
    assert rates == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])
    torch.manual_seed(0)
    ones = torch.ones(200, 10, 2, 2, 3)
    frames = model.videofocalnet.stages[-1].layers[-1].add(torch.zeros_like(ones), ones, None).flatten(2)
    assert set(frames.unique().tolist()) == {0.0, 2.0}
    assert (frames.amin(-1) == frames.amax(-1)).all()
    assert (frames == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


CLASS_IDS, PROBABILITIES = (
    torch.tensor([1, 5]),
    torch.rand(2, 6, generator=torch.Generator().manual_seed(0)).softmax(-1),
)
SEVERAL = torch.tensor([[1.0, 0, 1, 0, 0, 0], [0.0, 1, 0, 0, 0, 1]])


@pytest.mark.parametrize(
    "problem_type, labels, loss",
    [
        (None, CLASS_IDS, F.cross_entropy),
        (None, PROBABILITIES, F.cross_entropy),
        ("single_label_classification", PROBABILITIES, F.cross_entropy),
        ("multi_label_classification", SEVERAL, F.binary_cross_entropy_with_logits),
    ],
)
def test_the_loss_is_that_of_the_labels_and_the_problem_type(tiny_config, problem_type, labels, loss):
    output = new_model(tiny_config, problem_type=problem_type).eval()(clips(), labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits, labels))


def test_training_on_probabilities_leaves_the_config_alone(tiny_config, tiny_processor, tmp_path, video_files):
    model = new_model(tiny_config)
    before = model.config.to_dict()
    model(clips(), labels=torch.full((2, 6), 1 / 6)).loss.backward()
    model(clips(), labels=torch.tensor([1, 2])).loss.backward()
    assert model.config.to_dict() == before
    model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    answers = pipeline("video-classification", model=str(tmp_path))(str(video_files["h264_short_gop.mp4"]), top_k=6)
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)


def test_views_are_averaged_as_probabilities(tiny_config):
    model = new_model(tiny_config).eval()
    views = torch.stack([clips(3), clips(3).flip(-1)], dim=1)  # (3, 2 views, ...)
    with torch.no_grad():
        averaged = model(views).logits.softmax(-1)
        single = [model(views[:, view]).logits.softmax(-1) for view in range(2)]
    torch.testing.assert_close(averaged, (single[0] + single[1]) / 2)


# what users of transformers do by habit


@pytest.mark.parametrize(
    "problem_type, num_labels, labels",
    [
        ("single_label_classification", 6, torch.tensor([1, 5])),
        ("single_label_classification", 6, torch.full((2, 6), 1 / 6)),
        ("multi_label_classification", 6, torch.ones(2, 6)),
        ("regression", 1, torch.tensor([0.5, 2.0])),
    ],
)
def test_a_training_step_compiles_without_a_graph_break(tiny_config, problem_type, num_labels, labels):
    config = {**tiny_config.to_dict(), **SHALLOW, "id2label": None, "num_labels": num_labels}
    model = new_model(VideoFocalNetConfig(**config), problem_type=problem_type)
    compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
    loss = compiled(clips(), labels=labels).loss
    loss.backward()
    torch.testing.assert_close(loss, model(clips(), labels=labels).loss)


def test_a_model_is_saved_with_the_positional_arguments_of_transformers(tiny_config, tmp_path):
    model = new_model(tiny_config)
    weights = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path, True, weights)
    assert not VideoFocalNetForVideoClassification.from_pretrained(tmp_path).classifier.weight.any()
