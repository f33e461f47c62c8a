"""Runs every command of the benchmark on a few images."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import mobilenet_v2

from flowers import runtime
from flowers.__main__ import main
from flowers.cli import training

SCRIPTS = Path(__file__).parents[2] / "scripts"
# The libraries that are measured warn about this machine.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
SMALL = "--data.image_size 32 --data.crop_size 32 --model.widths [8] --trainer.accelerator cpu"


@pytest.fixture
def benchmark(monkeypatch, capfd):
    """Return a function that runs a command and returns what it prints."""
    monkeypatch.syspath_prepend(SCRIPTS)  # the child processes inherit it
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS.parent), prepend=os.pathsep)
    monkeypatch.setattr(runtime, "prepare", lambda: None)  # it sets threads, for other tests too
    script = import_module("benchmark")
    start = script.python

    def python(*arguments: object, **options: Any) -> str:
        """Run a command of the package in this process: another one takes seconds to start."""
        words = [*map(str, arguments)]
        if words[:2] == ["-m", "flowers"]:
            assert main(words[2:]) in options.get("statuses", (0,))
        elif words[0] == script.__file__ and "--trainer.devices 1" in words[-3]:
            script.main(words[1:])
        else:
            return start(*arguments, **options)
        return capfd.readouterr().out

    monkeypatch.setattr(script, "python", python)
    monkeypatch.setattr(script, "in_child", lambda function, *arguments: function(*arguments))

    def run(*arguments: object) -> str:
        script.main([*map(str, arguments)])
        return capfd.readouterr().out

    return run


def test_commands_that_read_a_folder(benchmark, photos):
    root = photos(cat=30, dog=30)
    output = benchmark("input_pipeline", "--root", root, "--rounds", 2)
    assert output.count("flowers / torchvision: ") == 2
    assert "first audit / second audit: " in benchmark("audit", "--root", root)
    output = benchmark("duplicates", "--root", root, "--images", 2)
    assert "\nmirrored                   2 of 2, " in output


def test_commands_that_start_processes_or_make_images(benchmark, photos):
    output = benchmark("data_module", "--images", 40, "--classes", 2)
    assert "first start / second start: " in output
    options = f"--data.root {photos(cat=30, dog=30)} {SMALL}"
    output = benchmark("scaling", "--rounds", 1, "--epochs", 1, "--fit_options", options)
    assert "two processes / one process: " in output


def test_commands_that_train_and_predict(benchmark, photos, tmp_path):
    root = photos(cat=30, dog=30)
    options = f"--data.root {root} {SMALL}"
    assert "of it waiting for data" in benchmark("epoch", "--fit_options", options, "--epochs", 1)
    options += " --trainer.max_epochs 1 --trainer.log_every_n_steps 1"
    short = ["--fit_options", options, "--epochs", 1, "--rounds", 1]
    output = benchmark("tutorial", "--root", root, *short)
    assert "tutorial / flowers: " in output
    assert "flowers: val/acc 0." in output
    training.main(["fit", *options.split()])
    run = tmp_path / "lightning_logs" / "version_0"
    assert "flowers / loop: " in benchmark("predict", run, "--root", root, "--rounds", 1)


def test_commands_on_networks(benchmark, photos, tmp_path):
    output = benchmark("networks", "[squeezenet1_1]", "--batch_size", 1, "--rounds", 1)
    assert "squeezenet1_1: 224 pixels, 0.7 M parameters, 0.26 G multiply-adds\n" in output
    torch.save(mobilenet_v2().state_dict(), tmp_path / "weights.pth")
    options = ["--weights", tmp_path / "weights.pth", "--image_size", 32]
    output = benchmark("probe", "--root", photos(cat=30, dog=30), *options)
    assert output.count("val/acc ") == 2
    assert "flowers / torchvision: " in output


# Takes a folder and options as timm's train.py does, and reads the photos and the weights.
TIMM_SCRIPT = """
import pathlib, sys, timm, torchvision, yaml
folder, _, config = sys.argv[1:]
options = yaml.safe_load(pathlib.Path(config).read_text())
photos = torchvision.datasets.ImageFolder(pathlib.Path(folder, options["val_split"]))
timm.create_model(options["model"], pretrained=True, **options["model_kwargs"])
folder = pathlib.Path(options["output"], options["experiment"])
folder.mkdir(parents=True)
folder.joinpath("summary.csv").write_text(f"epoch,eval_top1\\n0,10\\n1,{len(photos)}\\n")
"""


def test_fine_tuning_beside_timm(benchmark, photos, tmp_path):
    pytest.importorskip("timm")
    root = photos(cat=30, dog=30)
    (tmp_path / "train.py").write_text(TIMM_SCRIPT)
    options = ["--image_size", 32, "--epochs", 2, "--timm_script", tmp_path / "train.py"]
    output = benchmark("fine_tune", "--root", root, *options)
    assert "timm: val/acc 0.0600, " in output  # the number of validation photos
    assert "flowers: val/acc " in output
    assert "flowers / timm: " in output
