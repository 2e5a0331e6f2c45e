"""A convolution with its activation in one operation: the values of two, where that is taken and where not."""

import pytest
import torch
from torch.nn import functional as F

from sa_upscale.models import active
from sa_upscale.models.active import ActiveConv, convolved

SLOPES = [None, 0, 0.1]


@pytest.fixture
def fused(monkeypatch):
    """The calls of torch's operation for both, which is wrapped; skips where there is none."""
    operation = active._fused(torch.bfloat16)
    if operation is None:
        pytest.skip("this torch has no convolution with an activation for this processor")
    calls = []
    monkeypatch.setattr(active, "_fused", {torch.bfloat16: lambda *given: calls.append(given) or operation(*given)}.get)
    return calls


def draw(dtype=torch.float32, groups=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 9, 7, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 6 // groups, 3, 3, generator=generator)
    return x.to(dtype), weight.to(dtype), torch.randn(4, generator=generator).to(dtype)


def apart(x, weight, bias, slope, **form):
    made = F.conv2d(x, weight, bias, **form)
    return made if slope is None else F.leaky_relu(made, slope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("form", [{"padding": (1, 1)}, {"padding": (0, 1)}, {"padding": (1, 1), "groups": 2}])
def test_is_the_convolution_and_the_activation(form, slope, dtype):
    drawn = draw(dtype, form.get("groups", 1))
    expected = apart(*drawn, slope, **form)
    with torch.inference_mode():
        made = convolved(*drawn, slope, **form)
    assert made.dtype == dtype
    torch.testing.assert_close(made.clone(), expected)


def test_is_one_operation_for_leaky_relu_without_gradients(fused):
    with torch.inference_mode():
        x, weight, bias = draw(torch.bfloat16)
        made = convolved(x, weight, bias, 0.1)
        assert len(fused) == 1
        assert made.is_contiguous(memory_format=torch.channels_last)
        for slope in (None, 0):
            convolved(x, weight, bias, slope)
        with torch.autocast("cpu"):
            assert convolved(x, *draw()[1:], 0.1).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            convolved(x, weight, bias, 0.1)
        convolved(*draw(), 0.1)
    x, weight, bias = draw(torch.bfloat16)
    with torch.no_grad():
        torch.jit.trace(lambda rows: convolved(rows, weight, bias, 0.1), x, check_trace=False)
    convolved(x, weight.requires_grad_(), bias, 0.1).sum().backward()
    assert weight.grad.abs().sum() > 0
    assert len(fused) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slope", SLOPES)
def test_what_is_not_a_number_stays_so(slope, dtype):
    x, weight, bias = draw(dtype)
    x[0, 2, 4, 3] = torch.nan
    with torch.inference_mode():
        made = convolved(x, weight, bias, slope)
    assert made[0, :, 3:6, 2:5].isnan().all()
    assert made[1].isfinite().all()


def test_a_torch_without_it_or_with_another_takes_two(monkeypatch):
    drawn = draw(torch.bfloat16)
    for other in (None, lambda: None, lambda *_given: torch.zeros(1, 1, 3, 3)):
        active._fused.cache_clear()
        monkeypatch.setattr(active.torch.ops.mkldnn, "_convolution_pointwise", other, raising=False)
        with torch.inference_mode():
            torch.testing.assert_close(convolved(*drawn, 0.1), apart(*drawn, 0.1, padding=1))
    active._fused.cache_clear()


def test_is_a_convolution_to_all_who_ask():
    conv = ActiveConv(6, 4, 0.1)
    assert isinstance(conv, torch.nn.Conv2d)
    assert list(conv.state_dict()) == ["weight", "bias"]
    x = draw()[0]
    torch.testing.assert_close(conv(x), apart(x, conv.weight, conv.bias, 0.1, padding=1))
