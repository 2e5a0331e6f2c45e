import functools

import pytest
import torch
from safetensors.torch import save_file

from sa_upscale import checkpoints, config, losses, models
from sa_upscale.errors import UpscaleError
from sa_upscale.functional.vgg import LAYERS
from sa_upscale.train.players import Players
from sa_upscale.train.ranks import Place

PAPERS = [name for name in config.names() if name.endswith("-paper")]
ESRGAN_LAYERS, VIDEO_LAYERS = ["conv5_4"], ["conv2_1", "conv2_2"]
LDL_LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


@functools.cache
def loaded(name):
    return config.load(None, [], name) if name in config.objectives() else config.load(name)


def terms(stage):
    """Name of each loss to its weight and the rest of its options."""
    return {
        table["name"]: (table["weight"], {key: table[key] for key in table if key not in ("name", "weight")})
        for table in stage.losses
    }


@functools.cache
def generator(name, parameters):
    return models.build(name, **dict(parameters))


@functools.cache
def discriminator(name, size, parameters):
    return models.build_discriminator(name, size=size, **dict(parameters))


@pytest.mark.parametrize("name", [*config.names(), *config.objectives()])
def test_everything_a_recipe_names_can_be_built(name):
    recipe = loaded(name)
    assert recipe.description
    if name in config.names():
        network = generator(recipe.model.name, tuple({"scale": recipe.model.scale, **recipe.model.parameters}.items()))
        assert network.scale == recipe.model.scale
    for stage in recipe.stages:
        assert len(terms(stage)) == len(stage.losses)
        assert all(weight > 0 for weight, _ in terms(stage).values())
        built = [losses.build(loss, **options) for loss, (_, options) in terms(stage).items()]
        needed = losses.needs(built)
        assert ("discriminator" in needed) == (stage.discriminator is not None)
        assert "ema" not in needed or stage.train.ema > 0
        if stage.discriminator is not None:
            options = tuple(stage.discriminator.parameters.items())
            assert discriminator(stage.discriminator.name, stage.data.patch, options)
            assert stage.train.best == "loss", "a metric would choose the weights with the least of an adversary"


@pytest.mark.parametrize("name", config.names())
def test_starts_are_checkpoints_that_are_known_or_have_a_recipe(name):
    start = loaded(name).model.start
    assert start is None or start in checkpoints.entries() or start in config.names()


def test_the_objectives_are_those_of_the_papers():
    gan = {"gan": (0.005, {"kind": "relativistic"})}
    seen = {"perceptual": (1.0, {"layers": "esrgan"})}
    ldl = {"perceptual": (1.0, {"layers": "ldl"}), "ldl": (1.0, {"map": "refined"})} | gan
    huber = {"huber": (0.01, {})}
    judged = {"gan": (0.005, {"kind": "standard"})}
    vgg = {"perceptual": (0.5, {"layers": "afm", "distance": "mse"})}
    content = {"content": (1.0, {"reweighing": "softmax"})}
    expected = {
        "fidelity": {"l1": (1.0, {})},
        "esrgan": {"l1": (0.01, {})} | seen | gan,
        "sa-lv": {"sa-lv": (1.0, {"beta1": 0.01, "distance": "l1"})} | seen | gan,
        "sa-canny": {"sa-canny": (1.0, {"beta1": 0.01, "distance": "l1"})} | seen | gan,
        "ldl": {"l1": (0.01, {})} | ldl,
        "sa-canny+ldl": {"sa-canny": (1.0, {"beta1": 0.01, "distance": "l1"})} | ldl,
        "sa-feature": {
            "gan": (0.001, {"kind": "standard"}),
            "sa-lv": (1.0, {"beta1": 0.001, "share": 0.075, "distance": "charbonnier", "factor": 10.0}),
            "sa-feature": (
                1.0,
                {"beta1": 0.798, "share": 0.075, "layers": VIDEO_LAYERS, "edges": "lv", "factor": 10.0},
            ),
        },
        "m_p": {"huber": (1.0, {})},
        "m_pva": huber | vgg | judged,
        "m_pca": huber | {"content": (1.0, {"reweighing": "mean"})} | judged,
        "m_pcsa": huber | content | judged,
        "m_pcsva": huber | content | vgg | judged,
        "afm": huber | content | vgg | judged,
    }
    assert {name: terms(loaded(name).stages[0]) for name in config.objectives()} == expected


