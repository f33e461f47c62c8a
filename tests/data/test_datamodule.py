from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from flowers.cli import training
from flowers.data import BatchAugmentation, FlowersDataModule, load_image, read_manifest
from flowers.data.splitting.manifest import manifest_text


def module(root, **options) -> FlowersDataModule:
    data = FlowersDataModule(
        str(root), **({"image_size": 32, "crop_size": 24, "batch_size": 16} | options)
    )
    data.setup("fit")
    return data


def batches(loader):
    """Return image and label by index."""
    images = {}
    for batch in loader:
        for image, label, index in zip(batch.images, batch.targets, batch.indices, strict=True):
            images[int(index)] = (image, int(label))
    return images


def test_class_names_are_known_at_construction(synthetic):
    names = FlowersDataModule(str(synthetic)).class_names
    assert names == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


def test_the_loaders_cover_the_splits(synthetic):
    data = module(synthetic)
    assert {name: len(indices) for name, indices in data.indices.items()} == {
        "train": 120,
        "val": 15,
        "test": 15,
    }
    assert set(batches(data.val_dataloader())) == set(data.indices["val"].tolist())
    assert set(batches(data.test_dataloader())) == set(data.indices["test"].tolist())
    assert set(batches(data.train_dataloader())) <= set(data.indices["train"].tolist())


def test_cached_and_streamed_batches_are_the_same(synthetic):
    cached = batches(module(synthetic).val_dataloader())
    streamed = batches(module(synthetic, cache=False, num_workers=0).val_dataloader())
    assert cached.keys() == streamed.keys()
    for index, (image, label) in cached.items():
        assert torch.equal(image, streamed[index][0])
        assert label == streamed[index][1]


def test_workers_stream_the_same_images(synthetic):
    data = module(synthetic, cache=False, num_workers=1)
    streamed = batches(data.test_dataloader())
    for index, (image, _) in streamed.items():
        assert torch.equal(
            image, load_image(synthetic / data.index.paths[index], image_size=32, resize="stretch")
        )


