"""Round a chain's kernels so that 8-bit integers hold them, and what it makes stays what it is.

    python -m tools.round_kernels runs/c.safetensors sa_upscale/bundled/compact-x4.safetensors --config compact-x4 \\
        --data photos --validation Kodak12 --register

Each weight to the nearest step, as `models.int8` has to do it, costs the small networks some hundredths of a dB.  Here
the weights that are not rounded yet make up for each one that is, for maps as they come from pictures like those of the
recipe, and `models.int8` has nothing left to round.  The first convolutions and the last, which cost half of the rest,
are left as they are, and run in floating-point numbers.

The recipe is that of the checkpoint's name, or --config.  Its metadata are kept, but for `int8_loss`: once `python -m
benchmarks quality` has measured it anew, `weights.toml` is the place for it.

Reference: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023,
section 3.  Deviations: biases, which are not rounded, come last and make up for what is left; the largest weight of an
output channel stays what it is, so that its steps can be told from the weights alone (`int8.on_grid`).
"""

import argparse
import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale import checkpoints, config, data, processors
from sa_upscale.errors import UpscaleError
from sa_upscale.models import int8
from sa_upscale.models.active import convolved
from sa_upscale.models.bands import Conv
from sa_upscale.train.validation import Validation
from tools.bundle import ship

SIDE = 48  # of a crop, LR
CROPS = 96
EXACT = 2
DAMPING = 0.01  # of the mean square of what a convolution is given: what the crops do not show counts as that large


@torch.no_grad()
def rounded(network: nn.Module, crops: Iterable[torch.Tensor], exact: int = EXACT) -> nn.Module:
    """A copy of the network with other kernels and biases; `crops` are inputs of the network in [0, 1], each N = 1.

    Of the convolutions that take many channels the `exact` first ones and the last stay what they are.
    """
    network = copy.deepcopy(network)
    given = [network.stacked(crop) for crop in crops]
    layers = network.layers()
    integers = [layer for layer in layers if int8.multiplies(layer)][exact:-1]
    for layer in layers:
        if layer in integers:
            given = [_as_bytes(x) for x in given]
            _round(layer, given)
        given = [convolved(x, layer.weight, layer.bias, layer.slope, groups=layer.groups) for x in given]
    return network


def _as_bytes(x: torch.Tensor) -> torch.Tensor:
    # Not `Codes.of`, which multiplies by 1 / scale: by it other weights than those shipped come of the same crops.
    codes = int8.Codes.reaching(x)
    return (x / codes.scale).round_().add_(codes.zero).clamp_(0, int8.LEVELS).sub_(codes.zero).mul_(codes.scale)


def _round(layer: Conv, given: list[torch.Tensor]) -> None:
    """Put weights that bytes hold, and a bias beside them, in the place of those of `layer`, which is fed `given`."""
    weight, bias = layer.weight, layer.bias
    weights = torch.cat((weight.flatten(1), bias[:, None]), dim=1).double()  # (out, in * 9 + 1)
    squares = weights.new_zeros(2 * weights.shape[1:])
    for x in given:
        taps = F.unfold(x, 3, padding=1)[0]
        taps = torch.cat((taps, taps.new_ones(1, taps.shape[1])))
        squares += (taps @ taps.T).double()
    steps = int8.steps(weight).double()
    strength = squares.diagonal()[:-1].clone()
    squares.diagonal().add_(DAMPING * strength.mean())
    # Those that matter most first, while the most others can make up for them; the bias at the end.
    order = [*strength.argsort(descending=True).tolist(), len(strength)]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(squares[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    weights = weights[:, order]
    largest = weights[:, :-1].abs().argmax(1)
    for column in range(len(strength)):
        values = weights[:, column].clone()
        codes = (values / steps).round().clamp(-int8.MOST, int8.MOST)
        codes[largest == column] = int8.MOST * values[largest == column].sign()
        weights[:, column] = codes * steps
        error = (values - weights[:, column]) / factor[column, column]
        weights[:, column + 1 :] -= error[:, None] * factor[column, column + 1 :]
    found = torch.empty_like(weights)
    found[:, order] = weights
    weight.copy_(found[:, :-1].reshape(weight.shape))
    bias.copy_(found[:, -1])


def write(arguments: argparse.Namespace) -> str:
    """Write the checkpoint with rounded kernels, print what that costs, and return its sha256."""
    known = checkpoints.load(arguments.checkpoint)
    network = known.model
    if not (hasattr(network, "layers") and all(isinstance(layer, Conv) for layer in network.layers())):
        raise UpscaleError(f"{known.name} is not a plain chain of convolutions")
    recipe = config.load(arguments.config or known.name)
    options = dataclasses.replace(
        recipe.stages[-1].data,
        folders=tuple(arguments.data),
        validation=arguments.validation,
        patch=SIDE * network.scale,
    )
    source, pairs = data.open_source(options, scale=network.scale, window=network.window, on_notice=print)
    batches = data.batches(source, 1, arguments.seed)
    crops = [lr.float() / 255 for lr, _ in itertools.islice(batches, CROPS)]
    made = rounded(network, crops, arguments.exact).half().float()  # as the file has it
    validation = Validation(
        pairs,
        scale=network.scale,
        patch=options.patch,
        criterion="loss",
        vgg_weights=None,
        device=torch.device("cpu"),
        autocast=contextlib.nullcontext,
    )
    before = validation.measure(network)["psnr_y"]
    others = {"in float32": made} | ({"in int8": int8.converted(made)} if int8.able() else {})
    for name, other in others.items():
        gained = validation.measure(other)["psnr_y"] - before
        print(f"{name}: {gained:+.4f} dB on {len(pairs)} validation pictures")
    told = {key: value for key, value in known.metadata.items() if key != "int8_loss"}
    told["rounded"] = f"for int8, by tools.round_kernels --exact {arguments.exact} with crops of the training data"
    return checkpoints.save(
        arguments.target,
        made.state_dict(),
        architecture=known.metadata["architecture"],
        parameters=made.parameters_dict,
        metadata=told,
        dtype="fp16",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a name of weights.toml or a file")
    parser.add_argument("--data", action="append", required=True, help="a folder of pictures or clips; again for more")
    parser.add_argument("--validation", help="a folder to say the cost of; by default some of the data are kept back")
    parser.add_argument("--config", help="the recipe that says what LR pictures are like; by default that of its name")
    parser.add_argument("--exact", type=int, default=EXACT, help="how many of the first convolutions to leave")
    parser.add_argument("--seed", type=int, default=1)
    torch.set_num_threads(processors.threads())
    ship(parser, write)


if __name__ == "__main__":
    main()
