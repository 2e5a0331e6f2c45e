import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sa_upscale import checkpoints, defaults, models
from sa_upscale.errors import UpscaleError

ROOT = Path(__file__).resolve().parent.parent
COMPACT = {"scale": 2, "features": 4, "convs": 2, "channels": 3}
VIDEO = {"scale": 4, "blocks": 1, "features": 4}
ESRGAN = {"scale": 4, "blocks": 2, "features": 8, "growth": 4, "channels": 3}

REGISTRY = """
[small-x2]
family = "small"
architecture = "compact"
scale = 2
window = 1
description = "tiny"
licence = "Apache-2.0"
trained_on = "nothing"
bundled = "small-x2.safetensors"
sha256 = "{small}"

[small-x4]
family = "small"
architecture = "compact"
scale = 4
window = 1
description = "tiny"
licence = "Apache-2.0"
file = "small-x4.pth"
sha256 = "{big}"

[small-x3]
family = "small"
architecture = "compact"
scale = 3
window = 1
description = "not there yet"
licence = "Apache-2.0"
bundled = "small-x3.safetensors"

[moving-x4]
family = "moving"
architecture = "vsrresnet"
scale = 4
window = 5
description = "tiny"
licence = "Apache-2.0"
bundled = "moving-x4.safetensors"
sha256 = "{moving}"

[planned-x4]
family = "planned"
architecture = "rrdbnet"
scale = 4
window = 1
description = "to come"
licence = "Apache-2.0"
published = false

[planned-video-x4]
family = "planned-video"
architecture = "vsrresnet"
scale = 4
window = 5
description = "to come"
licence = "Apache-2.0"
published = false
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package of two bundled networks; the file of a third, `small-x4.pth`, lies beside it."""
    folder = tmp_path / "site" / "sa_upscale"
    (folder / "bundled").mkdir(parents=True)
    small = _save(folder / "bundled" / "small-x2.safetensors", "compact", COMPACT)
    moving = _save(folder / "bundled" / "moving-x4.safetensors", "vsrresnet", VIDEO)
    big = tmp_path / "small-x4.pth"
    torch.save(_weights("compact", COMPACT | {"scale": 4}), big)
    registry = REGISTRY.format(small=small, moving=moving, big=hashlib.sha256(big.read_bytes()).hexdigest())
    (folder / "weights.toml").write_text(registry)
    monkeypatch.setattr(checkpoints.registry, "PACKAGE", folder)
    monkeypatch.delenv("SA_UPSCALE_WEIGHTS", raising=False)
    return folder


def _weights(architecture: str, parameters: dict) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return models.build(architecture, **parameters).state_dict()


def _save(file: Path, architecture: str, parameters: dict, **how) -> str:
    weights = _weights(architecture, parameters)
    return checkpoints.save(file, weights, architecture=architecture, parameters=parameters, metadata={}, **how)


# ---- the registry of the package -------------------------------------------------------------------------------------


def test_every_entry_of_the_registry_is_complete():
    known = checkpoints.entries()
    for entry in known.values():
        network = models.GENERATORS[entry.architecture]
        assert network.window == entry.window
        with torch.device("meta"):
            assert models.build(entry.architecture, scale=entry.scale).scale == entry.scale
        assert entry.fidelity is None or known[entry.fidelity].architecture == entry.architecture
        assert entry.family not in known
        assert entry.licence in {"Apache-2.0", "BSD-3-Clause"}
        assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16))
        assert entry.revision is None or (len(entry.revision) == 40 and int(entry.revision, 16))
        if not entry.published:
            assert entry.sha256 is entry.revision is entry.repo is entry.file is entry.bundled is None
        elif not entry.bundled:
            assert entry.sha256
            assert entry.file


def test_the_bundled_files_are_those_of_the_registry():
    for entry in checkpoints.entries().values():
        if entry.bundled and entry.sha256:
            file = ROOT / "sa_upscale" / "bundled" / entry.bundled
            assert checkpoints.sha256_of(file) == entry.sha256


def test_the_defaults_are_families_of_the_right_kind():
    assert checkpoints.select(defaults.CLEAN, kind="image").bundled
    assert checkpoints.select(defaults.DEFAULTS["video"], kind="video").bundled