def test_photos_up_to_the_limit_are_read_also_by_workers(photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # to restore it
    root = photos(cat=10, dog=10)
    Image.new("L", (1100, 950)).save(root / "cat" / "large.png")
    with pytest.raises(OSError, match=r"large\.png: Image size .*`max_megapixels` allows larger"):
        module(root, max_megapixels=1).setup("fit")
    data = module(root, max_megapixels=3, cache=False, num_workers=1, duplicates="ignore")
    data.setup("fit")
    [number] = [i for i, path in enumerate(data.index.paths) if path.endswith("large.png")]
    data.indices = {name: np.array([number]) for name in ("train", "val", "test")}
    loader = data.val_dataloader()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # what a worker has that is not forked
    assert [*batches(loader)] == [number]


def test_identical_files_are_in_one_split(photos):
    root = photos(cat=20, dog=20)
    for number in range(20):
        (root / "cat" / f"copy{number}.png").write_bytes(
            (root / "cat" / f"{number:03d}.png").read_bytes()
        )
    splits = {}
    for row in module(root).manifest_rows():
        splits.setdefault(row.sha256, set()).add(row.split)
    assert all(len(names) == 1 for names in splits.values())
    assert len(splits) == 40


def test_resized_and_recompressed_duplicates_are_in_one_split_unless_exact_ones_are_requested(
    synthetic, tmp_path
):
    root = tmp_path / "photos"
    shutil.copytree(synthetic, root)
    for path in sorted((root / "daisy").iterdir()):
        Image.open(path).resize((40, 40)).save(path.with_stem(f"{path.stem}-small"), quality=60)

    def pairs_apart(**options):
        sides = {row.path: row.split for row in module(root, **options).manifest_rows()}
        duplicates = [path for path in sides if "-small" in path]
        assert len(duplicates) == 30
        return sum(sides[path] != sides[path.replace("-small", "")] for path in duplicates)

    assert pairs_apart() == 0
    assert pairs_apart(folds=3, fold=1) == 0
    assert pairs_apart(duplicates="exact") > 0


def test_an_unknown_option_is_refused(synthetic):
    with pytest.raises(TypeError, match="foldz"):
        module(synthetic, foldz=3)


def test_a_manifest_gives_the_same_split_back(synthetic, tmp_path):
    data = module(synthetic, split_seed=3)
    file = tmp_path / "manifest.csv"
    file.write_text(manifest_text(data.manifest_rows()))
    again = module(synthetic, manifest=str(file))
    assert again.manifest_rows() == data.manifest_rows() == read_manifest(file)
    assert not np.array_equal(module(synthetic).indices["test"], again.indices["test"])


@pytest.fixture
def divided(synthetic, tmp_path):
    """Return a folder of three splits; train and val each hold an image of a later split."""
    root = tmp_path / "divided"
    for file in synthetic.glob("*/*.jpg"):
        split = ("train", "Valid", "TEST")[int(file.stem) % 3]
        (root / split / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / split / file.parent.name / file.name)
    [leak, other] = sorted((root / "TEST" / "roses").iterdir())[:2]
    shutil.copy(leak, root / "train" / "roses" / "leak.jpg")
    shutil.copy(other, root / "Valid" / "roses" / "leak.jpg")
    return root


def test_a_divided_folder_keeps_its_splits_and_its_manifest_gives_them_back(
    divided, synthetic, tmp_path, caplog
):
    with caplog.at_level("INFO"):
        data = module(divided)
    assert data.class_names == FlowersDataModule(str(synthetic)).class_names
    splits = {"train": "train", "Valid": "val", "TEST": "test"}
    for row in data.manifest_rows():
        folder, label, name = row.path.split("/")
        assert row.split == ("skipped" if name == "leak.jpg" else splits[folder])
        assert row.label == label
    assert "2 images are duplicates of a validation or test image, left out: " in caplog.text
    assert {name: len(indices) for name, indices in data.indices.items()} == {
        "train": 50,
        "val": 50,
        "test": 50,
    }
    file = tmp_path / "manifest.csv"
    file.write_text(manifest_text(data.manifest_rows()))
    again = module(divided, manifest=str(file))
    assert again.manifest_rows() == data.manifest_rows()
    again.load_state_dict(data.state_dict())


def test_options_that_split_a_divided_folder_otherwise_are_refused_before_any_work(divided):
    with pytest.raises(
        ValueError, match=r"`folds` 3: expected no value together with the split folders"
    ):
        FlowersDataModule(str(divided), folds=3)


def test_ignored_files_are_counted_in_one_line_once(photos, caplog):
    root = photos(cat=12, dog=12)
    for name in ("LICENSE.txt", "cat/1.heic", "cat/2.heic", "dog/3.JPG_large"):
        (root / name).touch()
    with caplog.at_level("INFO"):
        data = module(root)
        data.setup("test")
    [line] = [line for line in caplog.messages if "ignored: " in line]
    assert line.startswith("3 files are ignored: name does not end in .jpg, ")
    assert "(.heic 2, .JPG_large 1)" in line


def test_unreadable_images_stop_the_run_and_are_all_named(photos):
    root = photos(cat=12, dog=12)
    for name in ("cat/003.png", "dog/004.png"):
        (root / name).write_bytes((root / name).read_bytes()[:200])
    with pytest.raises(
        OSError, match=r"(?s)2 of 24 images.*cat/003\.png.*dog/004\.png.*`on_bad_image` skip"
    ):
        module(root)


def test_unreadable_images_can_be_skipped_and_are_marked_in_the_manifest(photos):
    root = photos(cat=12, dog=12)
    (root / "cat/003.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"(?s)1 of 24 images.*cat/003\.png"):
        data = module(root, on_bad_image="skip")
    skipped = [row.path for row in data.manifest_rows() if row.split == "skipped"]
    assert skipped == ["cat/003.png"]
    bad = data.index.paths.index("cat/003.png")
    assert bad not in np.concatenate(list(data.indices.values()))
    assert data.indices["train"].size + data.indices["val"].size + data.indices["test"].size == 23


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 40}, r"`crop_size`: expected 1 to `image_size` \(32\)"),
        ({"crop_size": [24, 40]}, r"`crop_size`: expected 1 to `image_size` \(32\)"),
        ({"crop_size": []}, r"`crop_size`: expected 1 to `image_size` \(32\)"),
        ({"crop_size": 0}, r"`crop_size`: expected 1 to `image_size` \(32\)"),
        ({"batch_size": 0}, r"`batch_size`"),
        ({"val_fraction": 0.9, "test_fraction": 0.2}, r"`val_fraction`"),
        ({"root": "nowhere"}, r"`root` nowhere"),
    ],
)
def test_an_option_out_of_range_is_named(synthetic, options, message):
    with pytest.raises((ValueError, OSError), match=message):
        module(options.pop("root", synthetic), **options)


def test_a_cache_among_the_photos_is_refused(synthetic):
    with pytest.raises(ValueError, match=r"`cache_dir`"):
        module(synthetic, cache_dir=str(synthetic / "cache"))


def test_an_empty_split_is_named(synthetic):
    data = module(synthetic, test_fraction=0)
    with pytest.raises(ValueError, match=r"`split`.* an image of the test split .*, got 0"):
        data.test_dataloader()


