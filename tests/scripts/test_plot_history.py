from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

SCRIPT = Path(__file__).parents[2] / "scripts" / "plot_history.py"


def plot(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=False)


def test_the_curves_of_a_run_become_a_picture_that_is_never_overwritten(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for epoch in range(3):
            writer.add_scalar("epoch", epoch, epoch)
            writer.add_scalar("val/acc", epoch / 4, epoch)
    assert plot(tmp_path).returncode == 0
    with Image.open(tmp_path / "history.png") as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(1_000_000)) > 2
    (tmp_path / "checkpoints").mkdir()
    torch.save({"epoch": 1}, tmp_path / "checkpoints" / "best.ckpt")
    assert plot(tmp_path, "--out", tmp_path / "marked.svg").returncode == 0
    assert "<!-- best.ckpt (epoch 1) -->" in (tmp_path / "marked.svg").read_text()
    again = plot(tmp_path)
    assert again.returncode == 2
    assert "it exists" in again.stderr
    nothing = plot(tmp_path / "nowhere")
    assert nothing.returncode == 2
    assert "expected a run folder" in nothing.stderr
