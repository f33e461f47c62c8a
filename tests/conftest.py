"""The tests generate their own data, write into temporary folders and use no network."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pkgutil
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Packages that take seconds to import (torch, Lightning, flowers) are imported where they are used:
# the main process of pytest-xdist loads this file before it starts the workers, and runs no test.
import pytest

if TYPE_CHECKING:
    from flowers.cli.training import FlowersCLI

# With small networks and batches, threads wait for each other longer than they compute. Torch reads
# the variable when it is imported, also in the processes that tests start. Without the variable,
# Lightning uses all cores.
os.environ["OMP_NUM_THREADS"] = "1"

gc.disable()  # during imports, as in runtime.prepare

LONGEST = {"test_benchmark", "test_kill_soak", "test_two_machines", "test_notebook"}
LONGEST |= {"test_runtime", "test_stop_on_signal", "test_exporters"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def garbage_collection() -> None:
    """Enable the garbage collector after all tests are imported."""
    gc.freeze()
    gc.enable()


# The functions that make the figures of trainings and reports.
FIGURES = (
    "flowers.callbacks.tensorboard.confusion_figure",
    "flowers.callbacks.tensorboard.gallery_figure",
    "flowers.evaluation.reports.report.report_figures",
)


@pytest.fixture(scope="session", autouse=True)
def drawing_functions() -> Iterator[dict[str, Any]]:
    """Replace figures, the slowest part of a small run, by empty ones, and return the functions.

    The fixture ``figures`` restores them.
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
    """Make real figures, for tests that read them."""
    for name, function in drawing_functions.items():
        monkeypatch.setattr(name, function)


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    """Return a context whose processes start with the package imported, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowers.cli.training"])
    return context


def _run_rank(rank: int, port: int, folder: Path, words: list[str]) -> None:
    """Run a command as torchrun's process ``rank`` of two; the first writes its metrics."""
    from flowers.cli import training

    os.chdir(folder)
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost", "GROUP_RANK": "0"}
    os.environ |= {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    with Path(f"printed_{rank}.txt").open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    metrics = training.main(words).trainer.callback_metrics
    sys.stdout.flush()
    if rank == 0:
        Path("metrics.json").write_text(json.dumps({k: float(v) for k, v in metrics.items()}))


@pytest.fixture
def run_in_two(
    forkserver: ForkServerContext, tmp_path: Path
) -> Callable[..., tuple[dict[str, float], str]]:
    """Return a function that runs a command in two processes, as torchrun does.

    The returned function returns the metrics and the printed text of the first process.
    """

    def run(words: list[str], *, status: int = 0) -> tuple[dict[str, float], str]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        folder = tmp_path.resolve()
        processes = []
        for rank in range(2):
            args = (rank, port, folder, words)
            processes.append(forkserver.Process(target=_run_rank, args=args))
            processes[-1].start()
        for process in processes:
            process.join(120)
            process.kill()  # a process waits half an hour for one that failed
        printed = (folder / "printed_0.txt").read_text()
        assert [process.exitcode for process in processes] == [status, status], printed
        if status != 0:
            return {}, printed
        return json.loads((folder / "metrics.json").read_text()), printed

    return run


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
    """The run folder of a small network, trained for an epoch; tests that write into it copy it."""
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


# The options of a small and fast training of a CNN. An epoch has three steps.
SMALL_OPTIONS = [
    *("--model", "CNNTask", "--model.lr", "0.03", "--model.widths", "[8,16]"),
    *("--model.ema_decay", "0.9", "--model.dropout", "0.2"),
    *("--data.image_size", "32", "--data.crop_size", "24", "--data.batch_size", "32"),
    *("--data.augment.erase_prob", "0.2"),
    *("--trainer.max_epochs", "4", "--trainer.log_every_n_steps", "1"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1"),
]


@pytest.fixture(scope="session")
def small_options() -> list[str]:
    """Return the options of ``fit_small``."""
    return SMALL_OPTIONS


@pytest.fixture(scope="session")
def fit_small() -> Callable[..., FlowersCLI]:
    """Return a function that trains a small network: ``fit_small(folder, root, *options)``.

    Args of the function:
        folder: Folder of the ``lightning_logs``.
        root: Folder of the images.
        options: Further options of ``fit``, which override ``SMALL_OPTIONS``.
    """
    from flowers.cli import training

    def fit(folder: Path, root: Path, *options: str) -> FlowersCLI:
        folders = ["--data.root", str(root), "--trainer.default_root_dir", str(folder)]
        return training.main(["fit", *SMALL_OPTIONS, *folders, *options])

    return fit


@pytest.fixture(scope="session")
def load_last() -> Callable[[Path], dict[str, Any]]:
    """Return a function that loads the last checkpoint of a run folder."""
    import torch

    def load(run: Path) -> dict[str, Any]:
        return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)

    return load


@pytest.fixture(scope="session")
def finished_run(
    fit_small: Callable[..., FlowersCLI],
    synthetic: Path,
    tmp_path_factory: pytest.TempPathFactory,
    cache_home: Path,
) -> Path:
    """Return the run folder of a small network, trained for four epochs."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        fit_small(folder, synthetic)
    return folder / "lightning_logs" / "version_0"


@pytest.fixture(scope="session")
def stored_one_epoch_run(
    fit_small: Callable[..., FlowersCLI],
    synthetic: Path,
    tmp_path_factory: pytest.TempPathFactory,
    cache_home: Path,
) -> Path:
    """Return the run folder of a small network, trained for one epoch."""
    folder = tmp_path_factory.mktemp("one_epoch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        fit_small(folder, synthetic, "--trainer.max_epochs", "1")
    return folder / "lightning_logs" / "version_0"


@pytest.fixture
def one_epoch_run(stored_one_epoch_run: Path, tmp_path: Path) -> Path:
    """Return a copy of a run folder of one epoch, which a test can resume."""
    return shutil.copytree(stored_one_epoch_run, tmp_path / "lightning_logs" / "version_0")


# The tasks, each with the options of a small network.
TASKS = {
    "CNNTask": ["--model.widths", "[8,16]"],
    "TransferTask": ["--model.arch", "mobilenet_v3_small", "--model.weights", "none"],
}


@pytest.fixture(scope="session", params=[*TASKS])
def task_checkpoint(
    request: pytest.FixtureRequest,
    synthetic: Path,
    tmp_path_factory: pytest.TempPathFactory,
    cache_home: Path,
) -> Path:
    """Return the best checkpoint of two epochs, for each of the tasks."""
    from flowers.cli import training

    folder = tmp_path_factory.mktemp(request.param)
    words = ["fit", "--model", request.param, *TASKS[request.param]]
    words += ["--data.root", str(synthetic), "--data.image_size", "40", "--data.crop_size", "32"]
    words += ["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"]
    words += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        training.main(words)
    return folder / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"


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
            raise ConnectionError(f"tests use no network, got a connection to {address}")
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


# The smallest network of every family of torchvision, a small one of each common timm family, and
# the side of its images in pixels.
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
    """A classifier of torchvision or timm, and an image size that it takes, in pixels."""
    return request.param