def test_public_files_are_pinned_to_what_was_verified():
    known = checkpoints.entries()
    assert known["realesrgan-x4plus"].repo == "Comfy-Org/Real-ESRGAN_repackaged"
    assert known["realesrgan-x4plus"].revision == "5fd49b7b278836f48af63ecd314d0f98ab336105"
    assert known["realesrgan-x4plus"].sha256.startswith("37f9a931")
    assert known["public-rrdb-psnr-x4"].repo is None


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "scale", "chosen"),
    [
        ("small", 1, "small-x2"),
        ("small", 2, "small-x2"),
        ("small", 2.5, "small-x4"),  # small-x3 is not there yet
        ("small", 4, "small-x4"),
        ("small", 8, "small-x4"),
        ("small", None, "small-x4"),
        ("small-x2", 4, "small-x2"),
        ("small-x3", 3, "small-x3"),
        ("planned", 2, "planned-x4"),
    ],
)
def test_a_family_gives_the_smallest_scale_that_suffices(name, scale, chosen):
    assert checkpoints.select(name, scale).name == chosen


def test_a_family_gives_clips_its_video_network_and_pictures_the_other(package):
    registry = package / "weights.toml"
    text = registry.read_text()
    moving = text[text.index("[moving-x4]") : text.index("[planned-x4]")]
    added = moving.replace("[moving-x4]", "[small-video-x4]").replace('family = "moving"', 'family = "small"')
    for order in (text + added, added + text):
        registry.write_text(order)
        assert checkpoints.select("small", 4, kind="video").name == "small-video-x4"
        assert checkpoints.select("small", 8, kind="video").name == "small-video-x4"
        assert checkpoints.select("small", 2, kind="video").name == "small-x2"
        assert checkpoints.select("small", kind="video").name == "small-video-x4"
        for kind in ("image", None):
            assert checkpoints.select("small", 4, kind=kind).name == "small-x4"
            assert checkpoints.select("small", kind=kind).name == "small-x4"


@pytest.mark.usefixtures("package")
def test_an_unknown_name_gets_near_ones():
    with pytest.raises(UpscaleError, match=r"^no checkpoint is called 'smal-x2'; did you mean small-x2"):
        checkpoints.select("smal-x2")


@pytest.mark.usefixtures("package")
def test_a_video_network_is_refused_for_a_picture_and_not_for_a_video():
    with pytest.raises(UpscaleError, match="moving-x4 is a video network, it needs 5 frames"):
        checkpoints.select("moving", kind="image")
    assert checkpoints.select("moving", kind="video").name == "moving-x4"
    assert checkpoints.select("small", 2, kind="video").name == "small-x2"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("planned-x4", "planned-x4 is not published yet; the bundled small-x2 needs no network"),
        ("planned-video-x4", "planned-video-x4 is not published yet; the bundled moving-x4 needs no network"),
        ("small-x3", "small-x3 is not there yet: weights.toml has no sha256 for it; the bundled small-x2"),
        ("small-x4", "small-x4 is on no Hub, put its small-x4.pth into a folder and name that in SA_UPSCALE_WEIGHTS"),
    ],
)
def test_what_cannot_be_had_says_why_and_what_to_take_instead(name, message):
    with pytest.raises(UpscaleError) as raised:
        checkpoints.path(name)
    assert str(raised.value).startswith(message)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_bundled_comes_before_local_and_local_helps_when_it_is_corrupt(package, tmp_path, monkeypatch):
    local = tmp_path / "mine"
    local.mkdir()
    bundled = package / "bundled" / "small-x2.safetensors"
    (local / bundled.name).write_bytes(bundled.read_bytes())
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(local))
    assert checkpoints.path("small-x2") == bundled
    bundled.write_bytes(bundled.read_bytes()[:-1] + b"!")
    notices = []
    assert checkpoints.path("small-x2", on_notice=notices.append) == local / bundled.name
    assert notices == [f"{bundled} is corrupt: its sha256 is not that of small-x2; it is not used"]


