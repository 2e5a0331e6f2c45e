"""Networks in 8-bit integers: close to what they are in float32, whatever they are shown."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sa_upscale import checkpoints, images
from sa_upscale.engine import Engine, calibration, precisions
from sa_upscale.errors import UpscaleError
from sa_upscale.models import bands, build, int8
from sa_upscale.models.compact import Compact
from sa_upscale.models.rrdbnet import DenseBlock

EXAMPLE = Path(__file__).parents[1] / "examples" / "dragonfly.jpg"

pytestmark = pytest.mark.skipif(not int8.able(), reason="this processor or torch has no fast int8")


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * torch.log10(((a.clamp(0, 1) - b.clamp(0, 1)) ** 2).mean()).item()


def photo(height: int, width: int) -> np.ndarray:
    return images.read(EXAMPLE).pixels[200 : 200 + height, 250 : 250 + width]


def as_input(pixels: np.ndarray, window: int) -> torch.Tensor:
    x = torch.from_numpy(pixels.copy()).movedim(-1, 0)[None].float() / 255
    return torch.stack([x.roll(n, -1) for n in range(window)], dim=1) if window > 1 else x


def drawn() -> np.ndarray:
    """Black lines and letters' strokes on white, one pixel wide: far from anything a photo holds."""
    picture = np.full((96, 96, 3), 255, np.uint8)
    picture[::7] = picture[:, ::11] = 0
    picture[range(96), range(96)] = 0
    return picture


@pytest.mark.parametrize("name", ["compact-x4-fidelity", "compact-x4", "compact-x2", "vsrresnet-x4"])
@pytest.mark.parametrize("source", ["photo", "drawn"])
@torch.inference_mode()
def test_result_is_near_that_of_float32(name, source):
    network = checkpoints.load(name).model
    x = as_input(photo(96, 96) if source == "photo" else drawn(), network.window)
    made = int8.converted(network)(x)
    assert made.dtype == torch.float32
    assert psnr(made, network(x)) > (42 if source == "photo" else 30)


@torch.inference_mode()
def test_what_a_band_of_rows_reaches_does_not_coarsen_the_others(monkeypatch):
    network = checkpoints.load("compact-x4-fidelity").model
    sky = np.linspace(90, 100, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    x = as_input(np.concatenate((sky, drawn()[:64, :64])), 1)
    monkeypatch.setattr(bands, "BYTES", 1)  # as few rows at a time as may be
    alone = psnr(int8.converted(network)(x)[:, :, :120], network(x)[:, :, :120])
    monkeypatch.setattr(bands, "BYTES", 1 << 30)
    assert alone > psnr(int8.converted(network)(x)[:, :, :120], network(x)[:, :, :120]) + 6


@pytest.mark.parametrize("name", ["compact", "compact-video", "vsrresnet"])
@torch.inference_mode()
def test_equalised_channels_are_the_same_function(name, monkeypatch):
    """With nothing rounded, the converted network is the network."""
    torch.manual_seed(0)
    network = build(name).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + torch.rand_like(parameter))

    def exact(kernel, codes, of, bias, *, relu):
        made = F.conv2d((codes.float() - of.zero) * of.scale, kernel.weight, bias, padding=(0, 1))
        return made.relu_() if relu else made

    class Exact(int8.Kernel):
        def __init__(self, weight):
            self.weight = weight

        convolve = exact

    monkeypatch.setattr(int8, "Kernel", Exact)
    monkeypatch.setattr(int8.Codes, "reaching", classmethod(lambda cls, *maps, positive: cls(1.0, 0)))
    monkeypatch.setattr(int8.Codes, "of", lambda self, values: values)
    x = as_input(photo(40, 24), network.window)
    result = network(x)
    torch.testing.assert_close(int8.converted(network)(x), result, rtol=0, atol=1e-4 * float(result.abs().max()))