@pytest.fixture(scope="module")
def narrow_vgg(tmp_path_factory):
    """A VGG19 with all its layers, of 4 channels each."""
    file, channels, weights = tmp_path_factory.mktemp("vgg") / "narrow.safetensors", 3, {}
    for index in LAYERS.values():
        weights[f"features.{index}.weight"] = torch.randn(4, channels, 3, 3) / (9 * channels) ** 0.5
        weights[f"features.{index}.bias"] = torch.zeros(4)
        channels = 4
    save_file(weights, file)
    return file


@pytest.mark.parametrize("name", config.objectives())
def test_a_network_takes_a_step_by_every_objective(name, narrow_vgg):
    torch.manual_seed(0)
    settings = ["model.name=compact", "model.parameters={features=4, convs=1}", "data.patch=32"]
    settings += [f"train.vgg_weights={narrow_vgg}", "train.precision=fp32"]
    if loaded(name).stages[0].discriminator is not None:
        settings.append("discriminator.parameters.features=4")
    recipe = config.load(None, settings, name)
    players = Players(recipe.stages[0], recipe.model, Place(torch.device("cpu")))
    assert not players.notices  # with all of VGG19 nothing stands in for a paper's layers
    before = [weight.clone() for weight in players.generator.parameters()]
    hr = torch.rand(2, 3, 32, 32)
    values, _ = players.learn(torch.nn.functional.avg_pool2d(hr, 4), hr, step=1)
    assert torch.isfinite(values).all()
    assert not any(map(torch.equal, before, players.generator.parameters()))


@pytest.mark.parametrize("name", config.objectives())
def test_the_adaptive_part_of_an_objective_is_calibrated_to_15_percent(name):
    shares = [
        losses.build(loss, **options).share
        for loss, (_, options) in terms(loaded(name).stages[0]).items()
        if "sa-" in loss
    ]
    assert not shares or sum(shares) == pytest.approx(0.15)


def test_paper_names_of_the_afm_variants_and_near_names():
    assert config.load(None, [], "M_pcσva").stages == loaded("m_pcsva").stages
    assert config.load(None, [], "M_p").stages == loaded("m_p").stages
    with pytest.raises(UpscaleError, match="unknown loss 'sa-cany'; did you mean sa-canny"):
        config.load(None, [], "sa-cany")
    with pytest.raises(UpscaleError, match="did you mean m_pcsva"):
        config.load(None, [], "m_pcva")
    with pytest.raises(UpscaleError, match="did you mean esrgan-x4"):
        config.load("esrgan-x5")


def test_an_objective_replaces_the_losses_of_a_recipe():
    stage = config.load("sa-esrgan-canny-x4-paper", [], "sa-canny").stages[-1]
    assert terms(stage) == terms(loaded("sa-canny").stages[0])
    assert stage.train.steps == 500_000


def test_a_stage_of_one_step_at_rate_0_passes_the_start_by():
    settings = ["stages.fidelity.train.steps=1", "stages.fidelity.train.rate=0"]
    fidelity, ldl = config.load("swinir-ldl-x4-paper", settings).stages
    # A cosine would end at final_rate, not at 0.
    assert (fidelity.train.steps, fidelity.train.rate, fidelity.train.schedule) == (1, 0.0, "steps")
    assert (ldl.train.steps, ldl.train.rate) == (300_000, 1e-4)


# ---- the papers' numbers, written down from the papers and not from the recipes


def schedule(stage):
    train = stage.train
    if train.schedule == "constant":
        return train.steps, train.rate
    assert train.schedule == "steps"
    return train.steps, train.rate, train.milestones, train.factor


