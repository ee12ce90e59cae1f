"""A causal network: what it sees, and that a stream of steps gives the answers of a clip."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification, VideoFocalNetModel
from hf_dvflnet.inference.inference_form import prepare_for_inference


def causal_model(**fields) -> VideoFocalNetForVideoClassification:
    """A causal network whose answers depend visibly on each frame."""
    torch.manual_seed(0)
    defaults = {"embed_dim": 8, "image_size": 32, "num_frames": 4, "num_labels": 6, "causal": True}
    defaults |= {"depths": [1, 2], "focal_levels": [2, 1], "focal_windows": [3, 3]}
    model = VideoFocalNetForVideoClassification(VideoFocalNetConfig(**{**defaults, **fields}))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def frames_of(streams: int, frames: int, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.randn(streams, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def stepped(model, frames: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    state, answers = (), []
    for chunk in frames.split(sizes, dim=1):
        logits, state = model.step(chunk, state)
        answers.append(logits)
    return torch.cat(answers, 1)


def test_a_frame_does_not_see_the_frames_after_it():
    model, frames = causal_model(), frames_of(2, 12)
    others = frames.clone()
    others[:, 7:] = 9.0
    with torch.no_grad():
        logits, of_others = model(frames).frame_logits, model(others).frame_logits
    assert torch.equal(logits[:, :7], of_others[:, :7])
    assert ((logits - of_others)[:, 7:].abs().amax((0, 2)) > 1e-3).all()


def test_a_clip_is_answered_as_after_its_last_frame():
    with torch.no_grad():
        output = causal_model()(frames_of(2, 9))
    assert output.frame_logits.shape == (2, 9, 6)
    assert torch.equal(output.logits, output.frame_logits[:, -1])


def test_means_are_over_the_frames_so_far_and_at_most_num_frames():
    model = causal_model(num_frames=3)
    with torch.no_grad():
        features = model.videofocalnet(frames_of(1, 5))
    each = features.last_hidden_state.view(1, 5, -1, model.config.hidden_size).mean(2)
    for frame in range(5):
        expected = each[:, max(0, frame - 2) : frame + 1].mean(1)
        torch.testing.assert_close(features.frame_pooler_output[:, frame], expected)


@settings(max_examples=20, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    streams=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    num_frames=st.sampled_from([1, 2, 5, 8]),
    options=st.sampled_from(
        [
            *({}, {"tubelet_size": 2}, {"use_conv_embed": True}),
            *({"normalize_modulator": True}, {"depthwise_along_frames": True}),
        ]
    ),
)
def test_steps_equal_the_network_over_the_same_frames(chunks, streams, height, width, num_frames, options):
    tubelet_size = options.get("tubelet_size", 1)
    model = causal_model(num_frames=num_frames * tubelet_size, **options)
    sizes = [chunk * tubelet_size for chunk in chunks]
    frames = frames_of(streams, sum(sizes), height, width)
    with torch.no_grad():
        expected = model(frames).frame_logits
    bound = 1e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(stepped(model, frames, sizes), expected, rtol=0, atol=bound)


def test_the_answers_do_not_drift_over_100_000_frames():
    # a frame sees some 12 frames back; what was before does not matter
    model = causal_model(embed_dim=4, num_frames=2)
    chunk = frames_of(1, 2000, 4, 4)
    with torch.no_grad():
        expected = model(torch.cat([chunk, chunk], 1)).frame_logits[:, -1000:]
    state = ()
    for _ in range(50):
        logits, state = model.step(chunk, state)
    assert state[0].tolist() == [100_000]
    torch.testing.assert_close(logits[:, -1000:], expected, rtol=0, atol=1e-5)


def test_one_stream_is_reset_by_zeros_and_the_others_go_on():
    model, frames = causal_model(), frames_of(2, 8)
    _, state = model.step(frames[:, :5])
    for tensor in state:
        tensor[1] = 0
    logits, _ = model.step(frames[:, 5:], state)
    with torch.no_grad():
        going_on, new = model(frames).frame_logits, model(frames[:, 5:]).frame_logits
    torch.testing.assert_close(logits[0], going_on[0, 5:], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[1], new[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "streams, side, fields, message",
    [
        (3, 16, {}, "of 2 streams"),
        (2, 24, {}, "another size"),
        (2, 16, {"embed_dim": 16}, "another model"),
        (2, 16, {"depths": [1, 3]}, "another model"),
        (2, 16, {"depths": [1, 1]}, "another model"),
        (2, 16, {"num_frames": 8}, "another model"),
    ],
)
def test_a_state_of_other_streams_sizes_or_models_is_refused(streams, side, fields, message):
    _, state = causal_model().step(frames_of(2, 2))
    with pytest.raises(ValueError, match=message):
        causal_model(**fields).step(frames_of(streams, 1, side, side), state)


def test_the_weights_of_both_forms_have_the_same_names_and_shapes(tmp_path, caplog):
    plain = causal_model(causal=False)
    plain.save_pretrained(tmp_path)
    causal, info = VideoFocalNetForVideoClassification.from_pretrained(tmp_path, causal=True, output_loading_info=True)
    assert not any(info.values()) and causal.config.causal
    with torch.no_grad():
        assert not torch.allclose(causal(frames_of(1, 4)).logits, plain(frames_of(1, 4)).logits)


def test_loading_weights_of_the_other_form_warns(tmp_path, monkeypatch):
    causal_model(causal=False).save_pretrained(tmp_path)
    warnings = []
    monkeypatch.setattr("hf_dvflnet.configuration_videofocalnet.logger.warning", warnings.append)
    VideoFocalNetModel.from_pretrained(tmp_path, causal=False)
    assert not warnings
    VideoFocalNetModel.from_pretrained(tmp_path, causal=True)
    assert "trained with causal=False" in warnings[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_causal_network_is_trained(checkpointing):
    model, frames = causal_model(drop_path_rate=0.0).train(), frames_of(2, 4)
    expected = copy.deepcopy(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    for network in (model, expected):
        network(frames, labels=torch.tensor([0, 1])).loss.backward()
    for (name, found), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found.grad, other.grad, msg=lambda m, n=name: f"{n}: {m}")
    assert model.videofocalnet.stages[0].layers[0].modulation.temporal_focal_layers[0].weight.grad.abs().max() > 0


def test_the_inference_form_of_a_causal_network_gives_its_answers():
    model, frames = causal_model(), frames_of(2, 8, 64, 64)
    with torch.no_grad():
        expected = model(frames).frame_logits
    prepared = prepare_for_inference(model)
    with torch.no_grad():
        torch.testing.assert_close(prepared(frames).frame_logits, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(stepped(prepared, frames, [1] * 8), expected, rtol=0, atol=1e-4)
