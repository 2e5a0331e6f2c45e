"""The trainer's steps against bare loops of the same networks, losses and batch.

    python -m benchmarks.training --data ../shared/data/train/part-5 --vgg-weights FILE

A bare loop holds one batch in memory and does nothing but the steps: no data, no averaging over reports, no saving.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from sa_upscale import config, losses, models, train
from sa_upscale.functional import vgg as vgg_module

BATCH, PATCH, SCALE = 8, 96, 4
MODELS = {
    "compact": "{ features = 64, convs = 16, branches = true }",
    "rrdbnet, 6 blocks": "{ blocks = 6 }",
}


def recipe(network: str, objective: str, arguments: argparse.Namespace, steps: int) -> config.Recipe:
    """A recipe of that many steps of one stage, which validates and saves at the end only."""
    settings = [
        f'model.name="{network.split(",", maxsplit=1)[0]}"',
        f"model.parameters={MODELS[network]}",
        f"data.folders={json.dumps([str(arguments.data)])}",
        f"data.batch={BATCH}",
        f"data.patch={PATCH}",
        "data.holdout=2",
        f"train.steps={steps}",
        f"train.log_every={arguments.block}",
        f"train.validate_every={steps}",
        "train.save_every=3600",
        "train.tensorboard=false",
        "train.best=psnr-y",
        f"train.vgg_weights={json.dumps(str(arguments.vgg_weights))}",
    ]
    if objective != "fidelity":
        settings.append("losses.perceptual.layers={conv1_2 = 0.1, conv2_2 = 0.1, conv3_4 = 1.0}")
    return config.load(None, settings, objective)


def bare(chosen: config.Recipe, *, naive: bool = False) -> Callable[[], None]:
    """One step of the recipe written out plainly, with a batch in memory; `naive` in fp32 and NCHW."""
    (stage,) = chosen.stages
    torch.manual_seed(0)
    generator = models.build(chosen.model.name, scale=SCALE, **chosen.model.parameters).train()
    average = models.build(chosen.model.name, scale=SCALE, **chosen.model.parameters).requires_grad_(False)
    terms = [losses.build(**{key: value for key, value in table.items() if key != "weight"}) for table in stage.losses]
    weights = [table.get("weight", 1.0) for table in stage.losses]
    adversarial = "discriminator" in losses.needs(terms)
    vgg = vgg_module.load(stage.train.vgg_weights) if "vgg" in losses.needs(terms) else None
    judge = models.build_discriminator(stage.discriminator.name, size=PATCH) if adversarial else None
    hr = torch.rand(BATCH, 3, PATCH, PATCH)
    if not naive:
        generator, hr = generator.to(memory_format=torch.channels_last), hr.to(memory_format=torch.channels_last)
        judge = judge and judge.to(memory_format=torch.channels_last)
    lr = F.avg_pool2d(hr, SCALE)
    autocast = contextlib.nullcontext if naive else lambda: torch.autocast("cpu", torch.bfloat16)
    adam = torch.optim.Adam(generator.parameters(), lr=1e-5)
    judges_adam = judge and torch.optim.Adam(judge.parameters(), lr=1e-5)
    layers = losses.vgg_layers(terms)
    for term in terms:
        if hasattr(term, "beta2"):
            term.beta2.fill_(1.0)

    def step() -> None:
        with autocast():
            sr = generator(lr)
            batch = losses.Step(lr, hr, sr, ema=average, discriminator=judge, vgg=vgg, vgg_layers=layers)
            total = sum(weight * term(batch) for weight, term in zip(weights, terms, strict=True))
        adam.zero_grad(set_to_none=True)
        total.backward()
        adam.step()
        torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 1e-3)
        if judge is None:
            return
        with autocast():
            loss = losses.discriminator_loss("relativistic", judge(hr)[0], judge(sr.detach())[0])
        judges_adam.zero_grad(set_to_none=True)
        loss.backward()
        judges_adam.step()

    return step


def seconds(step: Callable[[], None], count: int) -> float:
    """Seconds a step, over `count`."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - began) / count


def against(network: str, objective: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The trainer in blocks of steps, a block of the bare loop after each, in one process."""
    chosen = recipe(network, objective, arguments, steps=arguments.block * (arguments.warm + arguments.runs + 1))
    other = bare(chosen)
    seconds(other, 2)
    ours, theirs = [], []
    began = None

    def block(progress: train.Progress) -> None:
        nonlocal began
        warm = progress.step > arguments.block * arguments.warm  # until then pictures are read for the first time
        if began is not None and warm and progress.step < progress.steps:  # the last one validates as well
            ours.append((time.perf_counter() - began) / arguments.block)
            theirs.append(seconds(other, arguments.block))
        began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train.fit(chosen, Path(folder) / "run", device="cpu", on_progress=block)
    return _ratios(ours, theirs)


def formats(network: str, objective: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The bare loop in bf16 and channels-last, as the trainer computes, against fp32 and NCHW."""
    chosen = recipe(network, objective, arguments, steps=1)
    fast, plain = bare(chosen), bare(chosen, naive=True)
    seconds(fast, 1), seconds(plain, 1)
    pairs = [(seconds(fast, 1), seconds(plain, 1)) for _ in range(arguments.runs)]
    return _ratios([ours for ours, _ in pairs], [other for _, other in pairs])


def _ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = sorted(other / mine for mine, other in zip(ours, theirs, strict=True))
    middle = {"ours": statistics.median(ours), "other": statistics.median(theirs)}
    return middle | {"speed": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of training pictures")
    parser.add_argument("--vgg-weights", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5, help="counted blocks of each pair")
    parser.add_argument("--block", type=int, default=5, help="steps of a block")
    parser.add_argument(
        "--warm", type=int, default=10, help="blocks that are not counted, to have the pictures in memory"
    )
    parser.add_argument("--json", type=Path, help="also write the raw figures to this file")
    arguments = parser.parse_args()
    figures = {
        "compact, fidelity: trainer against bare loop": against("compact", "fidelity", arguments),
        "compact, sa-canny: trainer against bare loop": against("compact", "sa-canny", arguments),
        "RRDB, 6 blocks, sa-canny: trainer against bare loop": against("rrdbnet, 6 blocks", "sa-canny", arguments),
        "RRDB, 6 blocks, esrgan: bf16 channels-last against fp32 NCHW": formats(
            "rrdbnet, 6 blocks", "esrgan", arguments
        ),
    }
    print("| what | ours, s a step | other, s a step | speed, other / ours (lowest to highest) |\n|---|---|---|---|")
    for what, got in figures.items():
        spread = f"{got['speed']:.2f} ({got['lowest']:.2f} to {got['highest']:.2f})"
        print(f"| {what} | {got['ours']:.3f} | {got['other']:.3f} | {spread} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
