import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale import checkpoints
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError
from sa_upscale.evaluate import evaluate
from sa_upscale.models.compact import Compact


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("hr", "lr"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        hr = np.array(Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((38, 33), Image.BICUBIC))
        Image.fromarray(hr[:32, :36]).save(tmp_path / "hr" / f"{name}.png")
        Image.fromarray(bicubic(hr, 4)).save(tmp_path / "lr" / f"{name}.png")
    return tmp_path


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    model = Compact(features=4, convs=1)
    file = tmp_path / "net.safetensors"
    checkpoints.save(
        file, model.state_dict(), architecture="compact", parameters=model.parameters_dict, metadata={"scale": "4"}
    )
    return file


def test_methods_side_by_side(pictures, network):
    given = evaluate(["bicubic", str(network)], pictures / "hr", pictures / "lr")
    made = evaluate(["bicubic"], pictures / "hr")
    assert [score.method for score in given] == ["bicubic", str(network)]
    assert given[0].means == made[0].means
    assert set(given[0].pictures) == {"a.png", "b.png"}
    mean = np.mean([values["psnr-y"] for values in given[1].pictures.values()])
    assert given[1].means["psnr-y"] == pytest.approx(mean)
    assert given[0].means["psnr-y"] > given[1].means["psnr-y"] > 10


def test_a_perfect_result_is_infinitely_good(pictures):
    assert evaluate(["bicubic"], pictures / "hr", pictures / "hr", scale=1)[0].means["psnr"] == float("inf")


def test_bad_input_is_one_clear_line(pictures, network):
    with pytest.raises(UpscaleError, match="did you mean psnr"):
        evaluate(["bicubic"], pictures / "hr", metrics=["psnrr"])
    with pytest.raises(UpscaleError, match="does not fit its HR picture: 9x8 x2 is not 36x32"):
        evaluate(["bicubic"], pictures / "hr", pictures / "lr", scale=2)
    with pytest.raises(UpscaleError, match="upscales by 4, not by 2"):
        evaluate([str(network)], pictures / "hr", scale=2)
    (pictures / "lr" / "a.png").unlink()
    with pytest.raises(UpscaleError, match="0 pictures are called a"):
        evaluate(["bicubic"], pictures / "hr", pictures / "lr")