ESRGAN_START = (1_000_000, 2e-4, (200_000, 400_000, 600_000, 800_000), 0.5)
ESRGAN_GAN = (500_000, 1e-4, (50_000, 100_000, 200_000, 300_000), 0.5)
# 100, 50, 75, 40 and 30 epochs of 800 000 / 64 = 12 500 steps.
VIDEO_START = (1_250_000, 1e-3, (625_000, 937_500), 0.1)
VIDEO_GAN, SA_VSRGAN_GAN = (500_000, 1e-4), (375_000, 1e-4)
LDL_GAN = (300_000, 1e-4)
# 200 epochs of 3450 / 16 steps.
AFM = (200_000, 1e-4, (43_125, 86_250, 129_375, 172_500), 0.1)

SETTINGS = {
    "esrgan-x4-paper": ("rrdbnet", [ESRGAN_START, ESRGAN_GAN], [16, 16], 128, "esrgan", 0.0),
    "sa-esrgan-lv-x4-paper": ("rrdbnet", [ESRGAN_START, ESRGAN_GAN], [16, 16], 128, "esrgan", 0.0),
    "sa-esrgan-canny-x4-paper": ("rrdbnet", [ESRGAN_START, ESRGAN_GAN], [16, 16], 128, "esrgan", 0.0),
    "vsrresfeatgan-x4-paper": ("vsrresnet", [VIDEO_START, VIDEO_GAN], [64, 64], 36, "vsrresfeatgan", 0.0),
    "sa-vsrresfeatgan-lv-x4-paper": ("vsrresnet", [VIDEO_START, VIDEO_GAN], [64, 64], 36, "vsrresfeatgan", 0.0),
    "sa-vsrresfeatgan-canny-x4-paper": ("vsrresnet", [VIDEO_START, VIDEO_GAN], [64, 64], 36, "vsrresfeatgan", 0.0),
    "sa-vsrgan-x2-paper": ("vsrresnet", [VIDEO_START, SA_VSRGAN_GAN], [64, 64], 36, "vsrresfeatgan", 0.0),
    "sa-vsrgan-x3-paper": ("vsrresnet", [VIDEO_START, SA_VSRGAN_GAN], [64, 64], 36, "vsrresfeatgan", 0.0),
    "sa-vsrgan-x4-paper": ("vsrresnet", [VIDEO_START, SA_VSRGAN_GAN], [64, 64], 36, "vsrresfeatgan", 0.0),
    "rrdb-ldl-x4-paper": ("rrdbnet", [LDL_GAN], [64], 128, "esrgan", 0.999),
    "srresnet-ldl-x4-paper": ("srresnet", [ESRGAN_START, LDL_GAN], [16, 64], 128, "esrgan", 0.999),
    "swinir-ldl-x4-paper": (
        "swinir",
        [(500_000, 2e-4, (250_000, 400_000, 450_000, 475_000), 0.5), LDL_GAN],
        [32, 64],
        128,
        "esrgan",
        0.999,
    ),
    "real-esrgan-ldl-x4-paper": ("rrdbnet", [(1_000_000, 2e-4), (400_000, 1e-4)], [48, 16], 256, "unet", 0.999),
    "afm-m-p-x4-paper": ("srresnet", [AFM], [16], 96, None, 0.0),
    "afm-m-pva-x4-paper": ("srresnet", [AFM], [16], 96, "afm", 0.0),
    "afm-m-pca-x4-paper": ("srresnet", [AFM], [16], 96, "afm", 0.0),
    "afm-m-pcsa-x4-paper": ("srresnet", [AFM], [16], 96, "afm", 0.0),
    "afm-m-pcsva-x4-paper": ("srresnet", [AFM], [16], 96, "afm", 0.0),
}


