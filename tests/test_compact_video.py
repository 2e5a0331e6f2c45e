import numpy as np
import pytest
import torch

from sa_upscale import checkpoints, models
from sa_upscale.engine import Engine
from sa_upscale.models.compact import Compact
from sa_upscale.models.compact_video import CompactVideo

SMALL = {"scale": 2, "features": 8, "convs": 3}


def tiny(kind=CompactVideo, **parameters):
    """A network whose every part counts: in a fresh one the last layer is small and the neighbours are not seen."""
    torch.manual_seed(0)
    network = kind(**(SMALL | parameters)).eval()
    with torch.no_grad():
        network.tail.weight.normal_(std=0.3)
        if kind is CompactVideo:
            network.neighbours.normal_(std=0.3)
    return network


def frames(height=9, width=11):
    return torch.rand(2, 5, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_result_is_the_middle_frames_and_float32(scale):
    network = tiny(scale=scale).bfloat16()
    sr = network(frames())
    assert sr.shape == (2, 3, 9 * scale, 11 * scale)
    assert sr.dtype == torch.float32
    assert sr.isfinite().all()


@pytest.mark.parametrize("branches", [False, True])
def test_with_a_compact_networks_weights_it_is_that_network_on_the_middle_frame(branches):
    still = tiny(Compact)
    network = tiny(branches=branches)
    network.load_state_dict(network.unfold(network.adopt(still.state_dict())))
    lr = frames()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if branches else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(network(lr), still(lr[:, 2]), **tolerance)


def test_its_own_weights_are_adopted_whole():
    state = tiny().state_dict()
    adopted = tiny().adopt(state)
    assert adopted.keys() == state.keys()
    assert torch.equal(adopted["neighbours"], state["neighbours"])


def test_a_fresh_network_sees_the_middle_frame_only():
    network = CompactVideo(**SMALL)
    lr = frames()
    moved = lr.clone()
    moved[:, [0, 1, 3, 4]] = 0.5
    assert torch.equal(network(lr), network(moved))


def test_each_neighbour_has_its_own_weights():
    """Frame t - 2 is the first fourth of the neighbours' kernel, t + 2 the last."""
    network = tiny()
    for quarter, frame in enumerate((0, 1, 3, 4)):
        with torch.no_grad():
            network.neighbours.zero_()
            network.neighbours[:, 3 * quarter : 3 * quarter + 3] = 0.3
        lr = frames().requires_grad_()
        network(lr).square().sum().backward()
        seen = lr.grad.abs().sum(dim=(0, 2, 3, 4)).nonzero().flatten().tolist()
        assert seen == sorted({frame, 2})


def test_without_detail_it_is_nearest_upscaling_of_the_middle_frame():
    network = tiny()
    torch.nn.init.zeros_(network.tail.weight)
    lr = frames()
    assert torch.equal(network(lr), lr[:, 2].repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2))


def test_folding_keeps_the_function():
    network = tiny(branches=True)
    plain = network.fold()
    assert isinstance(plain, CompactVideo)
    assert "branches" not in plain.parameters_dict
    torch.testing.assert_close(plain(frames()), network(frames()), rtol=1e-4, atol=1e-5)
    assert plain.fold() is plain


def test_unfolding_reverses_folding():
    plain, network = tiny(), tiny(branches=True)
    network.load_state_dict(network.unfold(plain.state_dict()))
    torch.testing.assert_close(network(frames()), plain(frames()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frame", range(5))
def test_context_is_exactly_how_far_an_output_pixel_sees(frame):
    network = tiny()
    for parameter in network.parameters():  # positive everywhere: nothing cancels, no activation switches off
        torch.nn.init.constant_(parameter, 0.05)
    before = torch.rand(1, 5, 3, 25, 25)
    for distance, changed in ((network.context, True), (network.context + 1, False)):
        after = before.clone()
        after[0, frame, :, 12 - distance, 12 + distance] += 0.5
        difference = (network(after) - network(before))[0, :, 24:26, 24:26]  # the pixels over LR pixel (12, 12)
        assert bool(difference.abs().max() > 1e-6) == changed


def test_every_weight_gets_a_gradient_from_the_start():
    network = CompactVideo(**SMALL, branches=True)
    (network(frames()) - 0.5).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shape", [(1, 3, 3, 8, 8), (1, 3, 8, 8)])
def test_other_windows_are_refused(shape):
    with pytest.raises(ValueError, match=r"takes \(N, 5, C, h, w\)"):
        tiny()(torch.rand(shape))


def test_a_checkpoint_keeps_it(tmp_path):
    network = tiny()
    file = tmp_path / "clip.safetensors"
    checkpoints.save(
        file, network.state_dict(), architecture="compact-video", parameters=network.parameters_dict, metadata={}
    )
    again = checkpoints.load(file).model
    assert isinstance(again, models.GENERATORS["compact-video"])
    assert (again.scale, again.window, again.context) == (2, 5, 5)
    assert torch.equal(again(frames()), network(frames()))


def test_it_costs_next_to_nothing_beyond_the_compact_network():
    still, network = Compact(), CompactVideo()
    more = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in still.parameters())
    assert more == 64 * 12 * 9
    assert network.context == still.context


def test_the_engine_runs_it_in_tiles_as_in_one_piece():
    network = tiny()
    clip = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    with torch.no_grad():
        lr = torch.from_numpy(clip).movedim(-1, 1)[None].float() / 255
        expected = (network(lr)[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    for tile in (None, 16):
        engine = Engine(network, device="cpu", precision="fp32", tile=tile)
        result = engine.run_prepared([engine.prepare(frame) for frame in clip])
        assert result.shape == (80, 100, 3)
        assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1
