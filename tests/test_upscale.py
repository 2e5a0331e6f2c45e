import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from sa_upscale import checkpoints, images, upscale
from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture
from sa_upscale.upscale import (
    Size,
    Upscaler,
    enlarge,
    image_file,
    load_engines,
    networks,
    plan,
    plan_jobs,
    resized,
    run_jobs,
    work,
)
from sa_upscale.upscale import pictures as pictures_module


class Nearest:
    """An engine that repeats pixels, and keeps what it was given."""

    def __init__(self, scale=4):
        self.scale, self.window, self.seen = scale, 1, []

    def lanes(self, size):
        return 1

    def run(self, image, *, on_progress=None):
        assert image.ndim == 3
        assert image.shape[2] in (1, 3)
        self.seen.append(image)
        result = self.enlarge(image)
        if on_progress:
            on_progress(image.shape[0] * image.shape[1], image.shape[0] * image.shape[1])
        return result

    def run_rows(self, bands, height, *, on_progress=None):
        yield from map(self.enlarge, bands)

    def enlarge(self, image):
        return image.repeat(self.scale, 0).repeat(self.scale, 1)


class Bilinear(Nearest):
    def enlarge(self, image):
        size = (image.shape[1] * self.scale, image.shape[0] * self.scale)
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).reshape(size[1], size[0], -1)


class Ringing(Bilinear):
    """Like a network that is a little off everywhere."""

    def enlarge(self, image):
        rough = super().enlarge(image).astype(int)
        rough += np.random.default_rng(0).integers(-9, 10, rough.shape)
        return rough.clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def noise(*shape, depth=np.uint8, seed=0):
    generator = np.random.default_rng(seed)
    if depth == np.float32:
        return generator.random(shape, dtype=np.float32)
    return generator.integers(0, np.iinfo(depth).max + 1, shape).astype(depth)


def save(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(noise(5, 6, 3) if array is None else array))
    return path


# --- scales ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "available", "steps"),
    [
        (1, {2, 4}, (2,)),
        (1, {1, 2, 4}, (1,)),
        (1.5, {2, 4}, (2,)),
        (2, {2, 4}, (2,)),
        (2.01, {2, 4}, (4,)),
        (4, {2, 4}, (4,)),
        (4.5, {2, 4}, (4, 2)),
        (5, {2, 4}, (4, 2)),
        (8, {2, 4}, (4, 2)),
        (8, {2}, (2, 2, 2)),
        (8, {4}, (4, 4)),
        (3, {3}, (3,)),
        (6, {3}, (3, 3)),
        (8, {1, 8}, (8,)),
    ],
)
def test_plan_takes_the_smallest_native_scales_that_suffice(scale, available, steps):
    assert plan(scale, available) == steps


@pytest.mark.parametrize("scale", [0, 0.99, 8.01, -4, float("nan"), float("inf")])
def test_scales_outside_one_to_eight_are_refused(scale):
    with pytest.raises(UpscaleError, match="from 1 to 8"):
        plan(scale, {2, 4})


def test_a_network_that_keeps_the_size_cannot_enlarge():
    with pytest.raises(UpscaleError, match="cannot enlarge by 2"):
        plan(2, {1})


@pytest.mark.parametrize("scale", [1, 1.3, 2, 2.5, 3, 4, 5, 6.7, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7)])
def test_sizes_are_exact_for_any_scale(scale, size):
    height, width = size
    engines = [Nearest(native) for native in plan(scale, {2, 4})]
    stream = io.BytesIO()
    result = image_file(png(noise(height, width, 3)), stream, engines, scale=scale)
    expected = (max(1, round(width * scale)), max(1, round(height * scale)))
    assert (result.width, result.height) == expected
    assert images.size(stream.getvalue()) == expected


def png(array, alpha=None, **carried):
    stream = io.BytesIO()
    images.write(stream, Picture(array, alpha, **carried), format="png")
    return stream.getvalue()


def test_a_chain_far_above_the_target_is_reduced_before_its_last_step():
    first, last = Nearest(4), Nearest(4)
    result = enlarge(Picture(noise(10, 20, 3)), [first, last], 100, 50)
    assert result.pixels.shape == (50, 100, 3)
    assert last.seen[0].shape == (13, 25, 3)


