"""Muon on the kernels of convolutions."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sa_upscale import models, train
from sa_upscale.errors import UpscaleError
from sa_upscale.train import muon
from sa_upscale.train.learner import Learner
from sa_upscale.train.ranks import Place
from tests.test_train import load, recipe  # noqa: F401


def names_of(network):
    taken = {id(kernel) for kernel in muon.kernels(network)}
    return {name for name, parameter in network.named_parameters() if id(parameter) in taken}


def test_takes_the_kernels_between_features():
    assert names_of(models.build("compact", scale=2, features=8, convs=2)) == {"body.0.weight", "body.1.weight"}
    video = names_of(models.build("compact-video", scale=2, features=8, convs=1))
    assert video == {"neighbours", "body.0.weight"}
    swinir = names_of(models.build("swinir", scale=2))
    assert "layers.0.residual_group.blocks.0.attn.qkv.weight" in swinir
    assert not any("bias" in name or name.startswith(("conv_first", "conv_last")) for name in swinir)


def learner(layout, *, clip=None, weight_decay=0.0, scaled=False):
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(*size, 3, padding=1) for size in ((3, 8), (8, 6), (6, 8), (8, 3))))
    network = network.to(memory_format=layout)
    how = {"optimizer": "muon", "betas": (0.9, 0.99), "weight_decay": weight_decay}
    return Learner(network, Place(torch.device("cpu")), clip=clip, scaled=scaled, **how)


def after_three_steps(learns):
    for seed in range(3):
        x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
        learns.backward((learns.forward(x) - x).square().mean())
        learns.update(1e-3)
    return learns.network.state_dict()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_turns_a_kernel_by_the_gradient_with_its_directions_alike(layout):
    learns = learner(layout)
    before = [parameter.detach().clone() for parameter in learns.network.parameters()]
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    learns.backward((learns.forward(x) - x).square().mean())
    gradients = [parameter.grad.clone() for parameter in learns.network.parameters()]
    learns.update(1e-3)
    for old, new, gradient in zip(before, learns.network.parameters(), gradients, strict=True):
        moved = new.detach() - old
        if old.ndim == 4 and old.shape[1] != 3 and old.shape[0] != 3:
            u, _, vh = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
            turned = -(u.T @ moved.flatten(1) @ vh.T) / (1e-3 * 0.2 * max(old.shape[0], old[0].numel()) ** 0.5)
            # Five steps of Newton-Schulz bring the large directions to between 0.7 and 1.2, in bf16.
            assert 0.6 < turned[0, 0] < 1.3
            assert 0.6 < turned[1, 1] < 1.3
            assert (turned - turned.diag().diag()).abs().max() < 0.1
        else:
            assert torch.allclose(moved, -1e-3 * gradient.sign(), rtol=1e-2, atol=1e-6)  # Adam's first step
    assert all(parameter.grad is None for parameter in learns.network.parameters())


@pytest.mark.parametrize("clip", [None, 0.01])
def test_neither_the_layout_in_memory_nor_a_scaled_loss_changes_anything(clip):
    usual = after_three_steps(learner(torch.contiguous_format, clip=clip, weight_decay=0.01))
    for other in (
        learner(torch.channels_last, clip=clip, weight_decay=0.01),
        learner(torch.channels_last, clip=clip, weight_decay=0.01, scaled=True),
    ):
        state = after_three_steps(other)
        for key, value in usual.items():
            assert torch.allclose(value, state[key], atol=2e-5), key


def test_a_gradient_in_another_layout_is_taken_and_clipped():
    learns = learner(torch.channels_last, clip=1e-3)
    kernel = muon.kernels(learns.network)[0]
    for parameter in learns.network.parameters():
        parameter.grad = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(2))
    before = kernel.detach().clone()
    learns.update(1e-3)
    assert not torch.equal(kernel, before)
    buffer = learns.state_dict()["optimizers"][1]["state"][0]["momentum_buffer"]
    assert 0 < buffer.norm() < 1e-3 * (1 - muon.MOMENTUM) * 1.01  # of what was left of the gradient


def test_a_run_resumes_exactly(recipe, tmp_path):  # noqa: F811
    def interrupt(progress):
        if progress.step == 8:
            raise KeyboardInterrupt

    settings = ("train.optimizer=muon", "train.save_every=0")
    train.fit(load(recipe, *settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train.fit(load(recipe, *settings), tmp_path / "cut", on_progress=interrupt)
    train.fit(load(recipe, *settings), tmp_path / "cut", resume=True)
    train.fit(load(recipe), tmp_path / "adam")
    whole, cut, adam = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "cut", "adam"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert any(not torch.equal(whole[key], adam[key]) for key in whole)


def test_another_optimizer_is_refused_with_the_nearest(recipe):  # noqa: F811
    with pytest.raises(UpscaleError, match=r"unknown train.optimizer 'mion'; did you mean muon\?"):
        load(recipe, "train.optimizer=mion")
