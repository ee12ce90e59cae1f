import pytest
import torch

from hf_dvflnet.training.losses import (
    DIVERGENCES,
    divergence_of,
    forward_kl,
    jensen_shannon,
    logit_mse,
    mixed_answers,
    reverse_kl,
)


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    powers = torch.exp(logits / temperature)
    return powers / powers.sum(-1, keepdim=True)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * torch.log(p / q)).sum(-1).mean()


def of(name: str, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 3.0) -> torch.Tensor:
    return divergence_of(name, student, teacher, temperature, beta=0.3)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_each_divergence_is_its_definition_in_probability_space(temperature):
    student, teacher = logits(8, 51)
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    m = 0.3 * p + 0.7 * q
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    expected = {
        "forward_kl": temperature**2 * kl(p, q),
        "reverse_kl": temperature**2 * kl(q, p),
        "jensen_shannon": temperature**2 * (0.3 * kl(p, m) + 0.7 * kl(q, m)),
        "mse": (centred**2).mean(),
    }
    assert set(expected) == set(DIVERGENCES)
    for name, value in expected.items():
        torch.testing.assert_close(of(name, student, teacher, temperature), value, msg=name)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_of_equals_is_zero(name):
    student = 5 * logits(8, 51)[0].float()
    assert of(name, student, student.clone(), 10.0).abs() <= 1e-7 * 10.0**2


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_has_the_gradient_of_its_values(name):
    student, teacher = logits(3, 5)
    assert torch.autograd.gradcheck(lambda x: of(name, x, teacher), student.requires_grad_())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_computed_in_float32_from_half_precision(name):
    student, teacher = logits(8, 51).bfloat16()
    assert of(name, student, teacher).dtype == torch.float32
    torch.testing.assert_close(of(name, student, teacher), of(name, student.float(), teacher.float()))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_constant_added_to_all_logits_changes_nothing(name):
    student, teacher = logits(8, 51)
    torch.testing.assert_close(of(name, student + 7, teacher - 3), of(name, student, teacher))


def test_forward_and_reverse_kl_have_their_directions():
    sure, unsure = torch.tensor([[10.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    # KL(sure || unsure) is log 2, KL(unsure || sure) over 4
    assert forward_kl(student_logits=unsure, teacher_logits=sure).item() == pytest.approx(0.693, abs=2e-3)
    assert reverse_kl(student_logits=unsure, teacher_logits=sure).item() == pytest.approx(4.307, abs=2e-3)


def test_jensen_shannon_tends_to_both_kls_at_its_ends():
    student, teacher = logits(8, 51)
    beta = 1e-6
    near_0, near_1 = (jensen_shannon(student, teacher, 2.0, end) for end in (beta, 1 - beta))
    torch.testing.assert_close(near_0 / beta, forward_kl(student, teacher, 2.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(near_1 / beta, reverse_kl(student, teacher, 2.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, float("nan")])
def test_an_end_of_jensen_shannon_is_refused_and_names_the_kl(beta):
    with pytest.raises(ValueError, match="above 0 and below 1, got .* forward_kl .* reverse_kl"):
        jensen_shannon(*logits(1, 2), beta=beta)


def test_the_squared_difference_is_twice_the_limit_of_forward_kl():
    student, teacher = logits(8, 51)
    torch.testing.assert_close(2 * forward_kl(student, teacher, 1e4), logit_mse(student, teacher), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_mixed_answers_are_the_mean_of_what_the_divergence_compares(name):
    answers = logits(2, 5)[0]
    mixed = mixed_answers(name, answers, torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=torch.float64), 3.0)
    first, second = (answers - answers.mean(-1, keepdim=True) if name == "mse" else (answers / 3).softmax(-1)).unbind()
    compared = mixed if name == "mse" else (mixed / 3).softmax(-1)
    torch.testing.assert_close(compared, torch.stack([0.25 * first + 0.75 * second, first]))