@pytest.mark.parametrize("name", PAPERS)
def test_networks_and_schedules_of_the_papers(name):
    network, schedules, batches, patch, judge, ema = SETTINGS[name]
    recipe = loaded(name)
    assert recipe.model.name == network
    assert f"-x{recipe.model.scale}-" in name
    assert not recipe.model.parameters  # the defaults are the papers' networks
    assert [schedule(stage) for stage in recipe.stages] == schedules
    assert [stage.data.batch for stage in recipe.stages] == batches
    last = recipe.stages[-1]
    assert last.data.patch == patch
    assert {stage.train.ema for stage in recipe.stages} == {ema}
    if judge is None:
        assert last.discriminator is None
    else:
        assert (last.discriminator.name, last.discriminator.parameters) == (judge, {})
        assert last.discriminator.rate == 1e-4
    assert last.data.degradation == ("second-order" if name.startswith("real") else "bicubic")


ESRGAN = {
    "l1": (0.01, {}),
    "perceptual": (1.0, {"layers": ESRGAN_LAYERS, "distance": "l1", "activated": False}),
    "gan": (0.005, {"kind": "relativistic"}),
}
VSRRESFEATGAN = {
    "gan": (0.001, {"kind": "standard"}),
    "perceptual": (0.998, {"layers": VIDEO_LAYERS, "distance": "charbonnier", "activated": True}),
    "charbonnier": (0.001, {}),
}
SA_VSRGAN = {
    "gan": (0.001, {"kind": "standard"}),
    "sa-lv": (1.0, {"beta1": 0.001, "beta2": 0.1, "delta": 0.01, "factor": 10.0, "distance": "charbonnier"}),
    "sa-feature": (1.0, {"beta1": 0.798, "beta2": 0.1, "layers": VIDEO_LAYERS, "edges": "lv", "factor": 10.0}),
}
LDL = {
    "l1": (0.01, {}),
    "perceptual": (1.0, {"layers": LDL_LAYERS, "distance": "l1", "activated": False}),
    "gan": (0.005, {"kind": "relativistic"}),
    "ldl": (1.0, {"map": "refined", "window": 7, "power": 5}),
}
AFM_TERMS = {
    "huber": (0.01, {}),
    "perceptual": (0.5, {"layers": ESRGAN_LAYERS, "distance": "mse", "activated": False}),
    "content": (1.0, {"reweighing": "softmax"}),
    "gan": (0.005, {"kind": "standard"}),
}


def without(table, *names, **more):
    return {name: value for name, value in table.items() if name not in names} | more


def adaptive(name, table, plain, beta1, beta2, distance):
    return without(table, plain) | {name: (1.0, {"beta1": beta1, "beta2": beta2, "distance": distance})}


SHARP = {"sharpened": True}
COEFFICIENTS = {
    "esrgan-x4-paper": ESRGAN,
    "sa-esrgan-lv-x4-paper": adaptive("sa-lv", ESRGAN, "l1", 0.01, 20.0, "l1"),
    "sa-esrgan-canny-x4-paper": adaptive("sa-canny", ESRGAN, "l1", 0.01, 20.0, "l1"),
    "vsrresfeatgan-x4-paper": VSRRESFEATGAN,
    "sa-vsrresfeatgan-lv-x4-paper": adaptive("sa-lv", VSRRESFEATGAN, "charbonnier", 0.001, 5.0, "charbonnier"),
    "sa-vsrresfeatgan-canny-x4-paper": adaptive("sa-canny", VSRRESFEATGAN, "charbonnier", 0.001, 1.5, "charbonnier"),
    "sa-vsrgan-x2-paper": SA_VSRGAN,
    "sa-vsrgan-x3-paper": SA_VSRGAN,
    "sa-vsrgan-x4-paper": SA_VSRGAN,
    "rrdb-ldl-x4-paper": LDL,
    "srresnet-ldl-x4-paper": LDL | {"gan": (0.005, {"kind": "standard"})},
    "swinir-ldl-x4-paper": LDL,
    "real-esrgan-ldl-x4-paper": LDL
    | {
        "l1": (0.01, SHARP),
        "perceptual": (1.0, LDL["perceptual"][1] | SHARP),
        "gan": (0.1, {"kind": "standard"}),
    },
    "afm-m-p-x4-paper": {"huber": (1.0, {})},
    "afm-m-pva-x4-paper": without(AFM_TERMS, "content"),
    "afm-m-pca-x4-paper": without(AFM_TERMS, "perceptual", content=(1.0, {"reweighing": "mean"})),
    "afm-m-pcsa-x4-paper": without(AFM_TERMS, "perceptual"),
    "afm-m-pcsva-x4-paper": AFM_TERMS,
}


