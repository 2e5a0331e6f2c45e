import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale import Output, Size, Upscaler, damage, plan_jobs, run_jobs
from tests.pictures import pillow_bytes


def scene(height=320, width=400, seed=0):
    """Soft colours with sharp discs, as a camera might see them; no noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(40, 210, (6, 8, 3)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(25):
        centre = tuple(int(value) for value in generator.integers(0, (width, height)))
        colour = tuple(float(value) for value in generator.uniform(20, 235, 3))
        cv2.circle(picture, centre, int(generator.integers(3, 24)), colour, -1, cv2.LINE_AA)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def noisy(picture, sigma, seed=1):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def _codes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def jpeg(picture, quality):
    return pillow_bytes(Image.fromarray(picture), "JPEG", quality=quality)


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("picture", [scene(), scene(seed=3), np.zeros((64, 64, 3), np.uint8), scene(20, 30)])
def test_a_clean_picture_has_no_damage(picture):
    found = damage.measure(picture)
    assert (found.level(4), found.kinds) == (0, [])


@pytest.mark.parametrize("sigma", [4, 8, 16])
def test_white_noise_is_found_and_measured(sigma):
    grey = scene()[..., 1:2].repeat(3, axis=2)
    picture = np.clip(grey + np.random.default_rng(0).normal(0, sigma, (*grey.shape[:2], 1)), 0, 255).astype(np.uint8)
    assert damage.measure(picture).noise == pytest.approx(sigma, rel=0.1)


def test_noise_decides_by_its_strength():
    found_by_strength = [damage.measure(noisy(scene(), sigma)) for sigma in (1, 2, 5, 11.5, 16)]
    assert [found.level(4) for found in found_by_strength] == [0, 0, 1, 2, 2]
    assert [found.level(2) for found in found_by_strength] == [0, 0, 1, 1, 2]
    assert damage.measure(noisy(scene(), 9)).kinds == ["noise"]


def test_fine_texture_and_dithering_are_no_noise():
    texture = cv2.GaussianBlur(noisy(np.full((320, 320, 3), 128, np.uint8), 60), (0, 0), 1.0)
    dithered = np.asarray(
        Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE, colors=6).convert("RGB")
    )
    checks = (np.indices((320, 320)).sum(0) % 2 * 60 + 90).astype(np.uint8)[..., None]
    assert [damage.measure(each).kinds for each in (texture, dithered, checks)] == [[], [], []]


@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
def test_blocks_are_found_wherever_the_picture_was_cropped(shift):
    picture = decoded(jpeg(scene(), 40))[shift[0] :, shift[1] :]
    assert damage.measure(picture).kinds == ["compression"]
    assert damage.measure(picture).level(4) == 2


def terminal(ink, paper):
    """Letters in cells of 8x16 pixels, as a terminal shows them."""
    page = Image.new("RGB", (640, 480), (paper,) * 3)
    draw = ImageDraw.Draw(page)
    generator = np.random.default_rng(0)
    for top in range(0, 480, 16):
        for left in range(0, 8 * int(generator.integers(20, 80)), 8):
            draw.text((left, top), chr(33 + int(generator.integers(90))), fill=(ink,) * 3)
    return np.asarray(page)


@pytest.mark.parametrize(
    "drawing",
    [
        np.random.default_rng(0).choice(np.array([[20, 20, 60], [200, 60, 60], [240, 220, 90]], np.uint8), (60, 80)),
        np.indices((480, 640)).sum(0)[..., None].astype(np.uint8) // 8 % 2 * 180 + 20,
        np.where((np.indices((480, 640)) % 8 == 0).any(0), 150, 230).astype(np.uint8)[..., None],
        terminal(200, 0),
        terminal(60, 255),
        terminal(130, 40),
    ],
    ids=["pixel art", "chequers", "a table", "a terminal", "dark on light", "dim"],
)
@pytest.mark.parametrize("times", [1, 4, 8])
def test_what_is_drawn_on_a_grid_is_not_damaged(drawing, times):
    assert damage.measure(drawing.repeat(times, 0).repeat(times, 1)).kinds == []


@pytest.mark.parametrize("quality", [5, 10, 20])
def test_the_worst_jpegs_are_not_taken_for_drawn(quality):
    assert damage.measure(decoded(jpeg(scene(), quality))).kinds == ["compression"]


def test_stripes_of_the_period_of_blocks_are_no_blocks():
    stripes = np.full((320, 320, 1), 100, np.uint8)
    stripes[:, ::8] = 160
    assert damage.measure(stripes).kinds == []


@pytest.fixture(scope="module")
def photo():
    """A photograph without damage: a whole one, reduced."""
    whole = Image.open(Path(__file__).parent.parent / "examples/dragonfly.jpg").convert("RGB")
    return np.asarray(whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.BICUBIC))


def test_a_photograph_has_no_damage(photo):
    assert damage.measure(photo).kinds == []


@pytest.mark.parametrize(("quality", "level"), [(75, 1), (50, 2), (30, 2)])
@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
def test_compression_is_seen_where_no_file_tells_of_it(photo, quality, level, shift):
    found = damage.measure(decoded(jpeg(photo, quality))[shift[0] :, shift[1] :])
    assert found.compression == pytest.approx(100 - quality, abs=17)
    assert (found.kinds, found.level(4)) == (["compression"], level)


def test_lossy_webp_is_seen(photo):
    few = [decoded(pillow_bytes(Image.fromarray(photo), "WEBP", quality=quality)) for quality in (80, 30)]
    assert [damage.measure(picture).level(4) for picture in few] == [1, 2]
    lossless = decoded(pillow_bytes(Image.fromarray(photo), "WEBP", lossless=True))
    assert damage.measure(lossless).kinds == []


def test_noise_is_seen_where_nothing_is_flat():
    generator = np.random.default_rng(0)
    rough = 128 + 250 * cv2.GaussianBlur(generator.standard_normal((200, 200)), (0, 0), 1.0)
    picture = np.repeat(rough.clip(5, 250)[..., None], 3, 2)
    assert damage.measure(_codes(picture)).kinds == []
    assert damage.measure(_codes(picture + generator.normal(0, 12, (200, 200, 1)))).kinds == ["noise"]


def test_what_was_damaged_at_another_size_is_left_to_the_network_for_clean_pictures(photo):
    again = Image.fromarray(decoded(jpeg(photo, 80)))
    smaller = again.resize((again.width * 2 // 3, again.height * 2 // 3), Image.Resampling.BICUBIC)
    assert damage.measure(np.asarray(smaller)).level(4) == 0


@pytest.mark.parametrize(
    ("quality", "levels"),
    [
        (None, (0, 0)),
        (100, (0, 0)),
        (96, (0, 0)),
        (95, (1, 1)),
        (71, (1, 1)),
        (70, (2, 1)),
        (56, (2, 1)),
        (55, (2, 2)),
        (30, (2, 2)),
    ],
)
def test_the_quality_of_a_jpeg_decides_where_its_blocks_cannot_be_seen(quality, levels):
    for found in (damage.measure(scene(24, 24), quality), damage.Damage(quality=quality)):
        assert (found.level(2.1), found.level(2)) == levels


@pytest.mark.parametrize(("quality", "level"), [(96, 0), (90, 1), (72, 1)])
def test_a_jpeg_knows_its_quality_better_unless_it_was_a_far_worse_one_before(quality, level):
    lost = 100 - quality
    assert damage.Damage(compression=lost + 14, quality=quality).level(4) == level
    assert damage.Damage(compression=lost + 40, quality=quality).level(4) == 2
    assert damage.Damage(compression=0, quality=quality).level(4) == level


def test_up_to_twice_the_size_only_the_worst_is_taken_away_wholly():
    assert [damage.Damage(compression=lost).level(4) for lost in (7, 8, 29, 30, 50)] == [0, 1, 1, 2, 2]
    assert [damage.Damage(compression=lost).level(2) for lost in (7, 8, 44, 45, 50)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("bad", [noisy(scene(), 9), decoded(jpeg(scene(), 40))])
def test_depth_does_not_change_what_is_found(bad):
    found = damage.measure(bad)
    others = [bad.astype(np.uint16) * 257, bad.astype(np.float32) / 255]
    for other in map(damage.measure, others):
        assert other.noise == pytest.approx(found.noise, abs=1e-3)
        assert other.compression == pytest.approx(found.compression, abs=0.01)


@pytest.mark.parametrize("size", [(300, 420), (1200, 500), (1100, 1300)])
def test_bands_of_any_height_give_the_same(size):
    picture = noisy(scene(*size), 6)
    bands = np.split(picture, [1, 8, 200, 203])
    assert damage.measure_rows(bands, *size) == damage.measure(picture)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 18), (19, 3000), (1057, 18)])
def test_pictures_of_any_shape_can_be_measured(size, dtype):
    white = 1 if dtype == "float32" else np.iinfo(dtype).max
    picture = (np.random.default_rng(0).random((*size, 3)) * white).astype(dtype)
    found = damage.measure(picture)
    assert min(found.noise, found.compression) >= 0


def test_floats_beyond_white_and_nonsense_are_no_damage():
    strange = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32) * 1e30
    assert damage.measure(strange).level(4) == 0
    for value in (np.inf, np.nan):
        assert damage.measure(np.full((64, 64, 1), value, np.float32)).level(4) == 0


def test_large_pictures_are_looked_at_in_windows():
    picture = scene(1100, 1300)
    looked = list(damage._windows([picture], 1100, 1300))
    assert [window.shape for window in looked] == [(352, 352)] * 9
    assert np.array_equal(looked[2], cv2.cvtColor(picture[:352, 948:1300].astype(np.float32), cv2.COLOR_RGB2GRAY))


# --- networks by what was found --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def automatic():
    return Upscaler("auto", 4, device="cpu", precision="fp32")


def saved(folder, name, picture):
    images.write(folder / name, images.Picture(picture), lossless=True)
    return folder / name


def test_each_picture_gets_the_network_that_suits_it(automatic, tmp_path):
    clean = saved(tmp_path, "clean.png", scene(40, 56))
    little = saved(tmp_path, "little.png", noisy(scene(96, 112), 5))
    much = tmp_path / "much.jpg"
    much.write_bytes(jpeg(scene(40, 56), 50))
    results = run_jobs(plan_jobs([clean, little, much], size=Size(4)), automatic)
    assert [(result.networks, result.damage) for result in results] == [
        (["compact-x4"], []),
        (["compact-x4-photo"], ["noise"]),
        (["compact-x4-real"], ["compression"]),
    ]
    for result, name in zip(results, ("compact-x4", "compact-x4-photo", "compact-x4-real"), strict=True):
        assert f", {name}, x4" in str(Image.open(result.target).info) or name.encode() in result.target.read_bytes()
        named = Upscaler(name, 4, device="cpu", precision="fp32")
        named.image_file(result.source, tmp_path / f"named{result.source.suffix}")
        again = images.read(tmp_path / f"named{result.source.suffix}").pixels
        assert np.array_equal(images.read(result.target).pixels, again)


def test_up_to_twice_the_size_less_is_taken_away(tmp_path):
    slight, strong = (tmp_path / f"{quality}.jpg" for quality in (65, 50))
    for file in (slight, strong):
        file.write_bytes(jpeg(scene(64, 80), int(file.stem)))
    for source, scale, network in (
        (slight, 2, "compact-x2-photo"),
        (slight, 2.1, "compact-x4-real"),
        (strong, 2, "compact-x4-real"),
    ):
        result = Upscaler("auto", scale, device="cpu", precision="fp32").image_file(source, tmp_path / "out.png")
        assert result.networks == [network]


def test_after_the_networks_for_damage_come_those_for_clean_pictures(tmp_path):
    source = tmp_path / "in.jpg"
    source.write_bytes(jpeg(scene(24, 32), 90))
    result = Upscaler("auto", 8, device="cpu", precision="fp32").image_file(source, tmp_path / "out.png")
    assert result.networks == ["compact-x4-photo", "compact-x2"]


def test_a_share_that_is_asked_for_ends_the_choice(tmp_path):
    source = saved(tmp_path, "in.png", noisy(scene(96, 112), 12))
    for options, network in (
        ({"strength": 0.5}, "compact-x4 (strength 0.5)"),
        ({"denoise": 0.25}, "compact-x4-real (denoise 0.25)"),
    ):
        result = Upscaler("auto", 4, device="cpu", precision="fp32", **options).image_file(source, tmp_path / "out.png")
        assert (result.networks, result.damage) == ([network], [])
    with pytest.raises(UpscaleError, match="no sibling"):
        Upscaler("auto", 4, strength=0.5, denoise=0.5)


def test_animations_are_judged_by_their_first_frame_and_played_whole(automatic, tmp_path):
    frames = [(images.Picture(noisy(scene(64, 80), 16, seed)), 40.0) for seed in range(3)]
    images.write_frames(tmp_path / "in.png", iter(frames), 3, 0)
    result = automatic.image_file(tmp_path / "in.png", tmp_path / "out.png")
    assert result.damage == ["noise"]
    assert images.opened(tmp_path / "out.png").frames == 3


def test_a_picture_made_in_strips_is_judged_as_well(automatic, tmp_path, monkeypatch):
    monkeypatch.setattr("sa_upscale.upscale.work.STREAM_PIXELS", 1000)
    source = saved(tmp_path, "in.png", noisy(scene(64, 80), 16))
    ready = automatic.prepare(source, tmp_path / "out.png", Output())
    assert ready.picture is None
    assert ready.found == damage.measure(images.read(source).pixels)


def test_reducing_needs_no_look(tmp_path):
    source = saved(tmp_path, "in.png", noisy(scene(64, 80), 16))
    upscaler = Upscaler("auto", Size(4, max_size=40), device="cpu")
    assert upscaler.prepare(source, tmp_path / "out.png", Output()).found is None


def test_arrays_are_judged_too():
    import sa_upscale

    bad = noisy(scene(64, 80), 16)
    by_itself = sa_upscale.load(device="cpu", precision="fp32")(bad)
    assert np.array_equal(by_itself, sa_upscale.load("compact-real", device="cpu", precision="fp32")(bad))


def test_the_line_and_the_events_tell_what_was_chosen(tmp_path):
    from typer.testing import CliRunner

    from sa_upscale.cli import app

    source = saved(tmp_path, "in.png", noisy(scene(64, 80), 16))
    saved(tmp_path, "fine.png", scene(40, 48))
    run = ["image", str(source), str(tmp_path / "fine.png"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    lines = CliRunner().invoke(app, run).stdout.splitlines()
    assert lines[0].endswith("s  noise: compact-x4-real")
    assert lines[1].endswith(" s")
    events = [json.loads(line) for line in CliRunner().invoke(app, [*run, "--json"]).stdout.splitlines()]
    told = [(event["networks"], event["damage"]) for event in events if event["event"] == "result"]
    assert told == [(["compact-x4-real"], ["noise"]), (["compact-x4"], [])]
