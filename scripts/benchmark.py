"""Measure the speed, the memory and the duplicate search of the package.

python scripts/benchmark.py COMMAND --help

scripts/README.md lists the commands with their results.
"""

# ruff: noqa: PLC0415 (a child process imports only what it measures)

from __future__ import annotations

import csv
import multiprocessing
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse import auto_cli
from PIL import Image, ImageEnhance, ImageOps

from flowers import startup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.utils.data import DataLoader

    from flowers.data import FlowersDataModule

ROOT = Path(__file__).parents[1]


def compare(
    candidates: dict[str, Callable[[], float]], *, unit: str, rounds: int, warm_up: bool = False
) -> None:
    """Measure candidates in turn, so that a change of the machine's load affects all of them.

    Prints the median and the range of each, and the ratio of the first to every other one within
    a round.

    Args:
        candidates: Functions that return one measurement each.
        unit: Unit of the measurements.
        rounds: Measurements of each candidate.
        warm_up: Whether to run each candidate once before it is measured.
    """
    values: dict[str, list[float]] = {name: [] for name in candidates}
    if warm_up:
        for candidate in candidates.values():
            candidate()
    for _ in range(rounds):
        for name, candidate in candidates.items():
            values[name].append(candidate())
    first, *others = candidates
    for name, measurements in values.items():
        print(f"  {name:<28} {spread(measurements)} {unit}")
    for name in others:
        ratios = np.divide(values[first], values[name]).tolist()
        print(f"  {first} / {name}: {spread(ratios)} times", flush=True)