def test_a_corrupt_file_with_no_other_is_refused_by_name(package):
    bundled = package / "bundled" / "small-x2.safetensors"
    bundled.write_bytes(b"")
    with pytest.raises(UpscaleError) as raised:
        checkpoints.load("small-x2")
    assert str(raised.value) == (
        f"{bundled} is corrupt: its sha256 is not that of small-x2; "
        "the bundled moving-x4 needs no network (--model moving-x4)"
    )


def test_the_local_folders_are_that_of_the_environment_and_that_of_a_source_tree(package, tmp_path, monkeypatch):
    beside = package.parent / "checkpoints"
    beside.mkdir()
    (tmp_path / "small-x4.pth").rename(beside / "small-x4.pth")
    with pytest.raises(UpscaleError):  # an installed package's neighbour is no source tree
        checkpoints.path("small-x4")
    (package / "weights.toml").rename(package.parent / "weights.toml")
    assert checkpoints.path("small-x4") == beside / "small-x4.pth"
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "small-x4.pth").write_bytes((beside / "small-x4.pth").read_bytes())
    assert checkpoints.path("small-x4") == tmp_path / "mine" / "small-x4.pth"


def test_a_path_is_taken_as_it_is_and_a_name_wins_over_a_file_called_so(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small-x2").write_text("not a checkpoint")
    assert checkpoints.path("small-x2") == package / "bundled" / "small-x2.safetensors"
    assert checkpoints.path("./small-x2") == Path("small-x2")
    assert checkpoints.path(tmp_path / "small-x2") == tmp_path / "small-x2"
    with pytest.raises(UpscaleError, match=r"there is no checkpoint file gone\.pth"):
        checkpoints.path("gone.pth")
    with pytest.raises(UpscaleError, match="is a folder, not a checkpoint"):
        checkpoints.path(str(tmp_path))


def test_listing_verdicts_and_info(package, tmp_path, monkeypatch):
    (package / "bundled" / "moving-x4.safetensors").write_bytes(b"no")
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path))
    assert [(row.entry.name, row.where) for row in checkpoints.listing()] == [
        ("small-x2", "bundled"),
        ("small-x4", "local"),
        ("small-x3", "not there yet"),
        ("moving-x4", "bundled"),
        ("planned-x4", "not published"),
        ("planned-video-x4", "not published"),
    ]
    assert checkpoints.listing()[3].size == 2
    assert [verdict.state for verdict in checkpoints.verify()] == [
        "ok",
        "ok",
        "not there yet",
        "corrupt",
        "not published",
        "not published",
    ]
    monkeypatch.delenv("SA_UPSCALE_WEIGHTS")
    assert checkpoints.listing()[1].where == "local file needed"
    assert checkpoints.verify()[1].state == "absent"
    info = checkpoints.info("small-x2")
    assert info.weights == sum(value.numel() for value in _weights("compact", COMPACT).values())
    assert info.dtypes == ("F32",)
    assert info.metadata["scale"] == "2"
    assert info.entry.sha256 == info.sha256
    bare = checkpoints.info(tmp_path / "small-x4.pth")
    assert (bare.entry, bare.where, bare.weights, bare.metadata) == (None, "file", None, {})
    assert checkpoints.info("planned").path is None


# ---- writing and reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "parameters"), [("compact", COMPACT), ("vsrresnet", VIDEO)])
def test_what_is_saved_loads_from_the_file_alone(tmp_path, architecture, parameters):
    weights = _weights(architecture, parameters)
    file = tmp_path / "any.safetensors"
    metadata = {"recipe": "[train]\nsteps = 1", "scale": "99"}
    digest = checkpoints.save(file, weights, architecture=architecture, parameters=parameters, metadata=metadata)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    loaded = checkpoints.load(file)
    assert (loaded.name, loaded.path, loaded.sha256) == ("any", file, digest)
    assert loaded.metadata["recipe"] == "[train]\nsteps = 1"
    assert loaded.metadata["scale"] == str(parameters["scale"])
    assert json.loads(loaded.metadata["parameters"]) == parameters
    assert not loaded.model.training
    assert loaded.model.state_dict().keys() == weights.keys()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, weights[name])


