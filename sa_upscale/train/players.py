"""The generator and, where a loss asks for it, its discriminator: one step of both."""

import numpy as np
import torch

from sa_upscale import config, losses
from sa_upscale.losses import Shown
from sa_upscale.train import networks
from sa_upscale.train.learner import Learner
from sa_upscale.train.ranks import Place
from sa_upscale.train.schedule import learning_rate
from sa_upscale.train.terms import Terms


class Players:
    """What learns in one stage.  Raises `UpscaleError` for networks, losses or a start that do not fit.

    `notices` says what the losses take instead of what they wanted.
    """

    def __init__(self, stage: config.Stage, model: config.Model, place: Place):
        self._options, self._place = stage.train, place
        options, device = stage.train, place.device
        precision = networks.precision_of(device, options.precision)
        self.autocast = networks.autocast(device, precision)
        self.terms = Terms(stage.losses).to(device)
        generator = networks.generator(model, device)
        self.average = networks.copied(generator)
        settings = {"scaled": precision == "fp16", "compiled": options.compile}
        how = {"optimizer": options.optimizer, "betas": options.betas, "weight_decay": options.weight_decay}
        self._generator = Learner(generator, place, clip=options.clip, **how, **settings)
        self._discriminator, self._lead, judge = None, 0, None
        if "discriminator" in self.terms.needs:
            judge = networks.discriminator(stage.discriminator, stage.data.patch, device)
            how = {
                "optimizer": stage.discriminator.optimizer,
                "betas": stage.discriminator.betas or options.betas,
                "weight_decay": stage.discriminator.weight_decay,
            }
            self._discriminator = Learner(networks.Judge(judge), place, **how, **settings)
            self._lead = stage.discriminator.lead
            self._discriminator_rate = stage.discriminator.rate
        self._vgg, self.notices = self.terms.prepare(options.vgg_weights, device, judge)
        self._vgg_layers = losses.vgg_layers(self.terms.losses)

    @property
    def generator(self) -> torch.nn.Module:
        return self._generator.network

    def offered(
        self, lr: torch.Tensor, hr: torch.Tensor, sr: torch.Tensor, shift: tuple[int, int] = (0, 0)
    ) -> losses.Step:
        """A batch with all that the losses may ask for."""
        judge = self._discriminator and self._discriminator.network.discriminator
        known = {"ema": self.average, "discriminator": judge, "vgg": self._vgg, "vgg_layers": self._vgg_layers}
        return losses.Step(lr, hr, sr, **known, shift=shift)

    def learn(self, lr: torch.Tensor, hr: torch.Tensor, step: int) -> tuple[torch.Tensor, list[str]]:
        """One step of the generator and one of the discriminator on a batch.

        Returns the terms' values, `(terms,)`, and after them the discriminator's loss and its mean logits of real and
        made pictures if there is one; and what the losses found, in words.  When a value is not finite, nobody learns.
        """
        parts = list(zip(lr.chunk(self._options.accumulate), hr.chunk(self._options.accumulate), strict=True))
        leading = step <= self._lead
        shift = self._shift(step)
        values, shown, found = self._generator_part(parts, leading, shift)
        (lost,) = self._place.any(not torch.isfinite(values).all().item())
        if lost:
            return values, found
        if not leading:
            self._generator.update(learning_rate(self._options, step))
            networks.follow(self.average, self.generator, self._options.ema)
        if self._discriminator is not None:
            verdict = self._discriminator_part(shown)
            self._discriminator.update(learning_rate(self._options, step, self._discriminator_rate))
            values = torch.cat([values, verdict])
        return values, found

    def measured(self) -> list[str]:
        """The names of the values of `learn`."""
        judged = ["discriminator", "real", "fake"] if self._discriminator is not None else []
        return [*self.terms.labels, *judged]

    def evaluating(self, on: bool) -> None:
        """While it is on, what looks at the discriminator leaves its running statistics alone."""
        if self._discriminator is not None:
            self._discriminator.network.train(not on)

    def state_dict(self) -> dict:
        """Everything that the next step depends on, but for the data."""
        return {
            "generator": self._generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self._discriminator and self._discriminator.state_dict(),
            "terms": self.terms.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self._generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.terms.load_state_dict(state["terms"])
        if self._discriminator is not None:
            self._discriminator.load_state_dict(state["discriminator"])

    def _generator_part(self, parts, leading: bool, shift: tuple[int, int]) -> tuple[torch.Tensor, list, list[str]]:
        """Gradients for the generator, unless the discriminator is `leading`.

        Returns the mean values, what the discriminator is to be shown of the real and the made, and what was found.
        """
        values, shown, found = 0.0, [], []
        for index, (lr, hr) in enumerate(parts):
            last = index == len(parts) - 1
            with torch.set_grad_enabled(not leading), self._generator.part(last):
                with self.autocast():
                    sr = self._generator.forward(lr)
                    step = self.offered(lr, hr, sr, shift)
                    found += self.terms.calibrate(step)
                    terms = self.terms(step)
                    total = self.terms.total(terms)
                    if self._discriminator is not None:
                        shown.append([_detached(step.shown(of)) for of in ("hr", "sr")])
                if not leading:
                    self._generator.backward(total / len(parts))
            values = values + terms.detach() / len(parts)
        return values, shown, found

    def _discriminator_part(self, parts) -> torch.Tensor:
        """Gradients for the discriminator from `(real, fake)`; its loss and mean logits, `(3,)`."""
        values = 0.0
        for index, (real, fake) in enumerate(parts):
            last = index == len(parts) - 1
            with self._discriminator.part(last):
                with self.autocast():
                    real_logits, fake_logits = self._discriminator.forward(real, fake)
                    loss = self.terms.discriminator_loss(real_logits, fake_logits)
                self._discriminator.backward(loss / len(parts))
            means = [loss.detach().float(), real_logits.detach().float().mean(), fake_logits.detach().float().mean()]
            values = values + torch.stack(means) / len(parts)
        return values

    def _shift(self, step: int) -> tuple[int, int]:
        """Of the step alone, so that ranks and the parts of a batch agree, and a resumed run goes on alike."""
        drawn = np.random.default_rng((self._options.seed, step)).integers(self._options.shift + 1, size=2)
        return int(drawn[0]), int(drawn[1])


def _detached(x: Shown) -> Shown:
    return {key: part.detach() for key, part in x.items()} if isinstance(x, dict) else x.detach()