def test_every_published_model_has_its_recipe():
    assert sorted(PAPERS) == sorted(SETTINGS) == sorted(COEFFICIENTS)


@pytest.mark.parametrize("name", PAPERS)
def test_coefficients_of_the_papers(name):
    assert terms(loaded(name).stages[-1]) == COEFFICIENTS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("esrgan-x4-paper", {"l1": (1.0, {})}),
        ("vsrresfeatgan-x4-paper", {"mse": (1.0, {})}),
        ("sa-vsrgan-x2-paper", {"mse": (1.0, {})}),
        ("swinir-ldl-x4-paper", {"l1": (1.0, {})}),
        ("real-esrgan-ldl-x4-paper", {"l1": (1.0, SHARP)}),
    ],
)
def test_first_stages_of_the_papers(name, expected):
    first = loaded(name).stages[0]
    assert terms(first) == expected
    assert first.discriminator is None


def test_what_else_the_papers_say():
    for name in PAPERS:
        stages = loaded(name).stages
        betas = (0.9, 0.99) if "ldl" in name else (0.9, 0.999)
        assert {stage.train.betas for stage in stages} == {betas}, name
        decays = [
            (stage.train.weight_decay, stage.discriminator.weight_decay) for stage in stages if stage.discriminator
        ]
        assert decays in ([], [(1e-4, 1e-3) if name.startswith("sa-vsrgan") else (0.0, 0.0)]), name
        if "vsr" in name:
            assert {stage.data.holdout for stage in stages} == {round(0.2 * 53)}
        if "ldl" in name:
            assert stages[-1].train.stability_every == 5000


@pytest.mark.parametrize(
    "names",
    [
        ("esrgan-x4", "sa-esrgan-x4", "sa-esrgan-lv-x4", "rrdb-ldl-x4"),
        ("esrgan-lite-x4", "sa-esrgan-lite-x4", "rrdb-ldl-lite-x4"),
    ],
)
def test_our_rrdb_networks_differ_in_their_losses_alone(names):
    recipes = [loaded(name) for name in names]
    assert len({str(recipe.model) for recipe in recipes}) == 1
    stages = [stage for recipe in recipes for stage in recipe.stages]
    assert len({str((stage.data, stage.train, stage.discriminator)) for stage in stages}) == 1
    expected = terms(loaded("compact-x4").stages[0])["perceptual"]
    assert [terms(stage)["perceptual"] for stage in stages] == [expected] * len(names)
    assert len({str(terms(stage)) for stage in stages}) == len(names)


@pytest.mark.parametrize("name", ["rrdb-fidelity", "esrgan", "sa-esrgan", "rrdb-ldl"])
def test_the_networks_of_six_blocks_are_trained_by_the_losses_of_23(name):
    lite, full = (loaded(f"{name}{size}-x4").stages[0] for size in ("-lite", ""))
    assert terms(lite) == terms(full)
    assert lite.discriminator == full.discriminator


def test_the_stage_of_a_checkpoint_names_the_objective_that_finetuning_goes_on_with():
    for name in config.names():
        stage = loaded(name).stages[-1]
        if stage.discriminator is not None and name != "vsrresfeatgan-x4-paper":
            # Our small networks need one term more than the papers' objective.
            assert set(terms(stage)) - {"lattice"} == set(terms(loaded(stage.name).stages[0])), name
