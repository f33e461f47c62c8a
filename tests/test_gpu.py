"""What only a GPU can tell; run with -m gpu."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowers.cli import training
from flowers.data import BatchAugmentation
from flowers.data.augment import uniform_draws

CONFIGS = Path(__file__).parent.parent / "configs"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_gpu_configuration_trains_and_tests(synthetic):
    args = [
        f"--config={CONFIGS / 'cnn.yaml'}",
        f"--config={CONFIGS / 'gpu.yaml'}",
        f"--data.root={synthetic}",
    ]
    run = training.main(["fit", *args, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"])
    assert run.model.device.type == "cuda"
    best = run.trainer.checkpoint_callback.best_model_path
    [metrics] = [training.main(["test", "--ckpt_path", best]).trainer.callback_metrics]
    assert torch.isfinite(metrics["test/loss"])


def test_the_gpu_augments_as_the_cpu():
    indices = torch.arange(1000)
    on_cpu = uniform_draws(indices, seed=1, epoch=2, num=6)
    assert torch.equal(uniform_draws(indices.cuda(), seed=1, epoch=2, num=6).cpu(), on_cpu)
    images = torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8)
    augment = BatchAugmentation(erase_prob=0.5)
    out = augment(images, indices=indices[:8], size=32, seed=1, epoch=2)
    on_gpu = augment(images.cuda(), indices=indices[:8].cuda(), size=32, seed=1, epoch=2)
    assert torch.allclose(on_gpu.cpu(), out, atol=2e-3)
