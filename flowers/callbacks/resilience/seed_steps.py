"""Random numbers of a training step."""

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class SeedSteps(Callback):
    """Seeds torch before every training step, so that dropout is the same in a resumed run.

    A step's seed is computed from the seed of ``seed_everything``, the batch number and the rank.
    """

    _seed = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the seed of ``seed_everything``."""
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        """Seed torch's generators."""
        key = [self._seed, trainer.fit_loop.total_batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
