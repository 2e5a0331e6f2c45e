import pytest
import torch

from sa_upscale import models
from sa_upscale.models.compact import Compact


def tiny(**parameters):
    torch.manual_seed(0)
    network = Compact(**({"scale": 2, "features": 8, "convs": 3} | parameters)).eval()
    with torch.no_grad():  # the small last layer of a fresh network would hide differences in the others
        network.tail.weight.normal_(std=0.3)
    return network


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_result_is_scale_times_as_large_and_float32(scale):
    network = tiny(scale=scale).bfloat16()
    sr = network(torch.rand(2, 3, 5, 7))
    assert sr.shape == (2, 3, 5 * scale, 7 * scale)
    assert sr.dtype == torch.float32


def test_the_default_has_at_most_one_and_a_half_million_parameters():
    assert 0.5e6 < sum(p.numel() for p in Compact().parameters()) < 1.5e6


def test_without_detail_it_is_nearest_upscaling():
    network = tiny()
    torch.nn.init.zeros_(network.tail.weight)
    lr = torch.rand(1, 3, 4, 4)
    assert torch.equal(network(lr), lr.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2))


def test_folding_keeps_the_function():
    network = tiny(branches=True)
    plain = network.fold()
    lr = torch.rand(1, 3, 9, 11)
    assert "branches" not in plain.parameters_dict
    torch.testing.assert_close(plain(lr), network(lr), rtol=1e-4, atol=1e-5)
    assert plain.fold() is plain


def test_unfolding_reverses_folding():
    plain = tiny()
    network = tiny(branches=True)
    network.load_state_dict(network.unfold(plain.state_dict()))
    lr = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(network(lr), plain(lr), rtol=1e-4, atol=1e-5)


def test_context_is_exactly_how_far_an_output_pixel_sees():
    network = tiny()
    lr = torch.rand(1, 3, 25, 25, requires_grad=True)
    network(lr)[0, :, 24, 24].sum().backward()  # the output pixel over LR pixel (12, 12)
    seen = lr.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen - 12).abs().max() == network.context == 5


def test_its_parameters_rebuild_it():
    network = tiny(branches=True)
    again = models.build("compact", **network.parameters_dict)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_unknown_names_are_refused_with_the_near_ones():
    with pytest.raises(ValueError, match="did you mean compact"):
        models.build("compcat")
    with pytest.raises(ValueError, match="did you mean features"):
        models.build("compact", feature=3)
