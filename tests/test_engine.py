"""The engine: tiles equal the whole picture, memory and number types give way gracefully, video windows."""

import itertools
import math
import subprocess
import sys
import threading
import tracemalloc
import types

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sa_upscale import engine as engine_module
from sa_upscale.engine import (
    Engine,
    devices,
    find_device,
    free_memory,
    overlap,
    precisions,
    spans,
    tiles,
    values_per_pixel,
)
from sa_upscale.engine.devices import values_per_pixel_in_bands
from sa_upscale.engine.tiles import rising
from sa_upscale.errors import UpscaleError
from sa_upscale.models import bands
from sa_upscale.models.compact import Compact
from sa_upscale.models.compact_video import CompactVideo
from sa_upscale.models.rrdbnet import RRDBNet
from sa_upscale.models.vsrresnet import VSRResNet

DTYPES = (np.uint8, np.uint16, np.float32)


def lively(network, gain):
    """Give an untrained network weights of a trained one's strength, so that every layer shapes the result."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            with torch.no_grad():
                module.weight *= gain
    return network.eval()


def with_mean(network, image):
    """Centre the network's result for the image on grey, so that clipping hides nothing."""
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    result = raw(network, image)
    with torch.no_grad():
        last.weight *= 0.15 / max(result.std().item(), 1e-6)
        last.bias *= 0
        last.bias -= raw(network, image).mean() - 0.5
    return network


