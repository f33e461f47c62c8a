"""Measure the speed, the memory and the duplicate search of the package.

python scripts/benchmark.py COMMAND --help

scripts/README.md lists the commands with their results.
"""

# ruff: noqa: PLC0415 (a child process imports only what it measures)

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse import auto_cli
from PIL import Image, ImageEnhance, ImageOps

from flowers import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowers.data import FlowersDataModule

Change = Callable[[Image.Image], Image.Image]
CONFIGS = Path(__file__).parents[1] / "configs"
# A training of less than a minute: weak augmentation and no average of the weights.
TUTORIAL_OPTIONS = (
    f"--config {CONFIGS}/cnn.yaml --trainer.max_epochs 3 "
    "--trainer.check_val_every_n_epoch 1 --data.image_size 128 --data.crop_size 96 "
    "--data.batch_size 64 --data.augment.cutmix_prob 0 --data.augment.min_scale 0.5 "
    "--data.augment.rotation 0 --model.ema_decay null"
)


def compare(candidates: dict[str, Callable[[], float]], *, unit: str, rounds: int) -> None:
    """Measure candidates in turn, so that a change of the machine's load affects all of them.

    Prints the median and the range of each candidate, and of the ratio of the first candidate to
    each other one within a round.

    Args:
        candidates: Functions that return one measurement each.
        unit: Unit of the measurements.
        rounds: Measurements of each candidate.
    """
    values: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            values[name].append(candidate())
    first, *others = candidates
    for name, measurements in values.items():
        print(f"  {name}: {spread(measurements)} {unit}")
    for name in others:
        ratios = np.divide(values[first], values[name]).tolist()
        print(f"  {first} / {name}: {spread(ratios)}", flush=True)


def spread(values: list[float]) -> str:
    """Return the median and the range, with two decimals below 100."""
    digits = 2 if max(values) < 100 else 0
    middle = f"{median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def seconds(run: Callable[..., object], *args: object) -> float:
    """Measure the duration of a call."""
    start = time.perf_counter()
    run(*args)
    return time.perf_counter() - start


def python(*args: object, statuses: tuple[int, ...] = (0,), **variables: str) -> str:
    """Run Python with arguments and environment variables and return what it prints."""
    command = [sys.executable, *map(str, args)]
    variables = os.environ | variables
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=variables)
    if done.returncode not in statuses:
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