def test_more_processes_than_images_are_named(synthetic):
    data = module(synthetic)
    data.trainer = SimpleNamespace(global_rank=0, world_size=16)
    assert len(data.train_dataloader().sampler) == 120 // 16
    with pytest.raises(
        ValueError, match=r"`devices`.* of the val split for each process \(16\), got 15"
    ):
        data.val_dataloader()


def test_a_checkpoint_of_another_split_of_the_same_images_is_refused(synthetic):
    data, other = module(synthetic), module(synthetic, split_seed=1)
    data.load_state_dict(data.state_dict())
    with pytest.raises(ValueError, match="split in another way"):
        other.load_state_dict(data.state_dict())


def test_other_images_or_another_size_than_those_of_the_checkpoint_are_reported(synthetic, photos):
    data = module(synthetic)
    with pytest.warns(UserWarning, match="contains images or labels other than"):
        module(photos(cat=10, dog=10)).load_state_dict(data.state_dict())
    message = "`image_size` is 48; the checkpoint was trained with 32"
    with pytest.warns(UserWarning, match=message):
        module(synthetic, image_size=48).load_state_dict(data.state_dict())


def test_evaluation_batches_are_the_decoded_images_as_floats(synthetic):
    data = module(synthetic, augment=BatchAugmentation(cutmix_prob=1.0))
    batch = next(iter(data.val_dataloader()))
    out = data.on_after_batch_transfer(batch, 0)  # no trainer: not training
    assert torch.equal(out.images, batch.images / 255)
    assert torch.equal(out.targets, batch.targets)


@pytest.mark.parametrize("cache", [True, False])
def test_an_image_repeated_in_a_balanced_epoch_has_another_augmentation_each_time(cache, photos):
    data = module(photos(cat=40, dog=8), sampler="balanced", cache=cache, num_workers=0)
    fit_loop = SimpleNamespace(total_batch_idx=0)
    trainer = SimpleNamespace(
        global_rank=0, world_size=1, training=True, current_epoch=3, fit_loop=fit_loop
    )
    data.trainer = trainer
    data.augment = BatchAugmentation(cutmix_prob=0.0)

    def epoch():
        views = {}
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        for batch in loader:
            augmented = data.on_after_batch_transfer(batch, 0).images
            for index, image in zip(batch.indices.tolist(), augmented, strict=True):
                views.setdefault(index, []).append(image)
        return views

    views = epoch()
    repeated = [images for images in views.values() if len(images) > 1]
    assert len(repeated) >= 5
    for images in repeated:
        assert not any(torch.equal(a, b) for n, a in enumerate(images) for b in images[:n])
    again = epoch()
    assert all(
        torch.equal(a, b)
        for index in views
        for a, b in zip(views[index], again[index], strict=True)
    )


def exchange_names(first, second):
    first.rename(first.with_name("other"))
    second.rename(first)
    first.with_name("other").rename(second)


def exchange_contents(first, second):
    contents = [first.read_bytes(), second.read_bytes()]
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])


def replace(first, second):
    new = first.with_name("new")
    new.write_bytes(second.read_bytes())
    new.replace(first)


def retarget(first, second):
    first.unlink()
    first.symlink_to(second.resolve())


@pytest.mark.parametrize("change", [exchange_names, exchange_contents, replace, retarget])
def test_a_file_that_changed_but_not_in_size_and_time_is_read_again(photos, tmp_path, change):
    root = photos(cat=12, dog=12)
    for file in sorted(root.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    if change is retarget:
        (root / "cat" / "000.bmp").rename(tmp_path / "000.bmp")
        (root / "dog" / "000.bmp").rename(tmp_path / "001.bmp")
        (root / "cat" / "000.bmp").symlink_to(tmp_path / "000.bmp")
        (root / "dog" / "000.bmp").symlink_to(tmp_path / "001.bmp")

    def set_times():
        for file in root.rglob("*.bmp"):
            os.utime(file, ns=(10**18, 10**18))

    set_times()
    options = {"cache_dir": str(tmp_path / "cache")}
    before = module(root, **options)
    change(root / "cat" / "000.bmp", root / "dog" / "000.bmp")
    set_times()
    after = module(root, **options)
    assert after.manifest_rows()[0].sha256 != before.manifest_rows()[0].sha256
    for row, pixels in zip(after.manifest_rows(), after.pixels, strict=True):
        assert row.sha256 == hashlib.sha256((root / row.path).read_bytes()).hexdigest()
        image = load_image(root / row.path, image_size=32, resize="stretch")
        assert np.array_equal(pixels, image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("sides", "epochs", "expected"),
    [
        ([16], 3, [16, 16, 16]),
        ([16, 16, 24, 32], 8, [16, 16, 16, 16, 24, 24, 32, 32]),
        ([16, 24, 32], 2, [16, 24]),
        ([16, 32], 5, [16, 16, 16, 32, 32]),
    ],
)
def test_a_list_of_crop_sizes_divides_the_training(synthetic, sides, epochs, expected):
    data = module(synthetic, crop_size=sides)
    sizes = []

    class Net(LightningModule):
        def training_step(self, batch, batch_idx):
            sizes.append(batch.images.shape[-1])

        def configure_optimizers(self):
            return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            limit_train_batches=1,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Net(), data)
    assert sizes == expected


