"""The data module of a folder of photos."""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from flowers.data.augment import BatchAugmentation
from flowers.data.cache import default_cache_dir
from flowers.data.datasets import Batch, SplitImages, batch_loader, decode_all, read_files
from flowers.data.image_folder import index_folder, similar_names, summarize_ignored
from flowers.data.quality.duplicates import DuplicateRule, duplicate_pairs
from flowers.data.quality.image_info import FolderInfo, read_image_info
from flowers.data.quality.quarantine import quarantined_images
from flowers.data.samplers import ShardedSampler
from flowers.data.sources import ensure_root
from flowers.data.splitting.assign import Assignment, SplitOptions, assign_splits, split_table
from flowers.data.splitting.manifest import SPLITS, ManifestRow, content_numbers, fingerprints
from flowers.data.transforms import to_float
from flowers.decoding import Interpolation, Resize, allow_megapixels
from flowers.printable import printable


class FlowersDataModule(LightningDataModule):
    """Training, validation and test batches of a folder ``root/<class>/<image>``.

    A folder that is already split, ``root/{train,val,test}/<class>/<image>``, keeps its splits;
    split folders may also be named ``training``, ``valid``, ``validation`` and ``testing``.

    Args:
        root: Folder that contains the class folders, or split folders with class folders inside. A
            missing folder named ``flower_photos`` is downloaded, one named ``synthetic_flowers`` is
            generated.
        image_size: Side to which images are resized when decoded, in pixels. Evaluation and
            prediction use this size.
        crop_size: Side of the crops that the network is trained on, in pixels. Random crops enlarge
            objects, so a side below ``image_size`` brings objects closer to their size in
            evaluation (https://arxiv.org/abs/1906.06423). A list divides the epochs into equal
            parts, each with its own side: ``[96, 96, 128, 160]`` trains the first half of the
            epochs on 96 pixels (progressive resizing, https://arxiv.org/abs/2104.00298). ``null``:
            equal to ``image_size``.
        resize: How an image is made square: ``stretch`` both sides, or ``crop`` the centre.
        interpolation: Interpolation of the resizing.
        batch_size: Number of images per batch on each device.
        max_megapixels: Largest photo, in megapixels; ``null`` for Pillow's limit, 179. Decoding a
            photo may take up to 3 bytes of memory for each pixel of this limit.
        on_bad_image: How to treat an image that cannot be decoded: ``stop`` before training, or
            ``skip`` it.
        cache: Whether to decode the images once, into a cache on disk; otherwise worker processes
            decode them in every epoch.
        cache_dir: Folder of the cache; by default ``flowers`` in ``$XDG_CACHE_HOME`` or
            ``~/.cache``.
        num_workers: Number of worker processes that decode images if ``cache`` is false.
        sampler: Images of an epoch: each image once (``shuffle``), or every class equally often
            (``balanced``).
        augment: Augmentation of the training batches.
        seed: Seed of the order and the augmentation of training images; the command line sets it to
            ``seed_everything``.
        split: Rule of the split: ``random`` (stratified, by the fractions and the seed) or
            ``tf_for_poets``. A folder that is already split is used as it is.
        split_seed: Seed of the split, independent of the seed of the training.
        val_fraction: Fraction of each class for validation.
        test_fraction: Fraction of each class for the test; ignored with ``folds``.
        folds: Number of folds of a cross-validation. One fold is the test split; ``val_fraction``
            of the images in the other folds is the validation split.
        fold: Index of the fold that is the test split, from 0.
        group_by: Keep all photos of one ``photographer``, as listed in ``LICENSE.txt`` in the root,
            in one split.
        duplicates: Images that count as duplicates and stay in one split: identical files and
            ``near`` duplicates, only ``exact`` ones, or ``ignore`` both.
        contradictions: How to use images with conflicting labels: ``train`` uses them in training
            but not in evaluation, ``leave_out`` in neither, ``keep`` like any other image.
        manifest: CSV file with the split to use; every run folder has one.
        quarantine: CSV file with the images to leave out; the audit writes one.

    Raises:
        FileNotFoundError: The root is missing and not a known data set.
        ValueError: The folder has fewer than two classes, or an option is invalid.
    """

    def __init__(
        self,
        root: str = "data/synthetic_flowers",
        *,
        image_size: int = 192,
        crop_size: int | list[int] | None = 160,
        resize: Resize = "stretch",
        interpolation: Interpolation = "bicubic",
        batch_size: int = 32,
        max_megapixels: int | None = None,
        on_bad_image: Literal["stop", "skip"] = "stop",
        cache: bool = True,
        cache_dir: str | None = None,
        num_workers: int = 2,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        augment: BatchAugmentation = BatchAugmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
        split: Literal["random", "tf_for_poets"] = "random",
        split_seed: int = 0,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        group_by: Literal["photographer"] | None = None,
        duplicates: DuplicateRule = "near",
        contradictions: Literal["train", "leave_out", "keep"] = "train",
        manifest: str | None = None,
        quarantine: str | None = None,
    ) -> None:
        super().__init__()
        if crop_size is None:
            crop_size = image_size
        crop_sizes = crop_size if isinstance(crop_size, list) else [crop_size]
        if not crop_sizes or not 1 <= min(crop_sizes) <= max(crop_sizes) <= image_size:
            raise ValueError(
                f"`crop_size`: expected 1 to `image_size` ({image_size}) pixels, got {crop_size}. "
                f"Crops are cut out of the image, so `image_size` must be at least as large."
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size`: expected at least 1 image, got {batch_size}")
        self.image_size = image_size
        self.crop_sizes = crop_sizes
        self.resize: Resize = resize
        self.interpolation: Interpolation = interpolation
        self.batch_size = batch_size
        self.split_options = SplitOptions(
            split=split,
            split_seed=split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            folds=folds,
            fold=fold,
            group_by=group_by,
            duplicates=duplicates,
            contradictions=contradictions,
            manifest=manifest,
            quarantine=quarantine,
        )
        allow_megapixels(max_megapixels)
        self.on_bad_image = on_bad_image
        self.cache = cache
        self.cache_dir = Path(cache_dir or default_cache_dir()).expanduser()
        self.num_workers = num_workers
        self.sampler = sampler
        self.augment = augment
        self.seed = seed
        self.index = index_folder(ensure_root(root))
        self.split_options.check_folder(self.index)
        # Features (N, F) of a frozen backbone; unless None, batches contain them and no images.
        self.features: NDArray[np.float32] | None = None
        # Differences between this data and the data of the checkpoint that was loaded last.
        self.checkpoint_warnings: list[str] = []
        self._is_set_up = False
        self.check_outside(self.cache_dir, option="`cache_dir`")

    def check_outside(self, folder: Path, *, option: str) -> None:
        """Check that an output folder is outside the root: inside, it could become a class.

        Args:
            folder: The folder.
            option: Name of the option that gives the folder, for the error message.

        Raises:
            ValueError: The folder is inside the root.
        """
        root = self.index.root
        if folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{option} {folder}: expected a folder outside `root` {root}")

    @property
    def class_names(self) -> list[str]:
        """Sorted names of the K classes."""
        return list(self.index.class_names)

    @property
    def decoding(self) -> dict[str, Any]:
        """The options of ``load_image``."""
        return {name: getattr(self, name) for name in ("image_size", "resize", "interpolation")}

    @cached_property
    def info(self) -> FolderInfo:
        """Checksums, errors and thumbnails of all images; the first access reads every file."""
        return read_image_info(self.index.root, self.index.paths, cache_dir=self.cache_dir)

    @cached_property
    def assignment(self) -> Assignment:
        """The split of every image, with notes for the user."""
        rule = self.split_options.duplicates
        pairs = duplicate_pairs(self.info, rule=rule, cache_dir=self.cache_dir)
        return assign_splits(self.index, self.info, pairs, options=self.split_options)

    @cached_property
    def indices(self) -> dict[str, NDArray[np.int64]]:
        """Sorted indices of the images of ``train``, ``val`` and ``test``."""
        return {name: np.flatnonzero(self.assignment.split == name) for name in SPLITS}

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Bytes of all images ``(N, S, S, 3)``, memory-mapped; the first access decodes them."""
        return decode_all(self.index, self.info, decoding=self.decoding, cache_dir=self.cache_dir)

    def class_counts(self, split: str) -> list[int]:
        """Return the number of images of each class in a split."""
        labels = self.index.labels[self.indices[split]]
        return np.bincount(labels, minlength=len(self.class_names)).tolist()

    def manifest_rows(self) -> list[ManifestRow]:
        """Return path, label, checksum and split of every image."""
        labels = np.array(self.class_names, dtype=object)[self.index.labels]
        rows = zip(self.index.paths, labels, self.info.sha256, self.assignment.split, strict=True)
        return [ManifestRow(*row) for row in rows]

    def setup(self, stage: str) -> None:
        """Check, split and decode the images, and report the split; later calls do nothing.

        Raises:
            OSError: Images cannot be decoded (the message lists all), or the disk is full.
            ValueError: No split can be made, or a class has no training images.
        """
        if self._is_set_up:
            return
        self._is_set_up = True
        self._check_images()
        if stage == "fit" and 0 in self.class_counts("train"):
            counts = dict(zip(self.class_names, self.class_counts("train"), strict=True))
            raise ValueError(f"`manifest`: expected training images of every class, got {counts}")
        if self.cache:
            self.pixels.shape  # noqa: B018 (decodes now, not in the first batch)
        ignored = summarize_ignored(self.index.ignored)
        lines = [ignored, *self.assignment.notes, *split_table(self.index, self.assignment.split)]
        for line in filter(None, lines):
            rank_zero_info(line)
        for names in similar_names(self.index.class_names):
            rank_zero_warn(f"{names} are different classes. If they are one, merge the folders.")

    def _check_images(self) -> None:
        quarantine = self.split_options.quarantine
        quarantined, _ = quarantined_images(self.index, self.info, quarantine=quarantine)
        errors = []
        for number, error in self.info.errors.items():
            if not quarantined[number]:
                file = self.index.root / self.index.paths[number]
                errors.append("\n  " + printable(f"{file}: {error}"))
        if not errors:
            return
        message = f"{len(errors)} of {len(self.index.paths)} images cannot be decoded"
        listing = "".join(errors)
        if self.on_bad_image == "stop":
            raise OSError(
                f"{message}:{listing}\nRepair or remove them, or leave them out with "
                f"`on_bad_image` skip or `quarantine` FILE."
            )
        rank_zero_warn(f"{message} and are skipped:{listing}")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of the training split."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the validation split, in the order of the index."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the test split, in the order of the index."""
        return self._loader("test")

    predict_dataloader = test_dataloader

    def image_paths(self, indices: NDArray[np.int64]) -> list[str]:
        """Return the paths of images, given their indices in the folder."""
        return [str(self.index.root / self.index.paths[index]) for index in indices]

    def _loader(self, split: str) -> DataLoader[Batch]:
        indices = self.indices[split]
        world_size = getattr(self.trainer, "world_size", 1)
        if len(indices) < world_size:
            raise ValueError(
                f"`split`, `manifest`, `devices`: expected an image of the {split} split for each "
                f"process ({world_size}), got {len(indices)}"
            )
        balance = None
        if split == "train" and self.sampler == "balanced":
            balance = self.index.labels[indices]
        sampler = ShardedSampler(
            len(indices),
            batch_size=self.batch_size,
            shuffle=split == "train",
            seed=self.seed,
            rank=getattr(self.trainer, "global_rank", 0),
            world_size=world_size,
            balance=balance,
        )
        if self.cache:
            dataset = SplitImages(self._read, self.index.labels, indices)
            return batch_loader(dataset, sampler, num_workers=0)
        # With a bound method, worker processes would get a copy of the whole data module.
        read = partial(read_files, index=self.index, decoding=self.decoding)
        dataset = SplitImages(read, self.index.labels, indices)
        return batch_loader(dataset, sampler, num_workers=self.num_workers)

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """Return bytes of images ``(B, 3, S, S)``, from the cache if there is one.

        Raises:
            OSError: Without a cache, a file cannot be read.
        """
        if self.cache:
            # The permuted view is channels_last without a copy.
            return torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2)
        return read_files(indices, index=self.index, decoding=self.decoding)

    def _read(self, indices: NDArray[np.int64]) -> Tensor:
        """Return bytes of images ``(B, 3, S, S)``, or their features ``(B, F)``."""
        if self.features is None:
            return self.images(indices)
        return torch.from_numpy(self.features[indices])

    @property
    def crop_size(self) -> int:
        """Side of the crops in the current epoch, in pixels.

        Raises:
            ValueError: ``crop_size`` is a list, and the number of epochs is not limited.
        """
        if self.trainer is None or len(self.crop_sizes) == 1:
            return self.crop_sizes[-1]
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ValueError("`crop_size`: a list needs a limited number of epochs, `max_epochs`")
        part = self.trainer.current_epoch * len(self.crop_sizes) // epochs
        return self.crop_sizes[min(part, len(self.crop_sizes) - 1)]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert bytes to floats, and augment in training; features are returned unchanged."""
        if batch.images.ndim == 2:
            return batch
        if self.trainer is None or not self.trainer.training:
            return batch._replace(images=to_float(batch.images))
        epoch = self.trainer.current_epoch
        images = self.augment(
            batch.images, indices=batch.keys, size=self.crop_size, seed=self.seed, epoch=epoch
        )
        step = self.trainer.fit_loop.total_batch_idx + 1  # Lightning counts this batch later
        images, targets = self.augment.mix(
            images, batch.targets, num_classes=len(self.class_names), seed=self.seed, step=step
        )
        images = images.contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images, targets=targets)

    def state_dict(self) -> dict[str, Any]:
        """Return the decoding, the fingerprints and the training images for a checkpoint."""
        trained_on = content_numbers(np.array(self.info.sha256)[self.indices["train"]])
        state: dict[str, Any] = {"class_names": self.class_names}
        state |= self.decoding
        state |= fingerprints(self.manifest_rows())
        state["trained_on"] = torch.from_numpy(trained_on)
        return state

    def describe_leaks(self, state_dict: Mapping[str, Any]) -> str:
        """Return a warning if a checkpoint was trained on validation or test images; empty if not.

        Args:
            state_dict: The state of the data module in the checkpoint, or an empty mapping.
        """
        indices = np.concatenate([self.indices["val"], self.indices["test"]])
        evaluated = content_numbers(np.array(self.info.sha256)[indices])
        num_leaks = np.isin(evaluated, state_dict.get("trained_on", [])).sum()
        if not num_leaks:
            return ""
        return (
            f"was trained on {num_leaks:,} of the {len(evaluated):,} validation and test images: "
            f"accuracy is biased upwards. For an unbiased estimate pass the manifest.csv of the "
            f"checkpoint's run folder to `manifest`."
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the decoding and the data with those of a checkpoint.

        Raises:
            ValueError: The images are those of the checkpoint, but in other splits, so images that
                it was trained on would be evaluated.
        """
        warnings = []
        for name, value in self.decoding.items():
            if value != state_dict[name]:
                warnings.append(
                    f"`{name}` is {value}; the checkpoint was trained with {state_dict[name]}"
                )
        mine = fingerprints(self.manifest_rows())
        if mine["data_fingerprint"] != state_dict["data_fingerprint"]:
            warnings.append(
                f"`root` {self.index.root} contains images or labels other than those of "
                "the checkpoint's run"
            )
            if leaks := self.describe_leaks(state_dict):
                warnings.append(f"`ckpt_path`: the checkpoint {leaks}")
        elif mine["split_fingerprint"] != state_dict["split_fingerprint"]:
            raise ValueError(
                "`data`: expected the split of the checkpoint's run, got the same images split in "
                "another way: images that the checkpoint was trained on would be evaluated. Leave "
                "out all options of the split (also folds, group_by, duplicates, contradictions, "
                "quarantine), or give the manifest.csv of the checkpoint's run folder with "
                "`manifest` (and `duplicates` ignore, if it lists duplicates in two splits)."
            )
        for warning in warnings:
            rank_zero_warn(warning)
        self.checkpoint_warnings = warnings
