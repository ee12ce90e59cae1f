import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap
from torch.nn import functional as F
from transformers.activations import ACT2FN

from hf_dvflnet import VideoFocalNetForVideoClassification
from hf_dvflnet.modeling_videofocalnet import GatedContext, add_gated_context


SHAPE, GATE = (2, 5, 3, 4), (2, 1, 3, 4)


def plain(gathered, hidden_states, gate):
    return gathered + F.gelu(hidden_states) * gate, F.gelu(hidden_states)


@pytest.mark.parametrize("gathered", [SHAPE, ()])
def test_a_gated_context_and_its_gradients_are_those_of_plain_operations(gathered):
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (gathered, SHAPE, GATE)]
    inputs[0].requires_grad_(gathered == SHAPE)  # before the first level it is a constant
    outputs, expected = GatedContext.apply(*inputs), plain(*inputs)
    torch.testing.assert_close(outputs, expected)
    wanted = [value for value in inputs if value.requires_grad]
    upstream = [torch.randn(SHAPE, dtype=torch.float64) for _ in outputs]
    torch.testing.assert_close(
        torch.autograd.grad(outputs, wanted, upstream), torch.autograd.grad(expected, wanted, upstream)
    )


def test_a_gated_context_has_second_derivatives():
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (SHAPE, SHAPE, GATE)]
    assert torch.autograd.gradcheck(GatedContext.apply, inputs)
    assert torch.autograd.gradgradcheck(GatedContext.apply, inputs)


def test_a_gated_context_is_not_kept_for_the_backward_pass():
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        inputs = [torch.randn(shape, requires_grad=True) for shape in (SHAPE, SHAPE, GATE)]
        add_gated_context(*inputs, ACT2FN["gelu"])
    assert kept == [SHAPE, GATE]


@pytest.mark.parametrize("name", ["relu", "gelu_pytorch_tanh"])
def test_other_activations_gate_their_own_context(name):
    inputs = [torch.randn(shape, requires_grad=True) for shape in (SHAPE, SHAPE, GATE)]
    gathered, context = add_gated_context(*inputs, ACT2FN[name])
    torch.testing.assert_close(context, ACT2FN[name](inputs[1]))
    torch.testing.assert_close(gathered, inputs[0] + ACT2FN[name](inputs[1]) * inputs[2])


def test_a_gated_context_has_batched_gradients_and_forward_derivatives():
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (SHAPE, SHAPE, GATE))

    def gathered(function):
        return lambda *inputs: function(*inputs)[0].square().sum()

    for transform in (jacrev, jacfwd, hessian):
        every = (0, 1, 2)
        torch.testing.assert_close(
            transform(gathered(GatedContext.apply), every)(*inputs), transform(gathered(plain), every)(*inputs)
        )
    outputs = GatedContext.apply(*inputs)[0]
    upstream = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(outputs, inputs, upstream, is_grads_batched=True),
        torch.autograd.grad(plain(*inputs)[0], inputs, upstream, is_grads_batched=True),
    )


def test_functorch_gives_the_gradients_of_each_clip(tiny_config):
    model = VideoFocalNetForVideoClassification(tiny_config)
    clips = torch.randn(2, tiny_config.num_frames, 3, tiny_config.image_size, tiny_config.image_size)
    weights = dict(model.named_parameters())

    def loss(weights, clip):
        return functional_call(model, weights, (clip[None],)).logits.square().sum()

    of_each = vmap(grad(loss), in_dims=(None, 0))(weights, clips)
    for number, clip in enumerate(clips):
        expected = torch.autograd.grad(loss(weights, clip), list(weights.values()))
        torch.testing.assert_close([of_each[name][number] for name in weights], list(expected), atol=1e-5, rtol=1e-4)