def in_child(function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
    """Call a function in a new process and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def fit(run: Path, options: str, *, seed: int = 0) -> tuple[float, list[float]]:
    """Train with python -m flowers fit.

    Args:
        run: Folder for the run and its cache; if it exists, it is deleted first.
        options: Other options of fit.
        seed: Seed of the training.

    Returns:
        The duration in seconds, and the validation accuracy of each epoch.
    """
    from flowers.evaluation import read_history

    shutil.rmtree(run, ignore_errors=True)
    options += f" --data.cache_dir {run}/cache --trainer.default_root_dir {run}"
    options += f" --seed_everything {seed}"
    duration = seconds(python, "-m", "flowers", "fit", *options.split())
    history = read_history(run / "lightning_logs" / "version_0")
    return duration, history["val/acc"].values.tolist()


def print_peak_memory() -> None:
    """Print the peak memory of the largest child process."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux
    print(f"  peak memory of a process: {peak:.2f} GiB")


def input_pipeline(*, root: str = "data/flower_photos", rounds: int = 5) -> None:
    """Compare the speed of reading and augmenting batches with torchvision's ImageFolder.

    Args:
        root: Folder root/<class>/<image>; a missing folder synthetic_flowers is generated.
        rounds: Measurements of each candidate, at least 1.
    """
    from torchvision.transforms import v2

    from flowers.data import FlowersDataModule

    data = FlowersDataModule(root)
    data.setup("fit")
    crop = v2.RandomResizedCrop(160, (0.35, 1))
    jitter = v2.ColorJitter(0.3, 0.3, 0.3)
    augmentation = [crop, v2.RandomHorizontalFlip(), v2.RandomRotation(15), jitter]
    candidates = {
        "read": (_read, v2.Resize((192, 192))),
        "read and augment": (_augment, v2.Compose(augmentation)),
    }
    for name, (read, transform) in candidates.items():
        plain = partial(_torchvision_speed, root, transform, data.batch_size)
        workers = max((0, 1, 2, 4), key=plain)
        print(f"{name}; torchvision is fastest with {workers} workers:")
        ours = partial(_data_module_speed, data, read)
        theirs = partial(plain, workers)
        compare({"flowers": ours, "torchvision": theirs}, unit="images/s", rounds=rounds)


def _data_module_speed(data: FlowersDataModule, read: Callable[..., object]) -> float:
    return len(data.indices["train"]) / seconds(read, data)


def _read(data: FlowersDataModule) -> None:
    import torch

    for batch in data.train_dataloader():
        batch.images.contiguous(memory_format=torch.channels_last)


def _augment(data: FlowersDataModule) -> None:
    loop = SimpleNamespace(total_batch_idx=0)
    data.trainer = SimpleNamespace(
        training=True, current_epoch=0, max_epochs=1, global_rank=0, world_size=1, fit_loop=loop
    )
    for loop.total_batch_idx, batch in enumerate(data.train_dataloader()):
        data.on_after_batch_transfer(batch, 0)
    data.trainer = None


def _torchvision_speed(root: str, transform: Any, batch_size: int, workers: int) -> float:  # noqa: ANN401
    """Return the images per second of a second pass; the first pass starts the worker processes."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([transform, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = ImageFolder(root, transform)
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(images, batch_size, shuffle=True, **options)
    deque(loader, maxlen=0)
    return len(images) / seconds(deque, loader, 0)


def epoch(*, fit_options: str = "--config configs/cnn.yaml", epochs: int = 3) -> None:
    """Measure with Lightning's profiler how long an epoch takes and how much of it waits for data.

    Args:
        fit_options: Options of python -m flowers fit, in one string.
        epochs: Epochs to train, at least 1.
    """
    from flowers.cli import training

    options = f"{fit_options} --trainer.max_epochs {epochs} --trainer.limit_val_batches 0"
    options += " --trainer.profiler simple --trainer.logger false"
    options += " --trainer.enable_checkpointing false"
    run = training.main(["fit", *options.split()])
    if not run.trainer.is_global_zero:
        return
    durations = run.trainer.profiler.recorded_durations
    data = 0.0
    for action, values in durations.items():
        if action.endswith(("train_dataloader_next", "DataModule.on_after_batch_transfer")):
            data += sum(values)
    duration = durations["run_training_epoch"]
    images = run.trainer.num_training_batches * run.trainer.world_size * run.datamodule.batch_size
    print(f"{spread(duration)} s, {data / sum(duration):.1%} of it waiting for data")
    print(f"{images / median(duration):.1f} images/s")


def scaling(*, fit_options: str = "", epochs: int = 3, rounds: int = 5) -> None:
    """Compare the training speeds of two processes and one, on a CPU with one thread each.

    Args:
        fit_options: Further options of python -m flowers fit, in one string.
        epochs: Epochs of a measurement, at least 1.
        rounds: Measurements of each candidate, at least 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = f"--data.root {folder}/synthetic_flowers --data.cache_dir {folder}/cache"
        options += f" {fit_options} --trainer.accelerator cpu --trainer.devices"

        def train(devices: int) -> float:
            words = ["epoch", "--fit_options", f"{options} {devices}", "--epochs", epochs]
            [speed] = re.findall(r"(\S+) images/s", python(__file__, *words, OMP_NUM_THREADS="1"))
            return float(speed)

        processes = {"two processes": partial(train, 2), "one process": partial(train, 1)}
        compare(processes, unit="images/s", rounds=rounds)


def probe(
    *,
    root: str = "data/flower_photos",
    weights: str = "DEFAULT",
    image_size: int = 224,
    rounds: int = 1,
) -> None:
    """Compare a linear probe, decoding included, with a probe of torchvision and scikit-learn.

    Args:
        root: Folder root/<class>/<image>; a missing folder synthetic_flowers is generated.
        weights: Weights of MobileNetV2: a name of torchvision's or a .pth file.
        image_size: Side of the images, in pixels.
        rounds: Measurements of each candidate, at least 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        options = f"--config {CONFIGS}/probe.yaml --data.root {root} --model.weights {weights}"
        options += f" --data.image_size {image_size} --data.crop_size {image_size}"

        def flowers() -> float:
            duration, accuracies = fit(run, options)
            print(f"flowers: val/acc {max(accuracies):.4f}")
            return duration

        def torchvision() -> float:
            manifest = run / "lightning_logs" / "version_0" / "manifest.csv"
            return seconds(in_child, _torchvision_probe, root, weights, image_size, manifest)

        compare({"flowers": flowers, "torchvision": torchvision}, unit="s", rounds=rounds)


def _torchvision_probe(root: str, weights: str, image_size: int, manifest: Path) -> None:
    import torch
    from sklearn.linear_model import LogisticRegression
    from torch.utils.data import DataLoader
    from torchvision import models, transforms

    standardize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    resize = transforms.Resize((image_size, image_size))
    transform = transforms.Compose([resize, transforms.ToTensor(), standardize])
    if weights.endswith(".pth"):
        net = models.mobilenet_v2()
        net.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    else:
        net = models.mobilenet_v2(weights=weights)
    net.classifier = torch.nn.Identity()
    net.eval()
    features = {}
    targets = {}
    for split in ("train", "val"):
        photos = _image_folder(root, manifest, split, transform)
        loader = DataLoader(photos, batch_size=32, num_workers=2)
        with torch.inference_mode():
            features[split] = torch.cat([net(images) for images, _ in loader])
        targets[split] = photos.targets
    classifier = LogisticRegression(max_iter=1000).fit(features["train"], targets["train"])
    print(f"torchvision: val/acc {classifier.score(features['val'], targets['val']):.4f}")


def _image_folder(root: str, manifest: Path, split: str, transform: Any) -> Any:  # noqa: ANN401
    """Return torchvision's data set of a split."""
    from torchvision.datasets import ImageFolder

    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    files = {str(Path(root, row["path"])) for row in rows}
    return ImageFolder(str(Path(root)), transform, is_valid_file=files.__contains__)


def tutorial(
    *,
    root: str = "data/flower_photos",
    fit_options: str = TUTORIAL_OPTIONS,
    epochs: int = 15,
    rounds: int = 3,
) -> None:
    """Compare time and accuracy of a short training and the first network of TensorFlow's tutorial.

    Prints the validation accuracy of the best epoch. The tutorial's network is timed until its best
    epoch, flowers for the whole command, decoding included. The tutorial's network is trained in
    torch and, if the package keras is installed, also in Keras.
    https://www.tensorflow.org/tutorials/images/classification

    Args:
        root: Folder root/<class>/<image>; a missing folder synthetic_flowers is generated.
        fit_options: Options of python -m flowers fit, in one string.
        epochs: Epochs of the tutorial's network, at least 1.
        rounds: Trainings of each network, at least 1.
    """
    from flowers.data import FlowersDataModule, manifest_text

    with tempfile.TemporaryDirectory() as folder:
        data = FlowersDataModule(root, cache_dir=f"{folder}/cache")
        data.setup("fit")
        manifest = Path(folder, "manifest.csv")
        manifest.write_text(manifest_text(data.manifest_rows()))
        seeds = iter(range(rounds))

        def flowers() -> float:
            options = f"{fit_options} --data.root {root}"
            duration, accuracies = fit(Path(folder, "run"), options, seed=next(seeds))
            print(f"flowers: val/acc {max(accuracies):.4f}", flush=True)
            return duration

        def others(train: Callable[..., list[tuple[float, float]]]) -> float:
            start = time.time()
            history = in_child(train, root, manifest, epochs)
            accuracy, end = max(history, key=lambda epoch: epoch[0])
            print(
                f"{train.__name__}: val/acc {accuracy:.4f}, last {history[-1][0]:.4f}", flush=True
            )
            return end - start

        candidates = {"tutorial": partial(others, _tutorial), "flowers": flowers}
        if find_spec("keras"):
            candidates["keras"] = partial(others, _keras_tutorial)
        compare(candidates, unit="s", rounds=rounds)


def _tutorial_loaders(root: str, manifest: Path, *transforms: Callable[..., Any]) -> list[Any]:
    """Return the loaders of training and validation."""
    from torch.utils.data import DataLoader
    from torchvision.transforms import Compose, Resize, ToTensor

    loaders = []
    for split in ("train", "val"):
        transform = Compose([Resize((180, 180)), ToTensor(), *transforms])
        photos = _image_folder(root, manifest, split, transform)
        is_train = split == "train"
        loaders.append(DataLoader(photos, batch_size=32, shuffle=is_train, num_workers=2))
    return loaders


def _keras_tutorial(root: str, manifest: Path, epochs: int) -> list[tuple[float, float]]:
    """Return the validation accuracy and the time at the end of each epoch."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    train_loader, val_loader = _tutorial_loaders(root, manifest, _channels_last)
    net = keras.Sequential([keras.Input((180, 180, 3))])
    for num_filters in (16, 32, 64):
        net.add(layers.Conv2D(num_filters, 3, padding="same", activation="relu"))
        net.add(layers.MaxPooling2D())
    num_classes = len(train_loader.dataset.classes)
    for layer in (layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(num_classes)):
        net.add(layer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile("adam", loss, metrics=["accuracy"])
    history = []

    class Record(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            history.append((logs["val_accuracy"], time.time()))

    options = {"epochs": epochs, "verbose": 0, "callbacks": [Record()]}
    net.fit(train_loader, validation_data=val_loader, **options)
    return history


def _channels_last(image: Any) -> Any:  # noqa: ANN401
    return image.permute(1, 2, 0)


def _tutorial(root: str, manifest: Path, epochs: int) -> list[tuple[float, float]]:
    """Return the validation accuracy and the time at the end of each epoch."""
    import torch
    from torch import nn

    train_loader, val_loader = _tutorial_loaders(root, manifest)
    layers: list[nn.Module] = []
    for num_inputs, num_filters in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(num_inputs, num_filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [
        nn.Flatten(),
        nn.LazyLinear(128),
        nn.ReLU(),
        nn.Linear(128, len(train_loader.dataset.classes)),
    ]
    net = nn.Sequential(*layers)
    net(torch.zeros(1, 3, 180, 180))  # sets the size of the first dense layer
    optimizer = torch.optim.Adam(net.parameters())
    history = []
    for _ in range(epochs):
        for images, labels in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        correct = 0
        with torch.inference_mode():
            for images, labels in val_loader:
                correct += int((net(images).argmax(dim=1) == labels).sum())
        history.append((correct / len(val_loader.dataset), time.time()))
    return history


def fine_tune(
    *,
    root: str = "data/flower_photos",
    image_size: int = 192,
    epochs: int = 4,
    timm_script: str | None = None,
    rounds: int = 1,
) -> None:
    """Compare fine-tuning with timm and fastai: time and validation accuracy of the last epoch.

    All three train EfficientNet-Lite0 in float32 from the same weights, with the same photos, image
    size, batch size and number of epochs. fastai, if installed, trains as in its tutorial. timm
    trains with the defaults of its script, except for one warm-up epoch and no cool-down epoch.
    https://docs.fast.ai/tutorial.vision.html

    Args:
        root: Folder root/<class>/<image>; a missing folder synthetic_flowers is generated.
        image_size: Side of the images, in pixels.
        epochs: Number of epochs, at least 2; in the first, flowers and fastai train the last
            layer only.
        timm_script: Path of a copy of
            https://github.com/huggingface/pytorch-image-models/blob/main/train.py
        rounds: Trainings of each candidate, at least 1; their seeds are 0, 1, ...
    """
    import torch

    from flowers.data import FlowersDataModule
    from flowers.models.timm_networks import timm_weights

    with tempfile.TemporaryDirectory() as folder:
        data = FlowersDataModule(root, cache_dir=f"{folder}/cache")
        data.setup("fit")
        photos = Path(folder, "photos")
        for row in data.manifest_rows():
            if row.split not in ("train", "val", "test"):
                continue
            link = photos / row.split / row.label / Path(row.path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(root, row.path).resolve())
        weights = Path(folder, "weights.pth")
        torch.save(timm_weights("timm/tf_efficientnet_lite0"), weights)
        run = Path(folder, "run")

        def flowers(seed: int) -> float:
            options = f"--config {CONFIGS}/transfer_offline.yaml --data.root {photos}"
            options += f" --data.image_size {image_size} --data.crop_size {image_size}"
            options += f" --trainer.max_epochs {epochs}"
            _, accuracies = fit(run, options, seed=seed)
            return accuracies[-1]

        def timm(seed: int) -> float:
            options = {
                "val_split": "val",
                "num_classes": len(data.class_names),
                "model": "tf_efficientnet_lite0",
                "pretrained": True,
                "model_kwargs": {"pretrained_cfg_overlay": {"file": str(weights)}},
                "img_size": image_size,
                "batch_size": 32,
                "epochs": epochs,
                "warmup_epochs": 1,
                "cooldown_epochs": 0,
                "workers": os.cpu_count(),
                "device": "cuda" if torch.cuda.is_available() else "cpu",
                "seed": seed,
                "output": str(run),
                "experiment": "timm",
            }
            config = Path(folder, "timm.yaml")
            config.write_text(json.dumps(options))
            python(timm_script, photos, "--config", config)
            *_, last = csv.DictReader((run / "timm" / "summary.csv").read_text().splitlines())
            return float(last["eval_top1"]) / 100

        def fastai(seed: int) -> float:
            return in_child(_fastai, photos, weights, image_size, epochs, seed)

        def duration(train: Callable[[int], float], seeds: Iterator[int]) -> float:
            shutil.rmtree(run, ignore_errors=True)
            start = time.perf_counter()
            accuracy = train(next(seeds))
            end = time.perf_counter()
            print(f"{train.__name__}: val/acc {accuracy:.4f}, {end - start:.0f} s", flush=True)
            return end - start

        trainings = [flowers]
        if timm_script is not None:
            trainings.append(timm)
        if find_spec("fastai"):
            trainings.append(fastai)
        candidates = {}
        for train in trainings:
            candidates[train.__name__] = partial(duration, train, iter(range(rounds)))
        compare(candidates, unit="s", rounds=rounds)


def _fastai(photos: Path, weights: Path, image_size: int, epochs: int, seed: int) -> float:
    """Return the validation accuracy after fastai's fine_tune."""
    from fastai.vision import all as fastai

    fastai.set_seed(seed)
    loaders = fastai.ImageDataLoaders.from_folder(
        photos,
        valid="val",
        seed=seed,
        bs=32,
        item_tfms=fastai.Resize(image_size),
        batch_tfms=fastai.aug_transforms(),
    )
    learner = fastai.vision_learner(
        loaders,
        "tf_efficientnet_lite0",
        metrics=fastai.accuracy,
        pretrained_cfg_overlay={"file": str(weights)},
    )
    with learner.no_bar():
        learner.fine_tune(epochs - 1)  # preceded by an epoch of the last layer alone
    return float(learner.recorder.values[-1][-1])


def networks(arch: list[str], *, batch_size: int = 16, rounds: int = 5) -> None:
    """Measure the parameters, multiply-adds and speed of networks.

    Args:
        arch: Names of torchvision's classifiers, for example "[mobilenet_v2,resnet50]".
        batch_size: Images in a batch.
        rounds: Measurements of each network, at least 1; each after a warm-up run.
    """
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

    def step(*, training: bool) -> None:
        with torch.inference_mode(not training):
            total = net(images).sum()
        if training:
            total.backward()
        if device == "cuda":
            torch.cuda.synchronize()

    def speed(*, training: bool) -> float:
        net.train(training)
        run = partial(step, training=training)
        run()
        return batch_size / seconds(run)

    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    multiply_adds = counter.get_total_flops() / 2e9  # the counter counts 2 operations each
    print(
        f"{arch}: {size} pixels, {parameters:.1f} M parameters, {multiply_adds:.2f} G multiply-adds"
    )
    candidates = {name: partial(speed, training=name == "train") for name in ("predict", "train")}
    compare(candidates, unit="images/s", rounds=rounds)


def predict(ckpt_path: str, *, root: str = "data/flower_photos", rounds: int = 3) -> None:
    """Compare prediction speed with a loop of Pillow and torch; measure the time to a first answer.

    Args:
        ckpt_path: Checkpoint or run folder.
        root: Folder of images.
        rounds: Measurements of each candidate, at least 1.
    """
    import torch

    from flowers import FlowerPredictor
    from flowers.data import find_images

    files, _ = find_images([root], option="`root`")
    predictor = FlowerPredictor(ckpt_path, device="cpu")
    size = (predictor.decoding["image_size"],) * 2

    def flowers() -> float:
        return len(files) / seconds(list, predictor.stream(files))

    @torch.inference_mode()
    def loop() -> None:
        for file in files:
            with Image.open(file) as image:
                square = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
            predictor.task.net(pixels.float() / 255).softmax(dim=1).argmax().item()

    def plain() -> float:
        return len(files) / seconds(loop)

    compare({"flowers": flowers, "loop": plain}, unit="images/s", rounds=rounds)
    program = f"from flowers import FlowerPredictor; FlowerPredictor({ckpt_path!r})({files[0]!r})"
    print(f"  start of Python to first answer: {seconds(python, '-c', program):.1f} s")


def audit(*, root: str = "data/flower_photos", images: int = 1000, rounds: int = 1) -> None:
    """Measure the time and memory of an audit with an empty cache, and of a second audit.

    Args:
        root: Folder root/<class>/<image>; a missing one is filled with synthetic flowers.
        images: Synthetic flowers to generate, at least 5.
        rounds: Measurements of each audit, at least 1.
    """
    from flowers.data import generate_flowers

    if not Path(root).exists():
        generate_flowers(Path(root), per_class=images // 5, image_size=64)
    with tempfile.TemporaryDirectory() as folder:
        words = ["audit", root, "--out", f"{folder}/audit", "--cache_dir", f"{folder}/cache"]
        run = partial(python, "-m", "flowers", *words, statuses=(0, 1))  # 1: it has findings

        def second() -> float:
            shutil.rmtree(f"{folder}/audit", ignore_errors=True)
            return seconds(run)

        def first() -> float:
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
            return second()

        compare({"first audit": first, "second audit": second}, unit="s", rounds=rounds)
        print_peak_memory()


def data_module(
    *, images: int = 100_000, classes: int = 200, image_size: int = 64, rounds: int = 1
) -> None:
    """Measure the time, memory and disk space of setting up a data module of many images.

    Args:
        images: Synthetic images to generate.
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

        def second() -> float:
            return float(in_child(_start_data_module, root, image_size, cache))

        def first() -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return second()

        compare({"first start": first, "second start": second}, unit="s", rounds=rounds)
        print_peak_memory()
        blocks = sum(file.stat().st_blocks for file in cache.rglob("*"))  # blocks of 512 bytes
        print(f"  disk space of the cache: {blocks / 2**21:.2f} GiB")


def _generate(file: Path, *, image_size: int) -> None:
    """Write an image interpolated from 16 x 16 random colours, so no two are near duplicates."""
    rng = np.random.default_rng([1, int(file.stem)])
    points = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    points.resize((image_size, image_size), Image.Resampling.BICUBIC).save(file, quality=88)


def _start_data_module(root: Path, image_size: int, cache: Path) -> float:
    from flowers.data import FlowersDataModule

    sizes = {"image_size": image_size, "crop_size": image_size}
    start = time.perf_counter()
    FlowersDataModule(str(root), cache_dir=str(cache), **sizes).setup("fit")
    return time.perf_counter() - start


def duplicates(*, root: str = "data/flower_photos", images: int = 120) -> None:
    """Change photos in many ways, and print how many changed photos the duplicate search detects.

    Args:
        root: Folder root/<class>/<image>; a missing folder synthetic_flowers is generated.
        images: Photos to change in each way.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from flowers.data import duplicate_pairs, ensure_root, index_folder, read_image_info

    index = index_folder(ensure_root(root))
    count = len(index.paths)
    originals = np.random.default_rng(0).choice(count, min(images, count), replace=False)
    files = [f"{number}.jpg" for number in range(len(originals))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def search(thumbnails: NDArray[np.uint8]) -> Any:  # noqa: ANN401
            # Without checksums no files count as identical: only near duplicates are measured.
            images = info._replace(sha256=[""] * len(thumbnails), thumbnails=thumbnails)
            return duplicate_pairs(images, rule="near", cache_dir=folder / "cache")

        info = read_image_info(index.root, index.paths, cache_dir=folder / "cache")
        pairs = search(info.thumbnails).indices
        print(f"{len(pairs)} pairs among {count:,} photos")
        # The folder may hold a photo twice. A pair with any duplicate of the original is correct.
        graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
        group = connected_components(graph, directed=False)[1]
        for description, change in CHANGES.items():
            for file, original in zip(files, originals, strict=True):
                with Image.open(index.root / index.paths[original]) as image:
                    change(image.convert("RGB")).save(folder / file, quality=90)
            changed = read_image_info(folder, files, cache_dir=folder / "cache").thumbnails
            result = search(np.concatenate([info.thumbnails, changed]))
            is_cross_pair = (result.indices[:, 0] < count) & (result.indices[:, 1] >= count)
            first, second = result.indices[is_cross_pair].T
            is_correct = group[first] == group[originals[second - count]]
            detected = len(np.unique(second[is_correct]))
            false_alarms = np.count_nonzero(~is_correct)
            similarity = result.similarity[is_cross_pair][is_correct].min(initial=1)
            print(f"{description:<26} {detected} of {len(originals)}, ", end="")
            print(f"{false_alarms} false alarms, least similarity {similarity:.2f}", flush=True)


def recompress(image: Image.Image) -> Image.Image:
    """Save as JPEG of quality 30 and read again."""
    file = BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file)


def recolour(image: Image.Image) -> Image.Image:
    """Strengthen the colours, brighten, and weaken the contrast."""
    image = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(1.6)).enhance(1.2)
    return ImageEnhance.Contrast(image).enhance(0.8)


def grey(image: Image.Image) -> Image.Image:
    """Remove the colours."""
    return image.convert("L").convert("RGB")


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Move the sides inwards by fractions of the width and height; what is outside is black."""
    width, height = image.size
    box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
    return image.crop(tuple(map(round, box)))


def margin(fraction: float) -> Change:
    """Return the function that crops a fraction of each side."""
    return partial(crop, left=fraction, top=fraction, right=fraction, bottom=fraction)


def shift(fraction: float) -> Change:
    """Return the function that moves the content left and up; the rest becomes black."""
    return partial(crop, left=fraction, top=fraction, right=-fraction, bottom=-fraction)


def frame(colour: str) -> Change:
    """Return the function that adds a border of 5 % of the sides."""

    def change(image: Image.Image) -> Image.Image:
        border = (round(image.width * 0.05), round(image.height * 0.05))
        return ImageOps.expand(image, border, fill=colour)

    return change


def rotate(degrees: float) -> Change:
    """Return the function that rotates counter-clockwise; the corners become black."""
    is_turn = degrees % 90 == 0
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC, expand=is_turn)


CHANGES: dict[str, Change] = {
    "recompressed at quality 30": recompress,
    "half the size": lambda image: ImageOps.scale(image, 0.5),
    "recoloured": recolour,
    "grey": grey,
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90 degrees": rotate(90),
    "turned by 180 degrees": rotate(180),
    "turned by 270 degrees": rotate(270),
    "shifted by 2 % both ways": shift(0.02),
    "shifted by 4 % one way": partial(crop, left=0.04, top=0, right=0, bottom=0),
    "shifted by 4 % both ways": shift(0.04),
    "cropped by 3 %": margin(0.03),
    "cropped by 5 %": margin(0.05),
    "cropped by 8 %": margin(0.08),
    "white border of 5 %": frame("white"),
    "black border of 5 %": frame("black"),
    "rotated by 3 degrees": rotate(3),
    "rotated by 6 degrees": rotate(6),
    "mirrored, cropped by 5 %": lambda image: margin(0.05)(ImageOps.mirror(image)),
    "turned, cropped, grey": lambda image: margin(0.03)(grey(rotate(90)(image))),
    "mirrored, white border": lambda image: frame("white")(ImageOps.mirror(image)),
    "mirrored, rotated by 3": lambda image: rotate(3)(ImageOps.mirror(image)),
    "cropped to a square": lambda image: ImageOps.fit(image, (min(image.size), min(image.size))),
}


def main(args: list[str] | None = None) -> None:
    """Run the command in ``args``, by default in ``sys.argv[1:]``."""
    training = [input_pipeline, epoch, scaling, probe, tutorial, fine_tune, networks]
    auto_cli([*training, predict, audit, data_module, duplicates], args=args)


if __name__ == "__main__":
    runtime.prepare()
    main()