@pytest.mark.parametrize(("native", "scale"), [(4, 2), (4, 1), (2, 1)])
def test_the_source_is_whole_when_it_meets_its_only_network(native, scale):
    """A network larger than asked for is no reason to throw away half of the picture first."""
    source, engine = noise(12, 16, 3), Nearest(native)
    enlarge(Picture(source), [engine], 16 * scale, 12 * scale)
    assert np.array_equal(engine.seen[0], source)


# --- the resize down -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_reducing_keeps_flat_areas_and_the_mean(depth):
    top = 1 if depth == np.float32 else np.iinfo(depth).max
    flat = np.full((40, 60, 3), top * 0.7, depth)
    assert np.abs(resized(flat, 47, 31).astype(float) - flat[0, 0, 0]).max() <= (1e-6 if depth == np.float32 else 0)
    mixed = noise(400, 600, 1, depth=depth)
    assert resized(mixed, 450, 310).astype(float).mean() == pytest.approx(mixed.astype(float).mean(), rel=2e-3)


def test_reducing_agrees_with_pillow_up_to_rounding():
    # Pillow's bicubic is the same kernel, antialiased in the same way; only the pixels at the border differ.
    picture = cv2.GaussianBlur(noise(90, 120, 3), (0, 0), 1.5)
    ours = resized(picture, 75, 56)
    theirs = np.asarray(Image.fromarray(picture).resize((75, 56), Image.Resampling.BICUBIC))
    assert np.abs(ours.astype(int) - theirs)[4:-4, 4:-4].max() <= 1


def test_reducing_in_bands_changes_nothing(monkeypatch):
    picture = noise(83, 47, 3, depth=np.uint16)
    whole = resized(picture, 31, 52)
    monkeypatch.setattr(pictures_module, "RESIZE_BAND_VALUES", 1000)
    assert np.array_equal(resized(picture, 31, 52), whole)


def test_reducing_does_not_wrap_around():
    steps = np.zeros((40, 40, 1), np.uint8)
    steps[:, 20:] = 255
    reduced = resized(steps, 25, 25)[12, :, 0].astype(int)
    assert np.all(np.diff(reduced) >= 0)
    assert (reduced[0], reduced[-1]) == (0, 255)


# --- alpha and grey --------------------------------------------------------------------------------------------


def disc(size=40, radius=12, soft=False):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = radius - np.hypot(x, y)
    return (np.clip(distance + 0.5, 0, 1) * 255 if soft else (distance > 0) * 255).astype(np.uint8)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [4, 2.5])
def test_no_dark_fringe_around_a_cut_out_picture(soft, scale):
    alpha = disc(soft=soft)
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[alpha > 0] = (240, 180, 60)  # what is hidden is black, as most programs leave it
    size = round(40 * scale)
    result = enlarge(Picture(pixels, alpha), [Bilinear(4)], size, size)
    visible = result.alpha > 0
    assert np.abs(result.pixels[visible].astype(int) - (240, 180, 60)).max() <= 1
    # Shown on its own colour, the cut-out disappears; any dark edge would stand out.
    opacity = result.alpha[..., None] / 255
    shown = result.pixels * opacity + np.array((240, 180, 60)) * (1 - opacity)
    assert np.abs(shown - (240, 180, 60)).max() <= 1.01