def test_codes_hold_zero_exactly_and_all_else_within_half_a_step(monkeypatch):
    values = torch.randn(1, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    codes = int8.Codes.reaching(values)
    read = (codes.of(values).float() - codes.zero) * codes.scale
    assert (read - values).abs().max() <= codes.scale * 0.501 + 1e-6
    assert codes.of(torch.zeros(1)).item() == codes.zero
    kept = codes.of(values)
    monkeypatch.setattr(int8, "_quantising", lambda: None)
    assert (codes.of(values).int() - kept.int()).abs().max() <= 1  # 1: a different rounding of a tie


@pytest.mark.parametrize(("name", "known"), [("vsrresnet", 1.0), ("compact", 0.0)])
@torch.inference_mode()
def test_numbers_below_0_are_not_looked_for_where_there_are_none(name, known, monkeypatch):
    torch.manual_seed(0)
    network = int8.converted(build(name).eval())
    asked = []

    def watched(values, positive=False):
        asked.append(positive)
        assert not positive or values.min() >= 0
        return reach(values, positive)

    reach = int8.reach
    monkeypatch.setattr(int8, "reach", watched)
    monkeypatch.setattr(bands, "BYTES", 1)
    network(as_input(photo(48, 24), network.window))
    assert np.mean(asked) == known


@torch.inference_mode()
def test_a_convolution_is_that_of_the_rounded_numbers():
    torch.manual_seed(0)
    weight, bias = torch.randn(20, 16, 3, 3), torch.randn(20)
    rows = torch.rand(1, 16, 9, 13).contiguous(memory_format=torch.channels_last) - 0.3
    layer = int8.Int8Conv(int8.Kernel(weight), bias, 0.1)
    made = torch.cat((layer.feed(rows[:, :, :4], False), layer.feed(rows[:, :, 4:], True)), dim=2)
    exact = F.leaky_relu(F.conv2d(rows, weight, bias, padding=1), 0.1)
    assert made.shape == exact.shape
    assert (made - exact).abs().max() < 0.05 * exact.abs().max()


@torch.inference_mode()
def test_bytes_lie_as_the_convolution_takes_them_at_the_edges_of_a_picture_too(monkeypatch):
    laid = []

    def watched(kernel, codes, of, bias, **form):
        laid.append(codes.is_contiguous(memory_format=torch.channels_last))
        return convolve(kernel, codes, of, bias, **form)

    convolve = int8.Kernel.convolve
    monkeypatch.setattr(int8.Kernel, "convolve", watched)
    monkeypatch.setattr(bands, "BYTES", 1)
    int8.converted(build("compact").eval())(as_input(photo(48, 24), 1))
    assert len(laid) >= 34  # in two bands and more
    assert all(laid)


def dense_block(seed: int = 0) -> DenseBlock:
    torch.manual_seed(seed)
    block = DenseBlock(24, 16).eval().requires_grad_(False)
    for conv in block.children():
        conv.weight.mul_(6)
        conv.bias.uniform_(-0.1, 0.1)
    return block


def features(reach: float = 1.0) -> torch.Tensor:
    x = torch.randn(2, 24, 11, 13, generator=torch.Generator().manual_seed(1)) * reach
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("reach", [3.0, 0.05])
@torch.inference_mode()
def test_a_dense_block_is_near_that_of_float32(reach):
    """Also where its own maps reach further than the features it is fed, and have to be rounded anew."""
    block, x = dense_block(), features(reach)
    added, exact = int8.Int8Dense(block)(x) - x, block(x) - x
    assert added.is_contiguous(memory_format=torch.channels_last)
    assert (added - exact).std() < 0.03 * exact.std()
    edge = torch.ones(1, 1, 11, 13, dtype=torch.bool)
    edge[..., 1:-1, 1:-1] = False  # where zeros are seen beyond the picture
    assert ((added - exact) * edge).std() < 0.03 * exact.std()


@torch.inference_mode()
def test_maps_of_a_dense_block_share_codes_that_hold_all_of_them(monkeypatch):
    seen = []

    def watched(kernel, codes, of, bias, **form):
        seen.append((codes.shape[1], of, codes.float().sub(of.zero).mul(of.scale)))
        return convolve(kernel, codes, of, bias, **form)

    convolve = int8.Kernel.convolve
    monkeypatch.setattr(int8.Kernel, "convolve", watched)
    block, x = dense_block(), features(0.05)
    int8.Int8Dense(block)(x)
    assert [channels for channels, _, _ in seen] == [24, 40, 56, 72, 88]
    assert seen[0][1].scale < seen[-1][1].scale
    maps, dense = x, []
    for conv in (block.conv1, block.conv2, block.conv3, block.conv4):
        maps = torch.cat((maps, conv(maps)), dim=1)
        dense.append(maps)
    for (_, codes, read), exact in zip(seen[1:], dense, strict=True):
        assert (read - exact).abs().max() < 3 * codes.scale


@torch.inference_mode()
def test_a_dense_block_says_what_is_no_number():
    x = features()
    x[0, 3, 4, 5] = torch.nan
    assert int8.Int8Dense(dense_block())(x).isnan().any()
    x[0, 3, 4, 5] = torch.inf
    assert int8.Int8Dense(dense_block())(x).isnan().any()


@pytest.mark.parametrize("tail", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_rrdbnet_is_near_that_of_float32(tail):
    torch.manual_seed(0)
    network = build("rrdbnet", blocks=2).eval()
    network.conv_last.bias.fill_(0.5)
    made = int8.converted(network, tail)
    assert {made.conv_up1.weight.dtype, made.conv_hr.weight.dtype} == {tail}
    assert made.conv_last.weight.dtype == torch.float32
    assert not any(isinstance(module, DenseBlock) for module in made.modules())
    assert any(isinstance(module, DenseBlock) for module in network.modules())
    for picture in (photo(40, 48), drawn()):
        x = as_input(picture, 1)
        assert made(x).dtype == torch.float32
        assert psnr(made(x), network(x)) > 40


@pytest.mark.parametrize("faster", [True, False])
def test_the_registry_may_say_what_it_costs(monkeypatch, tmp_path, faster):
    network = build("rrdbnet", blocks=1)
    file = tmp_path / "small.safetensors"
    checkpoints.save(
        file, network.state_dict(), architecture="rrdbnet", parameters=network.parameters_dict, metadata={}
    )
    entry = checkpoints.Entry("small", "small", "rrdbnet", 4, 1, "", "CC0-1.0", file=file.name, int8_loss=0.001)
    monkeypatch.setattr(checkpoints.loading, "locate", lambda *_given, **_named: (entry, file))
    measured = calibration.Choice("fp32", 256, torch.get_num_threads(), faster)
    monkeypatch.setattr(calibration, "known", lambda device: measured)
    known = checkpoints.load("small").model
    assert known.int8_loss == 0.001
    assert Engine(known, device="cpu").precision == ("int8" if faster else "fp32")
    monkeypatch.setattr(checkpoints.loading, "locate", lambda *_given, **_named: (None, file))
    assert checkpoints.load("small").model.int8_loss == math.inf


@pytest.mark.parametrize("faster", [True, False])
def test_the_engine_chooses_it_where_it_is_faster_and_known_to_cost_nothing(monkeypatch, faster):
    measured = calibration.Choice("fp32", 256, torch.get_num_threads(), faster)
    monkeypatch.setattr(calibration, "known", lambda device: measured)
    known = checkpoints.load("vsrresnet-x4")
    assert 0 < float(known.metadata["int8_loss"]) <= 0.02
    network = known.model
    assert Engine(network, device="cpu").precision == ("int8" if faster else "fp32")
    assert Engine(network, device="cpu", precision="bf16").precision == "bf16"
    unmeasured = checkpoints.load("compact-x2-fidelity").model
    assert unmeasured.int8_loss == math.inf
    assert Engine(unmeasured, device="cpu").precision == "fp32"
    network.int8_loss = 0.03
    assert Engine(network, device="cpu").precision == "fp32"


def test_what_it_costs_has_to_be_a_number(tmp_path):
    file, network = tmp_path / "odd.safetensors", Compact(features=4, convs=1)
    facts = {"architecture": "compact", "parameters": network.parameters_dict}
    checkpoints.save(file, network.state_dict(), **facts, metadata={"int8_loss": "little"})
    with pytest.raises(UpscaleError, match="cannot be used: could not convert"):
        checkpoints.load(file)


def test_the_engine_runs_it_only_when_asked_and_only_where_it_can():
    assert precisions(torch.device("cpu"))[0] != "int8"
    network = checkpoints.load("compact-x4-fidelity").model
    ours, exact = (Engine(network, device="cpu", precision=name).run(photo(60, 70)) for name in ("int8", "fp32"))
    assert 0 < np.abs(ours.astype(int) - exact).mean() < 1.5
    with pytest.raises(UpscaleError, match="cannot run in int8"):
        Engine(build("srresnet"), device="cpu", precision="int8")


def test_it_is_not_compiled():
    notices = []
    engine = Engine(build("rrdbnet", blocks=1), device="cpu", precision="int8", compile=True, on_notice=notices.append)
    assert ["not compiled" in notice for notice in notices] == [True]
    assert engine.run(photo(24, 24)).shape == (96, 96, 3)


def test_numbers_that_are_none_are_reported():
    picture = photo(40, 40).astype(np.float32) / 255
    picture[10, 10] = np.nan
    engine = Engine(checkpoints.load("compact-x4-fidelity").model, device="cpu", precision="int8")
    with pytest.raises(UpscaleError, match="no numbers"):
        engine.run(picture)


def test_a_result_does_not_depend_on_the_picture_before():
    engine = Engine(checkpoints.load("compact-x4-fidelity").model, device="cpu", precision="int8")
    first = engine.run(photo(50, 60))
    engine.run(drawn())
    assert (engine.run(photo(50, 60)) == first).all()