def raw(network, image):
    lr = torch.from_numpy(image.astype(np.float32) / engine_module.WHITE[image.dtype]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return network(lr.expand(-1, 3, -1, -1))[0].permute(1, 2, 0)


def whole(network, image):
    """The network run on the whole image at once, in fp32, clipped to [0, 1]."""
    return raw(network, image).clamp(0, 1).numpy()


def picture(height, width, channels=3, dtype=np.float32, seed=0):
    """Edges, a gradient and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    base = (np.sin(x * 2.3) * np.cos(y * 1.7) > 0.2) * 0.5 + 0.2 + 0.1 * random.random((height, width))
    image = np.clip(base[..., None] + 0.1 * random.random((height, width, channels)), 0, 1)
    white = engine_module.WHITE[np.dtype(dtype)]
    return (image * white if white == 1 else np.rint(image * white)).astype(dtype)


def as_float(image):
    return image.astype(np.float64) / engine_module.WHITE[image.dtype]


def fp32(network, **options):
    return Engine(network, device="cpu", precision="fp32", **options)


@pytest.fixture(scope="module")
def compact():
    network = lively(Compact(scale=2, features=8, convs=3), 1.0)
    with torch.no_grad():
        network.tail.weight *= 0.3
    return network


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (83, 1), (20, 33), (64, 64), (71, 97), (130, 45)])
@pytest.mark.parametrize("tile", [16, 24])
def test_compact_in_tiles_equals_the_whole_image(compact, size, tile):
    image = picture(*size)
    difference = np.abs(fp32(compact, tile=tile).run(image) - whole(compact, image))
    assert difference.max() < 1e-5  # float rounding only: the overlap is all that the network sees


def test_the_shipped_compact_is_tiled_within_a_step_of_8_bits():
    network = lively(Compact(), 0.9)
    with torch.no_grad():
        network.tail.weight *= 0.1
    image = picture(101, 75, dtype=np.uint8)
    expected = whole(network, image) * 255
    assert expected.std() > 10
    assert np.abs(fp32(network, tile=24).run(image) - expected).max() <= 1


@pytest.mark.parametrize(("scale", "size"), [(4, (61, 90)), (4, (1, 70)), (2, (59, 77)), (1, (63, 61))])
def test_rrdbnet_in_tiles_equals_the_whole_image(scale, size):
    network = with_mean(lively(RRDBNet(scale, blocks=1, features=12, growth=6), 0.7), picture(64, 64))
    image = picture(*size)
    more = [(0, -side % network.multiple) for side in size]
    expected = whole(network, np.pad(image, (*more, (0, 0)), mode="reflect"))[: size[0] * scale, : size[1] * scale]
    assert expected.std() > 0.02
    assert np.abs(fp32(network, tile=16).run(image) - expected).max() < 2 / 255


def test_rrdbnet_whose_reach_is_capped_stays_within_two_steps():
    """With six blocks an output pixel depends on 94 pixels a side; tiles overlap by the measured number.

    The large gain makes this network see as far as a trained one of 23 blocks: with a fifth of the overlap it is off by
    more than 40 steps.
    """
    network = with_mean(lively(RRDBNet(4, blocks=6, features=8, growth=4), 2.5), picture(64, 64))
    assert network.context > network.overlap
    image = picture(20, 2 * network.overlap + 60)
    expected = whole(network, image)
    width = image.shape[1]
    assert len(spans(width, width, 40, *overlap(network), 1, 4)) == 2
    assert np.abs(fp32(network, tile=40).run(image) - expected).max() < 2 / 255


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 97),
    width=st.integers(1, 97),
    tile=st.integers(1, 48),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([1, 2, 4]),
)
@example(height=1, width=97, tile=1, channels=1, dtype=np.uint16, scale=1)
def test_any_size_tile_and_type_gives_the_whole_image(height, width, tile, channels, dtype, scale):
    torch.manual_seed(0)
    network = Tiny(scale)
    image = picture(height, width, channels, dtype)
    result = fp32(network, tile=max(tile, 6)).run(image)
    assert result.shape == (height * scale, width * scale, channels)
    assert result.dtype == dtype
    pad = [(0, -side % network.multiple) for side in (height, width)]
    expected = whole(network, np.pad(image, (*pad, (0, 0)), mode="reflect"))[: height * scale, : width * scale]
    if channels == 1:
        expected = raw_mean(network, np.pad(image, (*pad, (0, 0)), mode="reflect"))[: height * scale, : width * scale]
    steps = engine_module.WHITE[np.dtype(dtype)]
    tolerance = 1e-5 if steps == 1 else 0.501 / steps + 1e-5
    assert np.abs(as_float(result) - expected).max() <= tolerance


def raw_mean(network, image):
    return raw(network, image).mean(dim=2, keepdim=True).clamp(0, 1).numpy()


class Tiny(nn.Module):
    """Two convolutions, the input folded as RRDBNet folds it: reaches `multiple * 2` pixels."""

    window, channels = 1, 3

    def __init__(self, scale=2):
        super().__init__()
        self.scale, self.multiple = scale, 4 // scale
        self.context = 2 * self.multiple
        self.first = nn.Conv2d(3 * self.multiple**2, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 48, 3, padding=1)

    def forward(self, lr):
        x = F.pixel_unshuffle(lr.to(self.first.weight.dtype), self.multiple)
        x = self.last(torch.relu(self.first(x)))
        return F.pixel_shuffle(x, 4).float() + F.interpolate(lr.float(), scale_factor=self.scale)


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(1, 500),
    tile=st.integers(1, 200),
    reach=st.integers(0, 40),
    seam=st.integers(0, 30),
    multiple=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([1, 2, 3, 4]),
    band=st.integers(5, 900),
)
def test_weights_of_the_tiles_sum_to_exactly_one(length, tile, reach, seam, multiple, scale, band):
    padded = -(-length // multiple) * multiple
    shared = -(-(2 * reach + seam) // multiple) * multiple
    cut = spans(length, padded, tile, shared, seam, multiple, scale)
    total = torch.zeros(length * scale)
    for span in cut:
        assert 0 <= span.start < span.stop <= padded
        assert span.start % multiple == 0
        assert (span.stop - span.start) == (cut[0].stop - cut[0].start)
        weight = torch.ones(span.end - span.begin, 1, 1)
        for at in range(0, len(weight), band):
            tiles.fade(weight[at : at + band], at, len(weight), span.rise, span.fall)
        total[span.begin : span.end] += weight[:, 0, 0]
        if span.start > 0:  # what counts lies inside what the tile gets right
            assert span.begin >= (span.start + reach) * scale
        if span.stop < padded:
            assert span.end <= (span.stop - reach) * scale
    assert torch.equal(total, torch.ones_like(total))
    for left, right in itertools.pairwise(cut):
        assert right.begin + right.rise == left.end
        assert left.fall == right.rise
        assert right.begin >= left.begin + left.rise  # never two seams on one pixel
    if len(cut) > 1:
        assert (len(cut) - 1) * -(-tile // multiple) * multiple + shared < padded  # not one tile too many


def test_tiles_are_mixed_smoothly():
    """Two tiles of constant 0 and 1 join in a ramp that never jumps."""
    weights = rising(16)
    assert weights[0] < 0.05
    assert weights[-1] > 0.95
    assert torch.all(weights.diff() > 0)
    assert torch.equal((1 - weights) + weights, torch.ones(16))
    assert torch.equal(1 - weights, weights.flip(0))


def test_the_input_is_neither_written_nor_required_writable(compact):
    image = picture(40, 50, dtype=np.uint8)
    before = image.copy()
    image.flags.writeable = False
    fp32(compact, tile=16).run(image)
    np.testing.assert_array_equal(image, before)


def test_views_with_other_strides_are_taken(compact):
    image = picture(40, 50)
    turned = np.flip(image.transpose(1, 0, 2), 0)
    np.testing.assert_array_equal(fp32(compact).run(turned), fp32(compact).run(np.ascontiguousarray(turned)))


def test_grey_stays_grey(compact):
    grey = picture(30, 40, 1, np.uint8)
    result = fp32(compact).run(grey)
    colour = whole(compact, np.repeat(grey, 3, axis=2))
    assert result.shape == (60, 80, 1)
    unclipped = raw_mean(compact, grey)
    assert np.abs(result / 255 - unclipped).max() <= 0.51 / 255
    assert colour.std(axis=2).max() > 0.01  # the network itself does tint


def test_rounding_is_to_the_nearest_value():
    """An identity network gives back every value of both integer types."""
    for dtype in (np.uint8, np.uint16):
        values = np.arange(0, np.iinfo(dtype).max + 1, 257 if dtype == np.uint16 else 1).astype(dtype)
        image = np.repeat(values.reshape(16, 16, 1), 3, axis=2)
        np.testing.assert_array_equal(fp32(Identity()).run(image), image)
    image = picture(16, 16)
    np.testing.assert_array_equal(fp32(Identity()).run(image), image)


class Identity(nn.Module):
    """Gives back what it gets, after what the test asks for; `seen` holds shapes and types of its inputs."""

    scale, window, multiple, channels, context = 1, 1, 1, 3, 1

    def __init__(self, act=lambda x, dtype: x):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.act = act

    def __deepcopy__(self, memo):
        twin = Identity(self.act)  # a lambda with the test's own lists must not be copied
        memo[id(self)] = twin
        return twin

    def forward(self, x):
        return self.act(x.clone(), self.weight.dtype)


def failing_above(pixels, error, seen):
    def act(x, _dtype):
        seen.append(tuple(x.shape[-2:]))
        if x.shape[-1] * x.shape[-2] > pixels:
            raise error
        return x

    return act


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_halves_the_tile_and_says_so_once(error):
    seen, notices = [], []
    engine = fp32(Identity(failing_above(70 * 70, error, seen)), tile=240, on_notice=notices.append)
    image = picture(200, 210, dtype=np.uint8)
    np.testing.assert_array_equal(engine.run(image), image)
    assert len(notices) == 1
    assert "not enough memory" in notices[0]
    assert seen[0] == (200, 210)
    assert max(height * width for height, width in seen[2:]) <= 70 * 70
    seen.clear()
    engine.run(image)  # the engine remembers, and does not say it again
    assert max(height * width for height, width in seen) <= 70 * 70
    assert len(notices) == 1


def test_a_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert engine_module.is_out_of_memory(caught.value)


def test_too_little_memory_for_the_smallest_tile_is_one_clear_line():
    engine = fp32(Identity(failing_above(0, MemoryError(), [])), tile=64)
    with pytest.raises(UpscaleError, match="not enough memory on cpu even for the smallest tiles"):
        engine.run(picture(50, 50))


def test_other_errors_and_ctrl_c_pass_through():
    for error in (RuntimeError("sizes differ"), KeyboardInterrupt(), ZeroDivisionError()):
        seen = []
        with pytest.raises(type(error)):
            fp32(Identity(failing_above(0, error, seen)), tile=64).run(picture(50, 50))
        assert len(seen) == 1


def half_fails(value, seen):
    def act(x, dtype):
        seen.append(dtype)
        return torch.full_like(x, value) if dtype != torch.float32 else x

    return act


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "non-finite"), (float("inf"), "non-finite"), (0, "black")])
def test_bad_output_is_redone_in_a_wider_type_and_said_once(value, word):
    seen, notices = [], []
    engine = Engine(
        Identity(half_fails(value, seen)), device="cpu", precision="bf16", tile=16, on_notice=notices.append
    )
    image = picture(40, 40, dtype=np.uint8)
    np.testing.assert_array_equal(engine.run(image), image)
    in_a_row = math.isqrt(len(seen))
    assert seen[:in_a_row] == [torch.bfloat16] * in_a_row
    assert set(seen[in_a_row:]) == {torch.float32}  # what fails on one row of tiles is not tried on every other
    assert len(seen) == in_a_row * (in_a_row + 1)
    assert notices == [f"bf16 gave {word} output; going on in fp32"]
    assert engine.precision == "fp32"


def test_fp16_gives_way_to_bf16_before_fp32(monkeypatch):
    for module in (engine_module, engine_module.calibration):
        monkeypatch.setattr(module, "precisions", lambda device: ["fp16", "bf16", "fp32"])
    seen, notices = [], []
    engine = Engine(Identity(half_fails(float("nan"), seen)), device="cpu", tile=32, on_notice=notices.append)
    image = picture(20, 20, dtype=np.uint8)
    np.testing.assert_array_equal(engine.run(image), image)
    assert seen == [torch.float16, torch.bfloat16, torch.float32]
    assert len(notices) == 1


def test_black_is_kept_where_the_picture_is_black():
    seen, notices = [], []
    engine = Engine(Identity(half_fails(0, seen)), device="cpu", precision="bf16", on_notice=notices.append)
    assert engine.run(np.zeros((20, 20, 3), np.uint8)).max() == 0
    assert notices == []


def test_black_that_the_widest_type_gives_too_is_the_networks_own():
    engine = fp32(Identity(lambda x, _dtype: x * 0))
    assert engine.run(picture(20, 20, dtype=np.uint8)).max() == 0


def test_non_finite_in_fp32_is_an_error_that_tells_whose():
    broken = fp32(Identity(lambda x, _dtype: x / 0))
    with pytest.raises(UpscaleError, match="the network gives values that are no numbers"):
        broken.run(picture(20, 20))
    image = picture(20, 20)
    image[3, 4, 0] = np.nan
    with pytest.raises(UpscaleError, match="the picture holds values that are no numbers"):
        fp32(Identity()).run(image)


def test_a_failing_tile_leaves_no_result():
    calls = []

    def act(x, _dtype):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("device lost")
        return x

    with pytest.raises(RuntimeError, match="device lost"):
        fp32(Identity(act), tile=16).run(picture(60, 60))


def test_every_tile_has_one_shape():
    seen = []
    fp32(Identity(failing_above(1e9, None, seen)), tile=20).run(picture(95, 61))
    assert len(seen) > 8
    assert len(set(seen)) == 1


def test_progress_counts_pixels_up_to_all(compact):
    steps = []
    fp32(compact, tile=16).run(picture(60, 40), on_progress=lambda done, total: steps.append((done, total)))
    assert {total for _, total in steps} == {2400}
    done = [done for done, _ in steps]
    assert done == sorted(done)
    assert done[-1] == 2400
    assert len(done) > 4


def test_deep_pictures_avoid_bf16_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(engine_module, "precisions", lambda device: ["bf16", "fp32"])
    for options, expected in (({}, torch.float32), ({"precision": "bf16"}, torch.bfloat16)):
        seen = []

        def act(x, dtype, seen=seen):
            seen.append(dtype)
            return x

        engine = Engine(Identity(act), device="cpu", **options)
        assert engine.precision == "bf16"
        engine.run(picture(8, 8, dtype=np.uint8))
        engine.run(picture(8, 8, dtype=np.uint16))
        engine.run(picture(8, 8, dtype=np.float32))
        assert seen == [torch.bfloat16, expected, expected]


def test_the_callers_model_is_left_as_it_was():
    network = Compact(scale=2, features=8, convs=2).train()
    Engine(network, device="cpu", precision="bf16").run(picture(8, 8, dtype=np.uint8))
    assert network.training
    assert all(value.dtype == torch.float32 and value.requires_grad for value in network.parameters())


def test_bf16_is_close_to_fp32(compact):
    image = picture(40, 40, dtype=np.uint8)
    half = Engine(compact, device="cpu", precision="bf16").run(image).astype(int)
    difference = np.abs(half - fp32(compact).run(image))
    assert 0 < difference.max() <= 4


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
    ids=["no channels", "four channels", "float64", "empty"],
)
def test_what_is_no_picture_is_refused(compact, image):
    with pytest.raises(ValueError, match=r"not a picture|channels"):
        fp32(compact).run(image)


def test_a_result_larger_than_memory_is_one_clear_line(compact, monkeypatch):
    def refuse(*_args):
        raise MemoryError

    monkeypatch.setattr(engine_module.np, "empty", refuse)
    with pytest.raises(UpscaleError, match="16×8 pixels"):
        fp32(compact).run(np.zeros((4, 8, 3), np.uint8))


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu:1", "cuda:99", ""])
def test_unknown_devices_are_refused(name):
    with pytest.raises(UpscaleError):
        find_device(name)


def test_devices_in_order_of_speed(monkeypatch):
    assert find_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device(None).type == "cpu"
    with pytest.raises(UpscaleError, match="no cuda device"):
        find_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device(None).type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device(None).type == "cuda"
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UpscaleError, match="last one is cuda:1"):
        find_device("cuda:2")


@pytest.mark.parametrize(
    ("capability", "name", "first"),
    [
        ((9, 0), "NVIDIA H200", "bf16"),
        ((8, 6), "NVIDIA GeForce RTX 3060", "bf16"),
        ((7, 5), "NVIDIA GeForce RTX 2070", "fp16"),
        ((7, 5), "Tesla T4", "fp16"),
        ((7, 5), "NVIDIA GeForce GTX 1660 Ti", "fp32"),
        ((6, 1), "NVIDIA GeForce GTX 1080", "fp32"),
    ],
)
def test_precision_follows_the_graphics_card(monkeypatch, capability, name, first):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    able = precisions(torch.device("cuda"))
    assert able[0] == first
    assert "fp32" in able
    assert ("bf16" in able) == (capability >= (8, 0))


@pytest.mark.parametrize(
    ("capabilities", "first"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_f": True, "avx2": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_precision_follows_the_processor(monkeypatch, capabilities, first):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert precisions(torch.device("cpu"))[0] == first
    assert set(precisions(torch.device("cpu"))) == {"bf16", "fp32"}
    with pytest.raises(UpscaleError, match="cpu cannot run in fp16; it can in"):
        Engine(Identity(), device="cpu", precision="fp16")


def test_an_older_torch_that_tells_nothing_means_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precisions(torch.device("cpu"))[0] == "fp32"


def test_tile_follows_free_memory(monkeypatch):
    network = Compact()
    network.banded = False
    per_pixel = values_per_pixel(network) * 4
    assert 2 * 64 * 2 * 4 <= per_pixel <= 4 * 64 * 2 * 4
    used = []
    for free in (1 << 40, 2 * per_pixel * 120**2, 1):
        monkeypatch.setattr(engine_module, "free_memory", lambda device, free=free: free)
        engine = fp32(network)
        used.append(engine._choose_tile(types.SimpleNamespace(height=999, width=999, dtype=np.float32)))
    assert used == [256, 120 - overlap(network)[0], 16]


def test_networks_in_bands_of_rows_get_tiles_as_large_as_their_results_may_be(monkeypatch):
    large = types.SimpleNamespace(height=3000, width=3000, dtype=np.float32)
    for network in (Compact(), CompactVideo(), VSRResNet(blocks=1)):
        per_pixel = values_per_pixel_in_bands(network) * 4
        ratio = network.scale if isinstance(network, VSRResNet) else 1  # frames may come at the result's size
        assert per_pixel >= 2 * network.window * 3 * ratio**2 * 4
        used = []
        for free in (1 << 40, 2 * per_pixel * 500**2):
            monkeypatch.setattr(engine_module, "free_memory", lambda device, free=free: free)
            used.append(fp32(network)._choose_tile(large))
        assert used == [2048, 500 - overlap(network)[0]]
        assert fp32(network, tile=64)._tile == 64


def test_tiles_are_several_times_what_they_share():
    far = types.SimpleNamespace(height=5000, width=5000, dtype=np.float32)
    assert fp32(RRDBNet(4, blocks=6, features=8, growth=4))._choose_tile(far) == 4 * 160
    assert fp32(RRDBNet(4, blocks=6, features=8, growth=4), tile=64)._tile == 64


def test_free_memory_is_that_of_the_machine_or_of_its_container(tmp_path):
    assert 1 << 20 < free_memory(torch.device("cpu")) < 1 << 50
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert devices.free_of_group(tmp_path) == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_of_group(tmp_path) == float("inf")
    assert devices.free_of_group(tmp_path / "none") == float("inf")


@pytest.mark.parametrize("tile", [0, -5])
def test_impossible_tiles_are_refused(compact, tile):
    with pytest.raises(UpscaleError, match="tile"):
        Engine(compact, device="cpu", tile=tile)


def test_host_memory_is_the_result_and_a_band():
    """NumPy's own share: the result once, in its own type, and nothing else of its size."""
    image = picture(600, 400, dtype=np.uint8)
    engine = fp32(Tiny(4), tile=32)
    engine.run(image[:8, :8])
    tracemalloc.start()
    result = engine.run(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * result.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_process_memory_grows_by_little_more_than_the_result():
    """A float copy of the result alone would be four times its size."""
    code = """
import numpy as np, torch
from pathlib import Path
from sa_upscale.engine import Engine
from sa_upscale.models.compact import Compact
def peak():
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l).split()[1]) * 1024
engine = Engine(Compact(4, features=4, convs=1), device="cpu", precision="fp32", tile=64)
engine.run(np.zeros((80, 1200, 3), np.uint8))
before = peak()
result = engine.run(np.zeros((1200, 1200, 3), np.uint8))
print((peak() - before) / result.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.7 < float(done.stdout) < 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [24, 200])
def test_what_comes_in_bands_is_placed_as_the_whole_picture(compact, tile, channels, monkeypatch):
    """Bands that end inside seams and outside what counts of a tile, told of one by one."""
    image = picture(90, 110, channels, np.uint8)
    at_once = fp32(compact, tile=tile).run(image)
    monkeypatch.setattr(bands, "BYTES", 1)
    told = []
    banded = fp32(compact, tile=tile).run(image, on_progress=lambda done, total: told.append((done, total)))
    assert np.abs(banded.astype(int) - at_once).max() <= 1
    assert told == sorted(told)
    assert told[-1] == (90 * 110, 90 * 110)
    assert len(told) > 5 * len(spans(90, 90, tile, *_plan(compact))) * len(spans(110, 110, tile, *_plan(compact)))


def _plan(network):
    return (*overlap(network), network.multiple, network.scale)


def test_prepared_frames_come_in_bands_too(video_network, monkeypatch):
    frames = [picture(60, 50, dtype=np.uint8, seed=seed) for seed in range(5)]
    engine = fp32(video_network, tile=40)
    at_once = engine.run_prepared([engine.prepare(frame) for frame in frames])
    monkeypatch.setattr(bands, "BYTES", 1)
    told = []
    banded = engine.run_prepared([engine.prepare(frame) for frame in frames], on_progress=lambda *at: told.append(at))
    assert np.abs(banded.astype(int) - at_once).max() <= 1
    assert len(told) > 10


# Video


@pytest.fixture(scope="module")
def video_network():
    torch.manual_seed(0)
    network = VSRResNet(2, blocks=1, features=6, global_skip=True).eval()
    with torch.no_grad():
        network.conv_last.weight *= 10
    return network


@pytest.mark.parametrize("size", [(1, 1), (7, 61), (50, 45)])
@pytest.mark.parametrize("tile", [16, None])
def test_a_window_in_tiles_equals_the_whole(video_network, size, tile):
    frames = [picture(*size, seed=number) for number in range(5)]
    engine = fp32(video_network, tile=tile)
    result = engine.run_prepared([engine.prepare(frame) for frame in frames])
    lr = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None]
    with torch.inference_mode():
        expected = video_network(lr)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    assert result.shape == (size[0] * 2, size[1] * 2, 3)
    assert np.abs(result - expected).max() < 1e-5


def test_each_frame_is_prepared_once(video_network, monkeypatch):
    calls = []
    prepare = VSRResNet.prepare
    monkeypatch.setattr(VSRResNet, "prepare", lambda self, frame: calls.append(1) or prepare(self, frame))
    engine = fp32(video_network, tile=16)
    prepared = [engine.prepare(picture(40, 40, dtype=np.uint8, seed=number)) for number in range(7)]
    results = [engine.run_prepared(prepared[first : first + 5]) for first in range(3)]
    assert len(calls) == 7
    assert all(result.dtype == np.uint8 and result.shape == (80, 80, 3) for result in results)


def test_prepared_frames_in_half_precision_stay_close(video_network):
    frames = [picture(30, 30, dtype=np.uint8, seed=number) for number in range(5)]
    results = []
    for precision in ("fp32", "bf16"):
        engine = Engine(video_network, device="cpu", precision=precision)
        prepared = [engine.prepare(frame) for frame in frames]
        assert prepared[0].tensor.dtype == (torch.float32 if precision == "fp32" else torch.float16)
        results.append(engine.run_prepared(prepared).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 6


class FiveFrames(nn.Module):
    """A five-frame network without `prepare` and with a multiple: the middle frame after one convolution."""

    scale, window, multiple, channels, context = 2, 5, 4, 3, 5

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(15, 12, 3, padding=1)

    def forward(self, lr):
        return F.pixel_shuffle(self.conv(lr.flatten(1, 2)), 2).float() * 0.2 + 0.5


def test_a_window_network_without_prepare():
    torch.manual_seed(0)
    network = FiveFrames()
    frames = [picture(27, 42, seed=number) for number in range(5)]
    engine = fp32(network, tile=12)
    result = engine.run_prepared([engine.prepare(frame) for frame in frames])
    padded = np.stack([np.pad(frame, ((0, 1), (0, 2), (0, 0)), mode="reflect") for frame in frames])
    with torch.inference_mode():
        expected = network(torch.from_numpy(padded).permute(0, 3, 1, 2)[None])[0].permute(1, 2, 0)[:54, :84]
    assert np.abs(result - expected.clamp(0, 1).numpy()).max() < 1e-5


def test_one_frame_networks_take_a_list_of_one(compact):
    engine = fp32(compact)
    frame = picture(20, 24, dtype=np.uint8)
    np.testing.assert_array_equal(engine.run_prepared([engine.prepare(frame)]), engine.run(frame))


def test_misuse_of_windows(compact, video_network):
    engine = fp32(video_network)
    with pytest.raises(UpscaleError, match="takes 5 frames of a video"):
        engine.run(picture(8, 8))
    handles = [engine.prepare(picture(8, 8)) for _ in range(4)]
    with pytest.raises(ValueError, match="takes 5 frames, not 4"):
        engine.run_prepared(handles)
    with pytest.raises(ValueError, match="differ in size or type"):
        engine.run_prepared([*handles, engine.prepare(picture(8, 9))])


def test_frames_may_be_prepared_in_another_thread(video_network):
    """A video's decode thread prepares while another runs; inference mode is per thread."""
    engine = fp32(video_network)
    handles = []
    worker = threading.Thread(target=lambda: handles.extend(engine.prepare(picture(9, 9)) for _ in range(5)))
    worker.start()
    worker.join()
    assert engine.run_prepared(handles).shape == (18, 18, 3)