def test_a_list_of_crop_sizes_needs_the_number_of_epochs(synthetic):
    data = module(synthetic, crop_size=[16, 32])
    data.trainer = SimpleNamespace(max_epochs=-1, current_epoch=0)
    with pytest.raises(ValueError, match=r"`crop_size`: a list needs .* `max_epochs`"):
        _ = data.crop_size


class RecordBatches(Callback):
    """Records the indices of the images of every training step."""

    indices: ClassVar[list[int]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.indices.extend(batch.indices.tolist())


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfit_batches_takes_training_images_only(fit_small, synthetic, tmp_path):
    RecordBatches.indices.clear()
    options = ["--trainer.overfit_batches=1", "--trainer.max_epochs=1"]
    options += ["--trainer.callbacks+", f"{__name__}.RecordBatches"]
    run = fit_small(tmp_path, synthetic, *options)
    assert RecordBatches.indices
    assert set(RecordBatches.indices) <= set(run.datamodule.indices["train"].tolist())


def test_runs_and_reports_among_the_photos_are_refused(
    fit_small, finished_run, synthetic, tmp_path
):
    root = tmp_path / "photos"
    shutil.copytree(synthetic, root)
    message = r"--trainer\.default_root_dir .*runs: expected a folder outside --data"
    with pytest.raises(ValueError, match=message):
        fit_small(tmp_path, root, f"--trainer.default_root_dir={root / 'runs'}")
    best = finished_run / "checkpoints" / "best.ckpt"
    words = ["--ckpt_path", str(best), f"--data.root={root}", f"--report.folder={root / 'out'}"]
    message = r"--report\.folder .*out: expected a folder outside --data"
    with pytest.raises(ValueError, match=message):
        training.main(["test", *words])
    assert {path.name for path in root.iterdir()} == {path.name for path in synthetic.iterdir()}


def test_weights_trained_on_images_that_this_run_evaluates_are_reported(synthetic, tmp_path):
    words = ["--model=TransferTask", "--model.arch=squeezenet1_1", f"--data.root={synthetic}"]
    words += ["--data.image_size=64", "--data.crop_size=64", "--trainer.max_epochs=1"]
    words += ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    folder = f"--trainer.default_root_dir={tmp_path}"
    training.main(["fit", *words, "--model.weights=none", folder])
    best = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"
    words += [f"--model.weights={best}", "--trainer.fast_dev_run=true"]
    training.main(["fit", *words])  # no warning with the same split
    message = r"best\.ckpt was trained on \d+ of the 30 validation and test images"
    with pytest.warns(UserWarning, match=message):
        training.main(["fit", *words, "--data.split_seed=7"])


def test_evaluating_images_that_the_checkpoint_was_trained_on_is_reported(
    finished_run, synthetic, tmp_path
):
    root = tmp_path / "other" / "photos"
    shutil.copytree(synthetic, root)
    next((root / "daisy").iterdir()).unlink()
    best = str(finished_run / "checkpoints" / "best.ckpt")
    words = ["--ckpt_path", best, "--data.root", str(root), "--data.split_seed=7"]
    other_data = "contains images or labels other than those of the checkpoint's run"
    leak = r"the checkpoint was trained on \d+ of the \d+ validation and test images"
    with (
        pytest.warns(UserWarning, match=other_data),
        pytest.warns(UserWarning, match=leak),
    ):
        training.main(["test", *words])


def test_a_class_without_training_images_is_named_before_a_training_but_can_be_tested(
    synthetic, tmp_path
):
    rows = []
    for row in module(synthetic).manifest_rows():
        rows.append(row._replace(split="test") if row.label == "roses" else row)
    file = tmp_path / "manifest.csv"
    file.write_text(manifest_text(rows))
    with pytest.raises(ValueError, match=r"`manifest`: expected training images .*'roses': 0"):
        module(synthetic, manifest=str(file))
    FlowersDataModule(str(synthetic), image_size=32, crop_size=24, manifest=str(file)).setup("test")


def test_classes_that_differ_only_in_spelling_are_reported(photos):
    data = FlowersDataModule(str(photos(rose=6, Rose=6, tulip=6)), image_size=8, crop_size=8)
    with pytest.warns(UserWarning, match="'Rose', 'rose' are different classes"):
        data.setup("fit")