def test_half_precision_files_give_a_full_precision_network(tmp_path):
    _save(tmp_path / "half.safetensors", "compact", COMPACT, dtype="fp16")
    assert {value.dtype for value in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    state = checkpoints.load(tmp_path / "half.safetensors").model.state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    whole = _weights("compact", COMPACT)
    assert all(torch.equal(state[name], whole[name].half().float()) for name in whole)


def test_saving_is_the_same_to_the_byte_and_draws_no_random_numbers(tmp_path):
    weights = {name: value.contiguous() for name, value in _weights("compact", COMPACT).items()}
    striding = {name: _strided(value) for name, value in weights.items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    digests = set()
    for state, names in ((weights, "abcdefgh"), (striding, "hgfedcba"), (weights, "abcdefgh")):
        about = {"architecture": "compact", "parameters": COMPACT, "metadata": {name: name for name in names}}
        digests.add(checkpoints.save(tmp_path / "a", state, **about))
    assert torch.equal(torch.rand(3), expected)
    assert len(digests) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def _strided(value: torch.Tensor) -> torch.Tensor:
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value


def test_saving_refuses_what_could_not_be_loaded(tmp_path):
    weights = _weights("compact", COMPACT)
    file = tmp_path / "a.safetensors"
    good = {"architecture": "compact", "parameters": COMPACT, "metadata": {}}
    with pytest.raises(ValueError, match="text only; not so: steps"):
        checkpoints.save(file, weights, **good | {"metadata": {"steps": 3}})
    with pytest.raises(ValueError, match="2 weights missing, 0 too many"):
        checkpoints.save(file, weights, **good | {"parameters": COMPACT | {"convs": 3}})
    with pytest.raises(ValueError, match="not 'fp8'"):
        checkpoints.save(file, weights, **good, dtype="fp8")
    weights["head.bias"] += 1e5
    with pytest.raises(UpscaleError, match=r"head\.bias holds numbers that are not finite in torch\.float16"):
        checkpoints.save(file, weights, **good, dtype="fp16")
    with pytest.raises(UpscaleError, match=r"cannot write .*No such file"):
        checkpoints.save(tmp_path / "gone" / "a.safetensors", weights, **good)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"the last good one")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UpscaleError, match=r"cannot write .*: No space left on device"):
        _save(file, "compact", COMPACT)
    assert file.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [file]


def test_a_named_checkpoint_carries_its_licence(package):
    loaded = checkpoints.load("small", 2, kind="image")
    assert (loaded.name, loaded.path) == ("small-x2", package / "bundled" / "small-x2.safetensors")
    assert loaded.metadata["licence"] == "Apache-2.0"
    assert loaded.metadata["trained_on"] == "nothing"


def test_a_video_file_is_refused_for_a_picture(tmp_path):
    _save(tmp_path / "video.safetensors", "vsrresnet", VIDEO)
    with pytest.raises(UpscaleError, match="is a video network, it needs 5 frames"):
        checkpoints.load(tmp_path / "video.safetensors", kind="image")


# ---- files of others -------------------------------------------------------------------------------------------------


def _old_names(state: dict) -> dict:
    """Today's RRDBNet names in those of the ESRGAN release."""
    words = {"body.": "RRDB_trunk.", "rdb": "RDB", "conv_body": "trunk_conv", "conv_up": "upconv", "conv_hr": "HRconv"}
    return {_replaced(name, words): value for name, value in state.items()}