def spread(values: list[float]) -> str:
    """Return the median and the range, with two decimals below 100."""
    digits = 2 if max(values) < 100 else 0
    low, middle, high = (
        f"{value:,.{digits}f}" for value in (min(values), median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def images_per_second(run: Callable[[], int]) -> float:
    """Measure a function that returns the number of images it processed."""
    start = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - start)


def seconds(run: Callable[[], object]) -> float:
    """Measure the duration of a function."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def python(*args: object, allowed: tuple[int, ...] = (0,), **variables: str) -> str:
    """Run Python with arguments and environment variables and return what it prints."""
    command = [sys.executable, *map(str, args)]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, text=True, env=os.environ | variables
    )
    if done.returncode not in allowed:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
    return done.stdout


def in_child(function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
    """Call a function in a new process and return its result."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *args).result()


def print_peak_memory() -> None:
    """Print the peak memory of the largest child process, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux
    print(f"  peak memory of a process: {peak:.2f} GiB")


def input_pipeline(root: str = "data/flower_photos", *, rounds: int = 5) -> None:
    """Compare reading and augmenting batches with torchvision's ImageFolder and DataLoader.

    Args:
        root: Folder root/<class>/<image>; a missing .../drawn_flowers is generated.
        rounds: Measurements of each candidate, at least 1.
    """
    startup.prepare()
    from torchvision.transforms import v2

    from flowers.data import FlowersDataModule

    data = FlowersDataModule(root)
    data.setup("fit")
    augmentation = v2.Compose(
        [
            v2.RandomResizedCrop(160, (0.35, 1)),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15),
            v2.ColorJitter(0.3, 0.3, 0.3),
        ]
    )
    steps = {
        "Reading": (_read, v2.Resize((192, 192))),
        "Reading and augmenting": (_read_and_augment, augmentation),
    }
    for name, (read, transform) in steps.items():
        plain = partial(_torchvision_speed, root, transform, data.batch_size)
        workers = max((0, 1, 2, 4), key=plain)
        print(f"{name}; torchvision is fastest with {workers} workers:")
        candidates = {
            "flowers": partial(images_per_second, partial(read, data)),
            "torchvision": partial(plain, workers),
        }
        compare(candidates, unit="images/s", rounds=rounds)


def _read(data: FlowersDataModule) -> int:
    import torch

    count = 0
    for batch in data.train_dataloader():
        images = batch.images.contiguous(memory_format=torch.channels_last)
        count += len(images)
    return count


def _read_and_augment(data: FlowersDataModule) -> int:
    count = 0
    loop = SimpleNamespace(total_batch_idx=0)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        training=True, current_epoch=0, max_epochs=1, fit_loop=loop
    )
    for loop.total_batch_idx, batch in enumerate(data.train_dataloader()):
        count += len(data.on_after_batch_transfer(batch, 0).images)
    data.trainer = None
    return count


def _torchvision_speed(
    root: str, transform: Callable[..., Any], batch_size: int, num_workers: int
) -> float:
    """Return the images per second of a second pass; the workers end with it."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    loader = DataLoader(
        ImageFolder(root, v2.Compose([transform, *to_float])),
        batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    _count(loader)
    return images_per_second(partial(_count, loader))


def _count(batches: DataLoader[Any]) -> int:
    return sum(len(images) for images, _ in batches)


def epoch(*, fit_options: str = "--config configs/cnn.yaml", epochs: int = 3) -> None:
    """Measure a training epoch, and the fraction of it that waits for data, by Lightning's profiler.

    Args:
        fit_options: Options of `python -m flowers fit`, as one string.
        epochs: Epochs to train, at least 1.
    """
    startup.prepare()
    from flowers.cli import training

    words = f"fit {fit_options} --trainer.max_epochs {epochs} --trainer.limit_val_batches 0"
    words += " --trainer.profiler simple --trainer.logger false"
    words += " --trainer.enable_checkpointing false"
    run = training.main(shlex.split(words))
    durations = run.trainer.profiler.recorded_durations
    data_seconds = 0.0
    for action, values in durations.items():
        if action.endswith(("train_dataloader_next", "FlowersDataModule.on_after_batch_transfer")):
            data_seconds += sum(values)
    epoch_seconds = durations["run_training_epoch"]
    num_images = run.trainer.num_training_batches * run.datamodule.batch_size
    print(f"epoch: {spread(epoch_seconds)} s, {num_images / median(epoch_seconds):.0f} images/s")
    print(f"waiting for data: {data_seconds / sum(epoch_seconds):.1%}")


def probe(
    root: str = "data/flower_photos",
    *,
    weights: str = "DEFAULT",
    image_size: int = 224,
    rounds: int = 1,
) -> None:
    """Compare a linear probe, from an empty cache, with one of torchvision and scikit-learn.

    Args:
        root: Folder root/<class>/<image>; a missing .../drawn_flowers is generated.
        weights: Weights of MobileNetV2: a name of torchvision's or a .pth file.
        image_size: Side of the images, in pixels.
        rounds: Measurements of each candidate, at least 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder, "lightning_logs")
        fit = f"-m flowers fit --config {ROOT}/configs/probe.yaml --model.weights {weights}"
        fit += f" --data.root {root} --data.image_size {image_size} --data.crop_size {image_size}"
        fit += f" --data.cache_dir {folder}/cache --trainer.default_root_dir {folder}"

        def flowers() -> float:
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
            shutil.rmtree(runs, ignore_errors=True)
            start = time.perf_counter()
            lines = python(*shlex.split(fit)).splitlines()
            duration = time.perf_counter() - start
            print(*(line for line in lines if line.strip().startswith("val/acc ")))
            return duration

        def plain() -> float:
            manifest = runs / "version_0" / "manifest.csv"
            return seconds(partial(in_child, _plain_probe, root, weights, image_size, manifest))

        compare({"flowers": flowers, "torchvision": plain}, unit="s", rounds=rounds)


def _plain_probe(root: str, weights: str, image_size: int, manifest: Path) -> None:
    """Fit a logistic regression to features that two worker processes load images for."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, models, transforms

    standardize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    resize = transforms.Resize((image_size, image_size))
    transform = transforms.Compose([resize, transforms.ToTensor(), standardize])
    photos = datasets.ImageFolder(root, transform)
    if weights.endswith(".pth"):
        net = models.mobilenet_v2()
        net.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    else:
        net = models.mobilenet_v2(weights=weights)
    net.classifier = torch.nn.Identity()
    net.eval()
    number_of = {path: number for number, (path, _) in enumerate(photos.samples)}
    numbers: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            numbers[row["split"]].append(number_of[str(Path(root, row["path"]))])
    features = {}
    targets = {}
    for split in ("train", "val"):
        loader = DataLoader(Subset(photos, numbers[split]), batch_size=32, num_workers=2)
        with torch.inference_mode():
            features[split] = torch.cat([net(images) for images, _ in loader])
        targets[split] = [photos.targets[number] for number in numbers[split]]
    model = LogisticRegression(max_iter=1000).fit(features["train"], targets["train"])
    accuracy = model.score(features["val"], targets["val"])
    print(f"torchvision and scikit-learn: val/acc {accuracy:.4f}", flush=True)


def scaling(*, rounds: int = 5, epochs: int = 2, batch_size: int = 32) -> None:
    """Compare the training speed of two processes with one, on CPU with one thread each.

    Two processes that do not exchange gradients show what communication takes.

    Args:
        rounds: Measurements of each candidate, at least 1.
        epochs: Epochs of a measurement, at least 1, after one to warm up.
        batch_size: Images in a batch of each process.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = f"{folder} --epochs {epochs} --batch_size {batch_size}"

        def speed(more: str) -> float:
            words = shlex.split(f"{__file__} train {options} {more}")
            return float(python(*words, OMP_NUM_THREADS="1").split()[-1])

        candidates = {
            "two processes": partial(speed, "--devices 2"),
            "one process": partial(speed, "--devices 1"),
            "two without exchange": partial(speed, "--devices 2 --exchange false"),
        }
        compare(candidates, unit="images/s", rounds=rounds)


def train(
    folder: str, *, devices: int = 1, exchange: bool = True, epochs: int = 2, batch_size: int = 32
) -> None:
    """Print the images per second of a training on synthetic flowers; `scaling` starts this.

    Args:
        folder: Folder of the images and of the cache.
        devices: Processes.
        exchange: Whether the processes exchange gradients.
        epochs: Epochs to measure, at least 1, after one to warm up.
        batch_size: Images in a batch of each process.
    """
    startup.prepare()
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import LambdaCallback

    from flowers.data import FlowersDataModule
    from flowers.tasks import CNNTask

    times: list[float] = []
    no_sync = nullcontext()

    def on_train_start(trainer: Trainer, _: object) -> None:
        nonlocal no_sync
        if not exchange:  # DDP then leaves out the all-reduce and the broadcast of buffers
            no_sync = trainer.strategy.model.no_sync()
        no_sync.__enter__()

    def note_time(*_: object) -> None:
        times.append(time.perf_counter())

    data = FlowersDataModule(
        f"{folder}/drawn_flowers", batch_size=batch_size, cache_dir=f"{folder}/cache"
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        max_epochs=1 + epochs,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[
            LambdaCallback(
                on_train_start=on_train_start,
                on_train_epoch_start=note_time,
                on_train_end=note_time,
            )
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(CNNTask(data.class_names), datamodule=data)
    if trainer.is_global_zero:
        print(len(data.indices["train"]) / median(np.diff(times)[1:].tolist()))


def networks(arch: list[str], *, batch_size: int = 16, rounds: int = 5) -> None:
    """Measure parameters, multiplications and speed of networks.

    Args:
        arch: Classifiers of torchvision's, as "[mobilenet_v2,resnet50]".
        batch_size: Images in a batch.
        rounds: Measurements of each network, at least 1, after one to warm up.
    """
    startup.prepare()
    for name in arch:
        _network(name, batch_size=batch_size, rounds=rounds)


def _network(arch: str, *, batch_size: int, rounds: int) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from flowers.models import preprocessing, pretrained

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = preprocessing(arch, "none").image_size
    net = pretrained(arch, 5, weights="none").to(device, memory_format=torch.channels_last)
    images = torch.rand(batch_size, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(images[:1])

    def predict() -> int:
        with torch.inference_mode():
            net.eval()(images).sum().item()  # waits for the device
        return batch_size

    def train() -> int:
        net.train()
        loss = net(images).sum()
        loss.backward()
        loss.item()
        if device == "cuda":
            torch.cuda.synchronize()
        return batch_size

    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    multiply_adds = counter.get_total_flops() / 2e9  # it counts both operations
    print(
        f"{arch}: {size} pixels, {parameters:.1f} M parameters, {multiply_adds:.2f} G multiply-adds"
    )
    candidates = {
        "predict": partial(images_per_second, predict),
        "train": partial(images_per_second, train),
    }
    compare(candidates, unit="images/s", rounds=rounds, warm_up=True)


def predict(ckpt_path: str, *, root: str = "data/flower_photos", rounds: int = 3) -> None:
    """Compare predictions with a plain loop of Pillow and torch, and time the first answer.

    Args:
        ckpt_path: Checkpoint or run folder.
        root: Folder of images; a missing .../drawn_flowers is generated.
        rounds: Measurements of each candidate, at least 1.
    """
    startup.prepare()
    import torch

    from flowers import FlowerPredictor
    from flowers.data import ensure_root, find_images

    files, _ = find_images([str(ensure_root(root))], option="root")
    predictor = FlowerPredictor(ckpt_path, device="cpu")
    size = predictor.decoding["image_size"]

    def stream() -> int:
        return sum(1 for _ in predictor.stream(files))

    def plain() -> int:
        net = predictor.task.net
        for file in files:
            with Image.open(file) as image, torch.inference_mode():
                square = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
                pixels = torch.from_numpy(np.array(square))
                net(pixels.permute(2, 0, 1)[None].float() / 255).softmax(dim=1).argmax().item()
        return len(files)

    candidates = {
        "predict": partial(images_per_second, stream),
        "plain loop": partial(images_per_second, plain),
    }
    compare(candidates, unit="images/s", rounds=rounds)
    program = f"from flowers import FlowerPredictor; FlowerPredictor({ckpt_path!r})({files[0]!r})"
    first_answer = seconds(partial(python, "-c", program))
    print(f"  from the start of Python to the first answer: {first_answer:.1f} s")


def audit(root: str, *, images: int = 1000, rounds: int = 1) -> None:
    """Measure the time and memory of an audit, with an empty cache and again with a full one.

    Args:
        root: Folder root/<class>/<image>; a missing one is filled with synthetic flowers.
        images: Synthetic flowers to generate.
        rounds: Measurements of each, at least 1.
    """
    from flowers.data import draw_flowers

    draw_flowers(Path(root), per_class=images // 5, image_size=64)
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "flowers", "audit", root, "--out", f"{folder}/audit"]
        words += ["--cache_dir", f"{folder}/cache"]

        def run() -> None:
            shutil.rmtree(f"{folder}/audit", ignore_errors=True)
            python(*words, allowed=(0, 1))  # 1: the audit has findings

        def first() -> float:
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
            return seconds(run)

        candidates = {"first audit": first, "second audit": partial(seconds, run)}
        compare(candidates, unit="s", rounds=rounds)
        print_peak_memory()


def data_module(
    *, images: int = 100_000, classes: int = 200, image_size: int = 64, rounds: int = 1
) -> None:
    """Measure the time, memory and disk space of starting with many generated images.

    Args:
        images: Images to generate.
        classes: Number of classes, at least 2.
        image_size: Side of the images, in pixels.
        rounds: Measurements of each start, at least 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        cache = Path(folder, "cache")
        for label in range(classes):
            (root / f"{label:03d}").mkdir(parents=True)
        files = [root / f"{number % classes:03d}/{number:07d}.jpg" for number in range(images)]
        with multiprocessing.Pool() as pool:
            pool.map(partial(_generate, image_size=image_size), files, chunksize=100)

        def start() -> float:
            return float(in_child(_start_data_module, str(root), image_size, str(cache)))

        def first() -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return start()

        compare({"first start": first, "second start": start}, unit="s", rounds=rounds)
        print_peak_memory()
        disk = sum(file.stat().st_blocks for file in cache.rglob("*")) / 2**21  # of 512 bytes
        print(f"  disk space of the cache: {disk:.2f} GiB")


def _generate(file: Path, *, image_size: int) -> None:
    """Write a cloud of colours: no two that interpolate 256 random points are near duplicates."""
    rng = np.random.default_rng([1, int(file.stem)])
    points = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    points.resize((image_size, image_size), Image.Resampling.BICUBIC).save(file, quality=88)


def _start_data_module(root: str, image_size: int, cache_dir: str) -> float:
    from flowers.data import FlowersDataModule

    start = time.perf_counter()
    FlowersDataModule(root, image_size=image_size, crop_size=image_size, cache_dir=cache_dir).setup(
        "fit"
    )
    return time.perf_counter() - start


def duplicates(root: str = "data/flower_photos", *, images: int = 120) -> None:
    """Change photos in many ways and print how many the duplicate search finds in their folder.

    Args:
        root: Folder root/<class>/<image>; a missing .../drawn_flowers is generated.
        images: Photos to change in each way.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from flowers.data import duplicate_pairs, ensure_root, index_folder, read_facts

    index = index_folder(ensure_root(root))
    count = len(index.paths)
    originals = np.random.default_rng(0).choice(count, min(images, count), replace=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache_dir = folder / "cache"

        def search(thumbnails: np.ndarray) -> Any:  # noqa: ANN401
            checksums = [""] * len(thumbnails)  # no identical files: only the search counts
            return duplicate_pairs(checksums, thumbnails, rule="near", cache_dir=cache_dir)

        thumbnails = read_facts(index.root, index.paths, cache_dir=cache_dir).thumbnails
        start = time.perf_counter()
        pairs = search(thumbnails).indices
        duration = time.perf_counter() - start
        print(f"{len(pairs)} pairs among {count:,} photos in {duration:.1f} s")
        # A photo that the folder holds twice has two originals: they are in one group.
        graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
        _, group = connected_components(graph, directed=False)
        print(f"{'change':<28}{'detected':>12}{'false alarms':>14}{'least similarity':>18}")
        for change, function in CHANGES.items():
            _write_changed(folder, [index.root / index.paths[i] for i in originals], function)
            files = [f"{number}.jpg" for number in range(len(originals))]
            changed = read_facts(folder, files, cache_dir=cache_dir).thumbnails
            result = search(np.concatenate([thumbnails, changed]))
            crosses = (result.indices[:, 0] < count) & (result.indices[:, 1] >= count)
            first, second = result.indices[crosses].T
            is_correct = group[first] == group[originals[second - count]]
            detected = f"{len(np.unique(second[is_correct]))} of {len(originals)}"
            similarity = result.similarity[crosses][is_correct].min(initial=1)
            false_alarms = np.count_nonzero(~is_correct)
            print(f"{change:<28}{detected:>12}{false_alarms:>14}{similarity:>18.2f}", flush=True)


def _write_changed(
    folder: Path, files: Iterable[Path], change: Callable[[Image.Image], Image.Image]
) -> None:
    quality = 90
    if change is recompress:
        quality = 30
    for number, file in enumerate(files):
        with Image.open(file) as image:
            change(image.convert("RGB")).save(folder / f"{number}.jpg", quality=quality)


def recompress(image: Image.Image) -> Image.Image:
    """Return the image as it is; it is saved at a lower quality."""
    return image


def crop(image: Image.Image, fraction: float) -> Image.Image:
    """Remove a fraction of the width on the left and the right, and of the height at both ends."""
    x = round(image.width * fraction)
    y = round(image.height * fraction)
    return image.crop((x, y, image.width - x, image.height - y))


def shift(image: Image.Image, fraction: float) -> Image.Image:
    """Move the content left and up by a fraction of the sides; the rest is black."""
    matrix = (1, 0, image.width * fraction, 0, 1, image.height * fraction)
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def crop_left(image: Image.Image) -> Image.Image:
    """Remove 4 % of the width on the left."""
    return image.crop((round(image.width * 0.04), 0, image.width, image.height))


def frame(image: Image.Image, colour: str) -> Image.Image:
    """Add a border of 5 % of the sides."""
    border = (round(image.width * 0.05), round(image.height * 0.05))
    return ImageOps.expand(image, border, fill=colour)


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate by a small angle; the corners become black."""
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def recolour(image: Image.Image) -> Image.Image:
    """Strengthen the colours, brighten, and weaken the contrast."""
    image = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(1.6)).enhance(1.2)
    return ImageEnhance.Contrast(image).enhance(0.8)


