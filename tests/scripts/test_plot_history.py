from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from flowers import evaluation

SCRIPT = Path(__file__).parents[2] / "scripts" / "plot_history.py"


@pytest.fixture
def plot(monkeypatch):
    """Return a function that runs the script with arguments."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_the_curves_of_a_run_are_plotted_and_no_file_is_overwritten(
    plot, tmp_path, monkeypatch, capsys
):
    def history_figure(*args, **options):
        (tmp_path / "taken.pdf").write_text("mine")
        return evaluation.figures.history_figure(*args, **options)

    with SummaryWriter(str(tmp_path)) as writer:
        for epoch in range(3):
            writer.add_tensor("epoch", torch.tensor(epoch), epoch)
            writer.add_scalar("val/acc", epoch / 4, epoch)
    plot(tmp_path)
    with Image.open(tmp_path / "history.png") as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(1_000_000)) > 2
    (tmp_path / "checkpoints").mkdir()
    torch.save({"epoch": 1}, tmp_path / "checkpoints" / "best.ckpt")
    plot(tmp_path, "--out", tmp_path / "marked.svg")
    assert "<!-- best.ckpt (after 2 epochs) -->" in (tmp_path / "marked.svg").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "history_figure", history_figure)
        plot(tmp_path, "--out", tmp_path / "taken.pdf")
    assert (tmp_path / "taken.pdf").read_text() == "mine"
    assert (tmp_path / "taken-2.pdf").read_bytes().startswith(b"%PDF")
    for arguments, message in (
        ([tmp_path], "the file exists"),
        ([tmp_path / "nowhere"], "expected a run folder"),
        ([tmp_path, "--out", tmp_path / "x.doc"], "ends with .png, .pdf or .svg"),
    ):
        with pytest.raises(SystemExit, match="2"):
            plot(*arguments)
        assert message in capsys.readouterr().err
