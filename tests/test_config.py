import pytest

from sa_upscale import config
from sa_upscale.errors import UpscaleError

RECIPE = """
[model]
name = "compact"
parameters = { features = 8, convs = 1 }
[data]
batch = 2
patch = 32
[train]
steps = 5
betas = [0.9, 0.999]
[[losses]]
name = "l1"
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(RECIPE)
    return str(file)


@pytest.mark.parametrize("name", config.names())
def test_every_recipe_of_the_package_is_valid(name):
    recipe = config.load(name)
    assert recipe.description
    assert all(stage.train.steps > 0 for stage in recipe.stages)


def test_values_and_defaults(recipe):
    got = config.load(recipe)
    assert got.model == config.Model(name="compact", scale=4, parameters={"features": 8, "convs": 1})
    (stage,) = got.stages
    assert stage.train.betas == (0.9, 0.999)
    assert stage.train.ema == 0.999
    assert stage.losses == ({"name": "l1"},)


def test_settings_override(recipe):
    got = config.load(recipe, ["train.steps=7", "train.rate=1", "data.folders=['a', 'b']", "train.precision=bf16"])
    (stage,) = got.stages
    assert (stage.train.steps, stage.train.rate, stage.data.folders) == (7, 1.0, ("a", "b"))
    assert stage.train.precision == "bf16"
    assert config.load(recipe, ["losses.l1.weight=2"]).stages[0].losses == ({"name": "l1", "weight": 2},)
    assert config.load(recipe, ["data.second_order.second.blur=0"]).stages[0].data.second_order.second.blur == 0.0


STAGES = (
    RECIPE
    + """
[[stages]]
name = "fidelity"
[[stages]]
name = "adversarial"
train = { steps = 3 }
discriminator = { name = "unet" }
losses = [ { name = "l1", weight = 0.01 }, { name = "gan" } ]
"""
)


def test_stages_inherit_and_override(tmp_path):
    (tmp_path / "r.toml").write_text(STAGES)
    fidelity, adversarial = config.load(str(tmp_path / "r.toml")).stages
    assert (fidelity.name, fidelity.train.steps, fidelity.losses) == ("fidelity", 5, ({"name": "l1"},))
    assert fidelity.discriminator is None
    assert (adversarial.train.steps, adversarial.train.betas, adversarial.data.patch) == (3, (0.9, 0.999), 32)
    assert [loss["name"] for loss in adversarial.losses] == ["l1", "gan"]
    settings = ["data.patch=64", "stages.adversarial.train.steps=9", "losses.l1.weight=3"]
    fidelity, adversarial = config.load(str(tmp_path / "r.toml"), settings).stages
    assert (fidelity.data.patch, adversarial.data.patch) == (64, 64)
    assert (fidelity.train.steps, adversarial.train.steps) == (5, 9)
    assert (fidelity.losses[0]["weight"], adversarial.losses[0]["weight"]) == (3, 3)
    for setting, message in (
        ("stages.adversrial.train.steps=9", "did you mean adversarial"),
        ("stages.fidelity.train.step=9", "unknown key stages.fidelity.train.step; did you mean steps"),
        ("losses.gna.kind=hinge", "no loss 'gna'"),
    ):
        with pytest.raises(UpscaleError, match=message):
            config.load(str(tmp_path / "r.toml"), [setting])
    (tmp_path / "twice.toml").write_text(STAGES.replace('"fidelity"', '"adversarial"'))
    with pytest.raises(UpscaleError, match="two stages are named adversarial"):
        config.load(str(tmp_path / "twice.toml"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.step=7", "unknown key train.step; did you mean steps"),
        ("trian.steps=7", "unknown key trian; did you mean train"),
        ("train.steps=many", "train.steps takes int, not 'many'"),
        ("train.steps=true", "train.steps takes int"),
        ("train.steps=0", "at least 1"),
        ("train.betas=[0.9]", "train.betas takes a list"),
        ("train.schedule=cosin", "did you mean cosine"),
        ("data.patch=30", "no multiple of the scale"),
        ("model=3", "model is a section"),
        ("train.steps", "write it as key=value"),
        ("losses=[]", "needs at least one"),
        ("losses=[{weight=1}]", "has no name"),
        ("losses.l2.weight=1", "no loss .l2.; known: l1"),
        ("train.best=psnr", "did you mean psnr-y"),
        ("train.ema=1.0", "between 0 and 1"),
        ("train.shift=99", "half a crop"),
        ("data.traces=2", "data.traces must lie between 0 and 1, not at 2"),
        ("data.damage=-1", "data.damage must lie between 0 and 1, not at -1"),
        ("data.noise=-1", "data.noise must lie between 0 and 255, not at -1"),
        ("data.shrink=0", "above 0 and not above 1"),
        ("train.accumulate=3", "a batch of 2 does not split"),
        ("data.degradation=second", "did you mean second-order"),
        ("data.second_order.first.blur=2", "data.second_order.first: blur is a probability"),
        ("data.lr_folders=['a']", "0 data.folders but 1 data.lr_folders"),
        ("discriminator.rate=1", "discriminator.name is missing"),
    ],
)
def test_mistakes_are_named(recipe, setting, message):
    with pytest.raises(UpscaleError, match=message):
        config.load(recipe, [setting])


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(UpscaleError, match="did you mean compact-x4-fidelity"):
        config.load("compact-x4-fidelty")
    with pytest.raises(UpscaleError, match="no such recipe file"):
        config.load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("[model\n")
    with pytest.raises(UpscaleError, match="not a TOML recipe"):
        config.load(str(tmp_path / "bad.toml"))
    (tmp_path / "short.toml").write_text("[[losses]]\nname = 'l1'\n")
    assert config.load(str(tmp_path / "short.toml")).model == config.Model()
    with pytest.raises(UpscaleError, match="nothing says what to train for"):
        config.load(None)
