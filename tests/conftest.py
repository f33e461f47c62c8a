"""The tests draw their own data, write into temporary folders and reach no network."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import socket
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

# pytest-xdist's main process reads this file before it starts the others, and runs no test: what
# takes seconds to import (torch, Lightning, this package) is imported where it is used.
import pytest

# Small networks and batches: threads would wait for each other longer than they compute. The
# variable is read when torch is imported, by the processes that tests start, and by Lightning,
# which without it takes all cores wherever processes could be started.
os.environ["OMP_NUM_THREADS"] = "1"


# Where trainings and tests make their figures.
FIGURES = (
    "flowers.callbacks.tensorboard.confusion_figure",
    "flowers.callbacks.tensorboard.gallery_figure",
    "flowers.callbacks.write_report.report_figures",
)


@pytest.fixture(scope="session", autouse=True)
def drawing_functions() -> Iterator[dict[str, Any]]:
    """Replace figures, the slowest part of a small run, by empty ones; return the functions.

    ``figures`` brings them back.
    """
    from matplotlib.figure import Figure

    def empty(*args: object, **options: object) -> Figure:
        return Figure(figsize=(1, 1))

    functions = {name: pkgutil.resolve_name(name) for name in FIGURES}
    with pytest.MonkeyPatch.context() as patch:
        for name in FIGURES[:2]:
            patch.setattr(name, empty)
        patch.setattr(FIGURES[2], lambda report: {"Empty": empty()})
        yield functions


@pytest.fixture
def figures(drawing_functions: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures as they are, where a test reads them."""
    for name, function in drawing_functions.items():
        monkeypatch.setattr(name, function)


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    """What starts processes that have already imported the package: importing it takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowers.cli.training"])
    return context


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty synthetic flowers of each of five classes."""
    from flowers.data import generate_flowers

    root = tmp_path_factory.mktemp("data") / "synthetic_flowers"
    generate_flowers(root, per_class=30, image_size=48)
    return root


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trained_run(
    synthetic: Path, tmp_path_factory: pytest.TempPathFactory, cache_home: Path
) -> Path:
    """The run folder of a small network, trained for an epoch. Copy it to write into it."""
    from flowers.cli import training

    folder = tmp_path_factory.mktemp("trained")
    words = ["fit", "--model", "CNNTask", "--model.widths", "[8,16]", "--trainer.max_epochs", "1"]
    words += ["--data.root", str(synthetic), "--data.image_size", "40", "--data.crop_size", "32"]
    words += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.log_every_n_steps", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        training.main(words)
    return folder / "lightning_logs" / "version_0"


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_home: Path) -> None:
    """Run each test in its own folder, with a cache that the tests share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn a connection to anything but this machine into a failure."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionError(f"the tests reach no network, asked for {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def same_seed() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a folder of plain images: ``photos(cat=12, dog=12)``."""
    import numpy as np
    from PIL import Image

    def make(**counts: int) -> Path:
        root = tmp_path / "photos"
        for label, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([label, number]).integers(
                    0, 256, (24, 32, 3), dtype=np.uint8
                )
                Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
        return root

    return make


# A network of every family of torchvision's and of timm's common ones, the smallest where there are
# several, and the side of its images.
FAST = {"mobilenet_v2": 64, "mobilenet_v3_small": 64, "resnet18": 64, "squeezenet1_1": 64}
FAST |= {"timm/tf_efficientnet_lite0": 64}
SLOW = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "regnet_y_400mf": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "swin_t": 64,
    "vgg11": 64,
    "vgg11_bn": 64,
    "vit_b_16": 224,
    "timm/convnext_atto": 64,
    "timm/densenet121": 64,
    "timm/mixer_s32_224": 224,
    "timm/mobilenetv3_small_050": 64,
    "timm/regnetx_002": 64,
    "timm/resnet18": 64,
    "timm/swin_tiny_patch4_window7_224": 224,
    "timm/vit_tiny_patch16_224": 224,
}
FAMILIES = [
    *(pytest.param((arch, size), id=arch) for arch, size in FAST.items()),
    *(pytest.param((arch, size), id=arch, marks=pytest.mark.slow) for arch, size in SLOW.items()),
]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, int]:
    """A classifier of torchvision's and a side of images that it takes, in pixels."""
    return request.param
