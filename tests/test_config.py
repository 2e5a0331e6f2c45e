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
    assert recipe.train.steps > 0


def test_values_and_defaults(recipe):
    got = config.load(recipe)
    assert got.model == config.Model(name="compact", scale=4, parameters={"features": 8, "convs": 1})
    assert got.train.betas == (0.9, 0.999)
    assert got.train.ema == 0.999
    assert got.losses == ({"name": "l1"},)


def test_settings_override(recipe):
    got = config.load(recipe, ["train.steps=7", "train.rate=1", "data.folders=['a', 'b']", "train.precision=bf16"])
    assert (got.train.steps, got.train.rate, got.data.folders) == (7, 1.0, ("a", "b"))
    assert got.train.precision == "bf16"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.step=7", "train.step; did you mean train.steps|unknown key train.step; did you mean steps"),
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
    with pytest.raises(UpscaleError, match="model is missing"):
        config.load(str(tmp_path / "short.toml"))