def test_premultiplied_blending_is_that_of_the_source():
    # Over black and over white, the enlarged cut-out shown equals the shown cut-out enlarged.
    alpha = disc(soft=True)
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[alpha > 0] = (240, 180, 60)
    result = enlarge(Picture(pixels, alpha), [Bilinear(4)], 160, 160)
    opacity = result.alpha[..., None] / 255
    for ground in (0, 255):
        shown_before = np.rint(pixels * (alpha[..., None] / 255) + ground * (1 - alpha[..., None] / 255))
        expected = Bilinear(4).enlarge(shown_before.astype(np.uint8)).astype(float)
        assert np.abs(result.pixels * opacity + ground * (1 - opacity) - expected).max() <= 2.5


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_opaque_and_clear_regions_stay_exactly_so(depth):
    top = np.iinfo(depth).max
    alpha = disc().astype(depth) * (top // 255)
    result = enlarge(Picture(noise(40, 40, 3, depth=depth), alpha), [Ringing(4)], 160, 160)
    inner = cv2.erode(alpha, np.ones((3, 3))).repeat(4, 0).repeat(4, 1) == top
    outer = cv2.dilate(alpha, np.ones((3, 3))).repeat(4, 0).repeat(4, 1) == 0
    assert inner.sum() > 4000
    assert outer.sum() > 9000
    assert np.all(result.alpha[inner] == top)
    assert np.all(result.alpha[outer] == 0)
    assert result.alpha.dtype == depth


def test_alpha_is_drawn_by_the_network_not_repeated():
    edge = enlarge(Picture(noise(40, 40, 3), disc()), [Bilinear(4)], 160, 160).alpha
    assert len(np.unique(edge)) > 20


def test_the_stairs_of_a_hard_mask_become_slopes():
    engine = Nearest(4)
    enlarge(Picture(noise(40, 40, 3), disc()), [engine], 160, 160)
    given = engine.seen[1][..., 0]
    assert 0.02 < np.mean((given > 0) & (given < 255)) < 0.2
    soft = disc(soft=True)
    enlarge(Picture(noise(40, 40, 3), soft), [engine], 160, 160)
    assert np.array_equal(engine.seen[3][..., 0], soft)


@pytest.mark.parametrize("value", [0, 100, 255])
def test_constant_alpha_needs_no_network(value):
    engine = Ringing(4)
    result = enlarge(Picture(noise(8, 9, 3), np.full((8, 9), value, np.uint8)), [engine], 36, 32)
    assert result.alpha.shape == (32, 36)
    assert np.all(result.alpha == value)
    assert len(engine.seen) == 1


def test_hidden_colours_come_from_the_nearest_visible_pixel():
    pixels = np.zeros((5, 9, 3), np.uint8)
    alpha = np.zeros((5, 9), np.uint8)
    pixels[2, 0], pixels[2, 8] = (10, 20, 30), (200, 100, 50)
    alpha[2, 0] = alpha[2, 8] = 1
    filled = upscale.bled(pixels, alpha)
    assert filled[2].tolist() == [[10, 20, 30]] * 4 + [filled[2, 4].tolist()] + [[200, 100, 50]] * 4
    assert filled[0, 0].tolist() == [10, 20, 30]
    assert pixels[0, 0].tolist() == [0, 0, 0]
    deep = upscale.bled(pixels.astype(np.uint16) * 257, alpha.astype(np.uint16))
    assert np.array_equal(deep, filled.astype(np.uint16) * 257)


def test_a_picture_with_nothing_visible():
    result = enlarge(Picture(noise(4, 4, 3), np.zeros((4, 4), np.uint8)), [Nearest(2)], 8, 8)
    assert np.all(result.alpha == 0)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_grey_stays_grey_through_one_channel(depth):
    engine = Nearest(4)
    grey = noise(7, 9, 1, depth=depth)
    assert enlarge(Picture(grey), [engine], 36, 28).pixels.shape == (28, 36, 1)
    stored_as_rgb = enlarge(Picture(grey.repeat(3, 2)), [engine], 36, 28).pixels
    assert all(seen.shape[2] == 1 for seen in engine.seen)
    assert stored_as_rgb.shape == (28, 36, 3)
    assert np.array_equal(stored_as_rgb[..., 0], stored_as_rgb[..., 2])
    assert stored_as_rgb.dtype == depth


def test_floats_beyond_one_come_through():
    engine = Nearest(2)
    bright = noise(6, 6, 3, depth=np.float32) * 8 - 1
    result = enlarge(Picture(bright), [engine], 12, 12).pixels
    assert engine.seen[0].min() >= 0
    assert engine.seen[0].max() <= 1
    assert np.allclose(result, bright.repeat(2, 0).repeat(2, 1), atol=1e-5)


def test_progress_runs_from_start_to_end_over_all_passes():
    reports = []
    alpha = disc(16, 5)
    engines = [Nearest(4), Nearest(2)]
    enlarge(Picture(noise(16, 16, 3), alpha), engines, 128, 128, on_progress=lambda *report: reports.append(report))
    done = [report[0] for report in reports]
    assert done == sorted(done)
    assert reports[-1] == (1000, 1000)
    assert len(reports) == 4


# --- one file --------------------------------------------------------------------------------------------------


def test_depth_metadata_and_orientation_survive_the_whole_way(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    exif[0x8769] = {0xA002: 8, 0xA003: 5}
    source = tmp_path / "in.jpg"
    Image.fromarray(noise(5, 8, 3)).save(source, exif=exif, icc_profile=b"x" * 200, dpi=(240, 240))
    result = image_file(source, tmp_path / "out.jpg", [Nearest(4)], scale=4)
    assert (result.width, result.height) == (20, 32)
    back = images.read(tmp_path / "out.jpg")
    assert (back.width, back.height) == (20, 32)
    assert back.icc == b"x" * 200
    assert back.dpi == (240, 240)
    block = Image.Exif()
    block.load(back.exif)
    assert block[274] == 1
    assert block.get_ifd(0x8769)[0xA002] == 20
    deep = noise(5, 8, 1, depth=np.uint16)
    save(tmp_path / "deep.png", deep)
    image_file(tmp_path / "deep.png", tmp_path / "deep4.png", [Nearest(4)], scale=4)
    assert np.array_equal(images.read(tmp_path / "deep4.png").pixels, deep.repeat(4, 0).repeat(4, 1))


def test_stream_in_stream_out():
    stream = io.BytesIO()
    result = image_file(png(noise(5, 6, 3)), stream, [Nearest(2)], scale=2)
    assert (result.source, result.target, result.error) == (None, None, None)
    assert images.read(stream.getvalue()).width == 12


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    engine = Nearest(4)
    source = save(tmp_path / "in.png", np.zeros((1, 16400, 1), np.uint8))
    for target, words in (
        (tmp_path / "none" / "out.png", "does not exist"),
        (tmp_path / "out.webp", "WebP holds at most"),
        (tmp_path / "out.xyz", "ends in"),
        (source, "is the input itself"),
        (tmp_path / "." / "in.png", "is the input itself"),
    ):
        with pytest.raises(UpscaleError, match=words):
            image_file(source, target, [engine], scale=4)
    assert engine.seen == []
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_link_to_the_input_is_the_input(tmp_path):
    source = save(tmp_path / "in.png")
    (tmp_path / "link.png").symlink_to(source)
    with pytest.raises(UpscaleError, match="is the input itself"):
        image_file(source, tmp_path / "link.png", [Nearest(2)], scale=2)


# --- the networks ----------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    def entry(name, family, scale, usable=True, kind="image", denoise=None):
        known = {"name": name, "family": family, "scale": scale, "usable": usable, "kind": kind}
        return SimpleNamespace(**known, fidelity=None, denoise=denoise)

    table = [
        entry("fam-x4", "fam", 4),
        entry("fam-x2", "fam", 2),
        entry("later-x4", "later", 4),
        entry("later-x2", "later", 2, usable=False),
        entry("clip-x4", "clip", 4, kind="video"),
        entry("noisy-x4", "noisy", 4, denoise="fam-x4"),
    ]
    monkeypatch.setattr(networks, "CLEAN", "fam")
    for module in (checkpoints, checkpoints.registry):
        monkeypatch.setattr(module, "entries", lambda: {one.name: one for one in table})
    return table


def loader(log, expected="image"):
    def load(name, scale, kind, **_options):
        assert kind == expected
        log.append(name)
        return SimpleNamespace(model=SimpleNamespace(scale=4 if name == "clip" else int(str(name)[-1]), name=name))

    return load


def engine_for(model, **_options):
    return Nearest(model.scale)


@pytest.mark.parametrize(
    ("model", "scale", "chain"),
    [
        ("fam", 2, ["fam-x2"]),
        ("fam", 3, ["fam-x4"]),
        ("fam", 8, ["fam-x4", "fam-x2"]),
        ("fam-x4", 2, ["fam-x4"]),
        ("fam-x4", 6, ["fam-x4", "fam-x2"]),
        ("fam-x2", 4, ["fam-x2", "fam-x2"]),
        ("fam-x2", 8, ["fam-x2", "fam-x4"]),
        ("later", 8, ["later-x4", "later-x4"]),
        ("file-x2", 8, ["file-x2", "file-x2", "file-x2"]),
        ("noisy", 2, ["noisy-x4"]),
        ("noisy", 8, ["noisy-x4", "fam-x2"]),
    ],
)
def test_upscaler_loads_each_network_of_the_chain_once(registry, model, scale, chain):
    log = []
    upscaler = Upscaler(model, scale, load=loader(log), engine=engine_for)
    assert [engine.scale for engine in upscaler.networks.for_scale(scale)] == [int(name[-1]) for name in chain]
    assert log == list(dict.fromkeys(chain))


def test_upscaler_refuses_a_wrong_scale_before_loading(registry):
    log = []
    with pytest.raises(UpscaleError, match="from 1 to 8"):
        Upscaler("fam", 9, load=loader(log), engine=engine_for)
    assert log == []


# --- planning --------------------------------------------------------------------------------------------------


def planned(*inputs, output=None, scale=4, **options):
    return [(job.source.name, job.target.name) for job in plan_jobs(list(inputs), output, size=Size(scale), **options)]


def test_results_lie_beside_their_inputs(tmp_path):
    source = save(tmp_path / "in.png")
    assert plan_jobs([str(source)], size=Size(4))[0].target == tmp_path / "in_x4.png"
    assert planned(source, scale=2.5) == [("in.png", "in_x2.5.png")]
    assert planned(source, suffix="_big") == [("in.png", "in_big.png")]
    assert planned(source, format="jpg") == [("in.png", "in_x4.jpg")]
    shouting = save(tmp_path / "LOUD.JPEG")
    assert planned(shouting) == [("LOUD.JPEG", "LOUD_x4.JPEG")]
    assert planned(shouting, format="jpeg") == [("LOUD.JPEG", "LOUD_x4.JPEG")]
    bare = save(tmp_path / "bare")
    assert planned(bare) == [("bare", "bare_x4.png")]
    dotted = save(tmp_path / "v1.2 final.png")
    assert planned(dotted) == [("v1.2 final.png", "v1.2 final_x4.png")]


def test_output_is_a_file_or_a_folder(tmp_path):
    one, two = save(tmp_path / "one.png"), save(tmp_path / "two.jpg")
    (tmp_path / "there").mkdir()

    def targets(inputs, output):
        return [job.target for job in plan_jobs(inputs, output, size=Size(4))]

    assert targets([one], tmp_path / "big.png") == [tmp_path / "big.png"]
    assert targets([one], tmp_path / "there") == [tmp_path / "there/one_x4.png"]
    assert targets([one], f"{tmp_path}/new/") == [tmp_path / "new/one_x4.png"]
    assert targets([one, two], tmp_path / "new") == [tmp_path / "new/one_x4.png", tmp_path / "new/two_x4.jpg"]
    with pytest.raises(UpscaleError, match="is a file, and several"):
        plan_jobs([one, two], one, size=Size(4))


def test_folders_are_searched_and_mirrored(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.tif", "deep/er/d.webp", "notes.txt", ".hidden.png", "deep/._c.tif"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    notices = []
    flat = plan_jobs([tmp_path / "in"], tmp_path / "out", size=Size(4), on_notice=notices.append)
    assert [job.target for job in flat] == [tmp_path / "out/a_x4.JPG", tmp_path / "out/b_x4.png"]
    assert notices == [f"1 hidden file in {tmp_path / 'in'} left out"]
    whole = plan_jobs([tmp_path / "in"], tmp_path / "out", size=Size(4), recursive=True)
    assert [str(job.target.relative_to(tmp_path)) for job in whole] == [
        str(Path(name)) for name in ("out/a_x4.JPG", "out/b_x4.png", "out/deep/c_x4.tif", "out/deep/er/d_x4.webp")
    ]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path):
    for name in ("a.png", "a_x4.png", "a_x4_x4.png", "other_x4.png", "b.jpg"):
        save(tmp_path / name)
    notices = []
    jobs = plan_jobs([tmp_path], size=Size(4), on_notice=notices.append)
    assert [job.source.name for job in jobs] == ["a.png", "b.jpg", "other_x4.png"]
    assert notices == ["2 left out as results of an earlier run"]
    inside = save(tmp_path / "out" / "a_x4.png")
    again = plan_jobs([tmp_path], inside.parent, size=Size(4), recursive=True)
    assert inside not in [job.source for job in again]


def test_two_inputs_for_one_place(tmp_path):
    for name in ("a.png", "a.jpg", "c.png"):
        save(tmp_path / "in" / name)
    assert planned(tmp_path / "in", output=tmp_path / "out", format="png") == [
        ("a.jpg", "a_jpg_x4.png"),
        ("a.png", "a_png_x4.png"),
        ("c.png", "c_x4.png"),
    ]
    other = save(tmp_path / "else" / "c.png")
    jobs = plan_jobs([tmp_path / "in" / "c.png", other], tmp_path / "out", size=Size(4))
    assert jobs[0].problem is None
    assert "would both be written to" in jobs[1].problem


def test_the_same_file_given_twice_is_done_once(tmp_path):
    one = save(tmp_path / "one.png")
    assert len(plan_jobs([one, f"{tmp_path}/./one.png", tmp_path], size=Size(4))) == 1


def test_an_input_is_never_an_output(tmp_path):
    source = save(tmp_path / "a.png")
    with pytest.raises(UpscaleError, match="would be itself"):
        plan_jobs([source], source, size=Size(4))
    save(tmp_path / "a.jpg")
    before = source.read_bytes()
    jobs = plan_jobs([tmp_path], size=Size(4), suffix="", format="png")
    assert [(job.source.name, job.target.name) for job in jobs] == [("a.jpg", "a_jpg.png"), ("a.png", "a_png.png")]
    assert all(result.error is None for result in run_jobs(jobs, four_times()))
    assert source.read_bytes() == before
    elsewhere = save(tmp_path / "else" / "b.png")
    here = save(tmp_path / "b.png")
    jobs = plan_jobs([elsewhere, here], tmp_path, size=Size(4), suffix="")
    assert [job.target.name for job in jobs] == ["b_png.png", "b_png.png"]
    assert "would both be written" in jobs[1].problem


def test_folders_without_pictures(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UpscaleError, match=r"holds no pictures.*--recursive"):
        plan_jobs([tmp_path], size=Size(4))
    with pytest.raises(UpscaleError, match="holds no pictures"):
        plan_jobs([tmp_path], size=Size(4), recursive=True)
    with pytest.raises(UpscaleError, match="no input"):
        plan_jobs([], size=Size(4))
    with pytest.raises(UpscaleError, match="does not exist"):
        plan_jobs([tmp_path / "none.png"], size=Size(4))
    good = save(tmp_path / "else" / "good.png")
    jobs = plan_jobs([tmp_path / "sub", tmp_path / "none.png", good], size=Size(4))
    assert ["holds no pictures" in jobs[0].problem, "not exist" in jobs[1].problem, jobs[2].problem] == [
        True,
        True,
        None,
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_a_circle_end_and_broken_links_are_reported(tmp_path):
    save(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "self.png").symlink_to(tmp_path / "a" / "self.png")
    jobs = plan_jobs([tmp_path / "a"], tmp_path / "out", size=Size(4), recursive=True)
    assert sorted(job.source.name for job in jobs) == ["gone.png", "one.png", "self.png"]
    errors = {result.source.name: result.error for result in run_jobs(jobs, four_times())}
    assert "does not exist" in errors["gone.png"]
    assert "cannot be read" in errors["self.png"]
    assert errors["one.png"] is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_in_a_folder_is_not_opened(tmp_path):
    save(tmp_path / "one.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert planned(tmp_path) == [("one.png", "one_x4.png")]


def test_a_folder_that_cannot_be_read_is_a_problem_of_its_own(tmp_path, monkeypatch):
    save(tmp_path / "one.png")
    (tmp_path / "closed").mkdir()
    real = Path.iterdir

    def guarded(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", guarded)
    jobs = plan_jobs([tmp_path], size=Size(4), recursive=True)
    assert [job.problem is None for job in jobs] == [True, False]
    assert "closed cannot be read: Permission denied" in jobs[1].problem


def test_standard_streams(tmp_path, monkeypatch):
    source = save(tmp_path / "in.png")
    to_stdout = plan_jobs(["-"], size=Size(2))
    to_file = plan_jobs(["-"], str(tmp_path / "out.png"), size=Size(2))
    from_file = plan_jobs([str(source)], "-", size=Size(2), format="bmp")
    for jobs, expected in ((to_stdout, "png"), (to_file, None), (from_file, "bmp")):
        stdout = SimpleNamespace(buffer=io.BytesIO())
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(source.read_bytes())))
        monkeypatch.setattr(sys, "stdout", stdout)
        (result,) = run_jobs(jobs, four_times(2))
        assert result.error is None
        written = stdout.buffer.getvalue() or (tmp_path / "out.png").read_bytes()
        assert images.read(written).format == (expected or "png")
        assert images.read(written).width == 12
    for inputs, output in ((["-", "a.png"], None), ([tmp_path], "-"), (["-"], tmp_path)):
        with pytest.raises(UpscaleError):
            plan_jobs(inputs, output, size=Size(2))


# --- running ---------------------------------------------------------------------------------------------------


class Ready:
    """As much of an `Upscaler` as `run_jobs` needs."""

    def __init__(self, engine):
        self.size, self.engine = Size(engine.scale), engine

    def lanes(self, size):
        return self.engine.lanes(size)

    def prepare(self, source, target, output, *, max_pixels):
        return work.prepare(source, target, self.size, output, max_pixels=max_pixels)

    def enlarge(self, ready, on_progress):
        return work.enlarge(ready, [self.engine], on_progress)


def four_times(scale=4):
    return Ready(Nearest(scale))


def test_a_folder_with_a_broken_file(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "c.png").write_text("only text")
    save(tmp_path / "d" / "e.tif", noise(4, 4, 1, depth=np.uint16))
    told, progress = [], []
    jobs = plan_jobs([tmp_path], f"{tmp_path}/out/", size=Size(4), recursive=True)
    results = run_jobs(jobs, four_times(), on_progress=lambda *now: progress.append(now), on_result=told.append)
    assert told == results
    assert [(result.source.name, result.error is None) for result in results] == [
        ("a.png", True),
        ("b.jpg", False),
        ("c.png", False),
        ("e.tif", True),
    ]
    assert "damaged" in results[1].error
    assert "text file" in results[2].error
    assert images.read(tmp_path / "out/d/e_x4.tif").pixels.dtype == np.uint16
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_x4.png", "d"]
    assert [done for done, _, _ in progress] == sorted(done for done, _, _ in progress)
    assert progress[-1] == (1000, 1000, "e.tif")


def test_a_tile_that_fails_spoils_one_picture_only(tmp_path):
    class Fragile(Nearest):
        def enlarge(self, image):
            if image.shape[0] == 3:
                raise RuntimeError("device lost\nwith a long story")
            return super().enlarge(image)

    save(tmp_path / "a.png", noise(3, 3, 3))
    save(tmp_path / "b.png")
    results = run_jobs(plan_jobs([tmp_path], size=Size(4)), Ready(Fragile(4)))
    assert [result.error for result in results] == ["device lost with a long story", None]
    assert not (tmp_path / "a_x4.png").exists()


def test_skip_existing_believes_only_whole_files_of_the_right_size(tmp_path):
    for name in ("whole", "cut", "small", "none"):
        save(tmp_path / f"{name}.png")
    image_file(tmp_path / "whole.png", tmp_path / "whole_x4.png", [Nearest(4)], scale=4)
    image_file(tmp_path / "cut.png", tmp_path / "cut_x4.png", [Nearest(4)], scale=4)
    (tmp_path / "cut_x4.png").write_bytes((tmp_path / "cut_x4.png").read_bytes()[:-40])
    image_file(tmp_path / "small.png", tmp_path / "small_x4.png", [Nearest(2)], scale=2)
    ready = four_times()
    results = run_jobs(plan_jobs([tmp_path], size=Size(4)), ready, skip_existing=True)
    assert {result.source.stem: result.skipped for result in results} == {
        "whole": True,
        "cut": False,
        "small": False,
        "none": False,
    }
    assert len(ready.engine.seen) == 3
    assert all((result.width, result.height) == (24, 20) for result in results)


@pytest.mark.parametrize(
    ("model", "scale", "chain"),
    [("clip", 3, ["clip"]), ("clip", 8, ["clip", "fam-x2"]), ("fam", 8, ["fam-x4", "fam-x2"])],
)
def test_a_video_network_is_followed_by_image_networks(registry, model, scale, chain):
    def engine(model, **_options):
        made = Nearest(model.scale)
        made.window = 5 if model.name.startswith("clip") else 1
        return made

    log = []
    engines = load_engines(model, scale, kind="video", load=loader(log, "video"), engine=engine)
    assert log == chain
    assert [made.window for made in engines] == [5 if name.startswith("clip") else 1 for name in chain]


@pytest.mark.parametrize(
    ("model", "scale", "clips", "pictures"),
    [
        ("compact-fidelity", 2, ["compact-video-x2-fidelity"], ["compact-x2-fidelity"]),
        ("compact-fidelity", 3, ["compact-video-x4-fidelity"], ["compact-x4-fidelity"]),
        ("compact-fidelity", 8, ["compact-video-x4-fidelity", "compact-x2-fidelity"], None),
        ("compact-x4-fidelity", 4, ["compact-x4-fidelity"], ["compact-x4-fidelity"]),
        ("compact-video-x4-fidelity", 4, ["compact-video-x4-fidelity"], UpscaleError),
        ("compact-video-x4-fidelity", 8, ["compact-video-x4-fidelity", "compact-x2"], UpscaleError),
    ],
)
def test_clips_get_the_video_network_of_a_family_and_pictures_do_not(model, scale, clips, pictures):
    assert networks.Networks(model, kind="video", device="cpu").names(scale) == clips
    if pictures is UpscaleError:
        with pytest.raises(UpscaleError, match=f"{model} is a video network, it needs 5 frames"):
            networks.Networks(model, device="cpu").names(scale)
    elif pictures:
        assert networks.Networks(model, device="cpu").names(scale) == pictures


def test_the_bundled_checkpoint_from_file_to_file(tmp_path):
    bundled = [entry for entry in checkpoints.entries().values() if entry.bundled and entry.usable]
    bundled = [entry for entry in bundled if entry.kind == "image" and entry.scale == 4]
    if not bundled or not (checkpoints.registry.PACKAGE / "bundled" / bundled[0].bundled).is_file():
        pytest.skip("no trained checkpoint is bundled yet")
    y, x = np.mgrid[:24, :32]
    soft = np.stack([128 + 90 * np.sin(x / 4 + c) * np.cos(y / 5) for c in range(3)], axis=-1).astype(np.uint8)
    source = save(tmp_path / "in.png", soft)
    upscaler = Upscaler(bundled[0].name, 3, device="cpu", precision="fp32")
    (result,) = run_jobs(plan_jobs([source], size=Size(3)), upscaler)
    assert result.error is None
    made = images.read(tmp_path / "in_x3.png").pixels
    assert made.shape == (72, 96, 3)
    expected = (96, 72)
    nearly = cv2.resize(soft, expected, interpolation=cv2.INTER_CUBIC)
    assert np.abs(made.astype(int) - nearly)[6:-6, 6:-6].mean() < 3


def test_thin_parts_of_a_hard_mask_do_not_fade():
    alpha = np.zeros((40, 40), np.uint8)
    alpha[5, 3:30], alpha[20, 20], alpha[25:38, 3:30] = 255, 255, 255
    alpha[30, 5:20] = 0
    result = enlarge(Picture(noise(40, 40, 3), alpha), [Nearest(2)], 80, 80).alpha
    assert np.array_equal(result[10:12, 10:50], np.full((2, 40), 255))
    assert np.array_equal(result[40:42, 40:42], np.full((2, 2), 255))
    assert np.array_equal(result[60:62, 14:36], np.zeros((2, 22)))