def grey(image: Image.Image) -> Image.Image:
    """Remove the colours."""
    return image.convert("L").convert("RGB")


def turn(image: Image.Image, degrees: int = 90) -> Image.Image:
    """Rotate by a multiple of 90 degrees."""
    return image.rotate(degrees, expand=True)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed at quality 30": recompress,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "recoloured": recolour,
    "grey": grey,
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90 degrees": turn,
    "turned by 180 degrees": lambda image: turn(image, 180),
    "turned by 270 degrees": lambda image: turn(image, 270),
    "shifted by 2 % both ways": lambda image: shift(image, 0.02),
    "shifted by 4 % one way": crop_left,
    "shifted by 4 % both ways": lambda image: shift(image, 0.04),
    "3 % cropped on each side": lambda image: crop(image, 0.03),
    "5 % cropped on each side": lambda image: crop(image, 0.05),
    "8 % cropped on each side": lambda image: crop(image, 0.08),
    "white border of 5 %": lambda image: frame(image, "white"),
    "black border of 5 %": lambda image: frame(image, "black"),
    "rotated by 3 degrees": lambda image: rotate(image, 3),
    "rotated by 6 degrees": lambda image: rotate(image, 6),
    "mirrored, 5 % cropped": lambda image: crop(ImageOps.mirror(image), 0.05),
    "turned, 3 % cropped, grey": lambda image: crop(grey(turn(image)), 0.03),
    "mirrored, white border": lambda image: frame(ImageOps.mirror(image), "white"),
    "mirrored, rotated by 3": lambda image: rotate(ImageOps.mirror(image), 3),
    "cropped to a square": lambda image: ImageOps.fit(image, (min(image.size), min(image.size))),
}

if __name__ == "__main__":
    commands = [input_pipeline, epoch, probe, scaling, train, networks, predict, audit]
    auto_cli([*commands, data_module, duplicates])
