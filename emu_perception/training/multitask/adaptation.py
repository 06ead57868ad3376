"""Unsupervised domain adaptation: predictions on unlabelled images shall look like the others'."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from emu_perception.data import Batch
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.discriminator import Discriminator
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.tasks import TASKS
from emu_perception.training.config import TrainConfig
from emu_perception.training.multitask.module import MultiTaskModule


class AdversarialModule(MultiTaskModule):
    """Trains on the labels of a source domain and adapts to unlabelled images of a target domain.

    For each task and each scale that is trained, a discriminator learns to tell the two domains'
    predictions apart, and the network to make those of the target look like the source's (ADVENT,
    Vu et al., CVPR 2019, arXiv 1811.12833, for each task as in DenseMTL, section 3.4). Both losses
    are means over tasks and scales. Batches hold images of both domains, in the proportions of
    `data.train`; as in the authors' code each domain passes through the network on its own, so
    that batch-norm normalises it by its own statistics.

    One optimiser trains all: the discriminators see the predictions detached, and pass the
    network's gradient on while their own parameters get none. Only the network's gradient is
    clipped.
    """

    leaves_parameters_unused = True  # the discriminators, by a batch of one domain

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        settings = config.multitask.adaptation
        assert settings is not None
        self.settings = settings
        channels = self.network.channels
        if "depth" in channels:
            channels = channels | {"depth": 1}
        with torch.no_grad():
            training = self.network.training
            scales = self.network.eval().dense(torch.zeros(1, 3, 64, 64)).scales
            self.network.train(training)
        self.discriminators = nn.ModuleList(
            nn.ModuleDict({task: Discriminator(channels[task]) for task in maps}) for maps in scales
        )

        self.judges = sum(map(len, scales))

    def dense(self, batch: Batch) -> DenseOutputs:
        target = batch["target"]
        domains = [domain.nonzero()[:, 0] for domain in (~target, target)]
        # One image alone has no variance over the batch where features are one by one.
        if min(map(len, domains)) < 2:
            return super().dense(batch)
        image = self.normalization(batch["image"])
        parts = [self.network.dense(image[domain]) for domain in domains]
        back = torch.cat(domains).argsort()

        def together(*maps: Tensor) -> Tensor:
            return torch.cat(maps)[back]

        scales = tuple(
            {task: together(*(maps[task] for maps in both)) for task in both[0]}
            for both in zip(*(part.scales for part in parts), strict=True)
        )
        features = {
            task: together(*(part.features[task] for part in parts)) for task in parts[0].features
        }
        return DenseOutputs(scales, features)

    def judged(self, task: str, raw: Tensor) -> Tensor:
        """A raw map as discriminators see it, all values of the order of 1 at most.

        Class scores as the information of each class, −p ln p / ln C (ADVENT, Eq. 6); depth on a
        logarithmic scale of the model's range; normals as unit vectors.
        """
        raw = raw.float()
        if task == "depth":
            low, high = self.spec.depth_range
            metres = self.network.unit.decode(raw[:, :1]).clamp(low, high)
            return torch.log(metres / low) / math.log(high / low)
        if TASKS[task].kind == "direction":
            return F.normalize(raw, dim=1)
        return -F.softmax(raw, 1) * F.log_softmax(raw, 1) / math.log(raw.shape[1])

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        target = batch["target"]
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        found: dict[str, Tensor] = {}
        if target.all() or not target.any():
            return found
        for maps, discriminators in zip(dense.scales, self.discriminators, strict=True):
            for task, discriminator in discriminators.items():  # type: ignore[operator]
                seen = self.judged(task, self.network.full_size(maps[task], size))
                frozen = {name: p.detach() for name, p in discriminator.named_parameters()}
                deceived = functional_call(discriminator, frozen, (seen[target],))
                learnt = [_verdict(discriminator(seen[d].detach()), d is target)
                          for d in (target, ~target)]  # fmt: skip
                for name, term in (
                    (f"adversarial_{task}", self.settings.weight * _verdict(deceived, False)),
                    (f"discriminator_{task}", learnt[0] + learnt[1]),
                ):
                    found[name] = found.get(name, 0.0) + term / self.judges
        return found

    def optimizer_groups(self) -> list[dict[str, Any]]:
        encoder, heads = super().optimizer_groups()
        judges = list(self.discriminators.parameters())
        inside = {id(p) for p in judges}
        heads["params"] = [p for p in heads["params"] if id(p) not in inside]
        rate = self.settings.learning_rate
        return [encoder, heads, {"params": judges, "lr": rate, "betas": (0.9, 0.99)}]

    def rate_factors(self, steps: int) -> list[Callable[[int], float]]:
        def falling(step: int) -> float:
            return max(0.0, 1 - step / steps) ** 0.9

        *factors, _ = super().rate_factors(steps)
        return [*factors, falling]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """The discriminators' gradients neither count in the norm nor are clipped."""
        if gradient_clip_val is not None:
            clipped = [p for group in optimizer.param_groups[:-1] for p in group["params"]]
            nn.utils.clip_grad_norm_(clipped, gradient_clip_val)


def _verdict(logits: Tensor, target: bool) -> Tensor:
    """Cross-entropy of a discriminator's logits with a domain."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(target)))
