"""The Lightning module of a Deep Sub-Ensemble, whose members take turns."""

from __future__ import annotations

import torch
from torch import Tensor

from emu_perception.networks.ensembles import DeepSubEnsemble
from emu_perception.networks.raw_outputs import RawOutputs
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.targets import Outputs, pool_members


class SubEnsembleModule(SupervisedModule):
    """Trains a Deep Sub-Ensemble: step i trains the decoders of member i mod M.

    It is validated as it predicts: by all members together.
    """

    network: DeepSubEnsemble
    leaves_parameters_unused = True  # those of the other members

    def run_network(self, image: Tensor) -> RawOutputs:
        if not self.training:
            return self.network(image)
        step = self.trainer.fit_loop.total_batch_idx
        return self.network(image, member=step % len(self.network.members))

    def activate(self, raw: RawOutputs, size: tuple[int, int]) -> Outputs:
        if self.training:
            return super().activate(raw, size)
        pooled = pool_members(raw, size, information=False)
        logits = None
        if pooled.probabilities is not None:
            logits = torch.log(pooled.probabilities.clamp_min(1e-30))
        return Outputs(logits, pooled.mean, pooled.variance)