def _replaced(name: str, words: dict[str, str]) -> str:
    for new, old in words.items():
        name = name.replace(new, old, 1) if not (new == "body." and name.startswith("conv_body")) else name
    return name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        _old_names,
        lambda state: {"params": state},
        lambda state: {"params": {name: value + 1 for name, value in state.items()}, "params_ema": state},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3},
        lambda state: {"generator": {"params_ema": _old_names(state)}, "step": torch.tensor(1)},
    ],
    ids=["plain", "old", "params", "params_ema", "module", "nested"],
)
def test_files_of_the_esrgan_family_are_recognised(tmp_path, wrap):
    weights = _weights("rrdbnet", ESRGAN)
    torch.save(wrap(weights), tmp_path / "public.pth")
    loaded = checkpoints.load(tmp_path / "public.pth", kind="image")
    assert json.loads(loaded.metadata["parameters"]) == ESRGAN
    assert loaded.metadata["architecture"] == "rrdbnet"
    lr = torch.rand(1, 3, 6, 5)
    expected = models.build("rrdbnet", **ESRGAN)
    expected.load_state_dict(weights)
    assert torch.equal(loaded.model(lr), expected(lr))


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("compact", COMPACT),
        ("compact", COMPACT | {"branches": True}),
        ("srresnet", {"scale": 4, "blocks": 2, "features": 8, "channels": 3}),
        ("rrdbnet", ESRGAN | {"scale": 2}),
    ],
)
def test_safetensors_without_a_description_are_recognised(tmp_path, architecture, parameters):
    weights = _weights(architecture, parameters)
    save_file(weights, tmp_path / "bare.safetensors")
    assert checkpoints.canonical(weights)[:2] == (architecture, parameters)
    loaded = checkpoints.load(tmp_path / "bare.safetensors")
    assert json.loads(loaded.metadata["parameters"]) == parameters
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": {"conv_first.weight": torch.zeros(1)}, "extra": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pth", "raw.pth"):
        with pytest.raises(UpscaleError, match=r"could run code and is refused") as raised:
            checkpoints.load(tmp_path / name)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "owned").exists()


def _looped() -> dict:
    table = {}
    table["params"] = table
    return table


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "is empty"),
        ("empty.safetensors", b"", "is empty"),
        ("text.pth", b"These are not the weights you are looking for.\n" * 9, "is not a checkpoint file"),
        ("text.safetensors", b"These are not the weights you are looking for.\n", "is no safetensors file"),
        ("zip.pth", b"PK\x03\x04" + bytes(100), "is not a checkpoint file"),
        ("head.safetensors", (8).to_bytes(8, "little") + b"{broken}", "its head is damaged"),
        ("list.pth", [torch.zeros(1)], "holds a list, not the weights of a network"),
        ("nothing.pth", {}, "not the weights of a network known here"),
        ("other.pth", {"fc.weight": torch.zeros(3, 3)}, "not the weights of a network known here"),
        ("looped.pth", _looped(), "not the weights of a network known here"),
    ],
)
def test_what_is_no_network_is_one_clear_line(tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(UpscaleError) as raised:
        checkpoints.load(tmp_path / name)
    assert message in str(raised.value)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_cut_files_are_seen(tmp_path):
    whole = tmp_path / "whole.safetensors"
    _save(whole, "compact", COMPACT)
    torch.save(_weights("compact", COMPACT), tmp_path / "whole.pth")
    for suffix, message in (
        ("safetensors", "is cut short or damaged"),
        ("pth", "is not a checkpoint file, or is damaged"),
    ):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[:-100])
        with pytest.raises(UpscaleError, match=message):
            checkpoints.load(cut)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "compakt"}, "unknown architecture 'compakt'; did you mean compact"),
        ({"parameters": '{"feature": 3}'}, "compact takes no 'feature'; did you mean features"),
        ({"parameters": "[1]"}, "its parameters are not a table"),
        ({"parameters": "{"}, "cannot be used"),
        ({"parameters": '{"features": -3}'}, "cannot be used"),
        ({"parameters": '{"features": 1000000}'}, "does not fit the network it names (compact)"),  # not built: 9 PB
        ({"format_version": "2"}, "was written by a newer program"),
    ],
)
def test_a_description_that_is_wrong_is_one_clear_line(tmp_path, change, message):
    described = {"architecture": "compact", "parameters": json.dumps(COMPACT)}
    save_file(_weights("compact", COMPACT), tmp_path / "a.safetensors", metadata=described | change)
    with pytest.raises(UpscaleError) as raised:
        checkpoints.load(tmp_path / "a.safetensors")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_importing_and_listing_need_no_torch():
    script = (
        "import sys\n"
        "from sa_upscale import checkpoints\n"
        "heavy = {'torch', 'numpy', 'cv2', 'huggingface_hub', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "checkpoints.listing(), checkpoints.verify(), checkpoints.info('compact')\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
