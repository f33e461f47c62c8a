from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
import time
from contextlib import nullcontext, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from flowers.callbacks.cache_features import cache_features
from flowers.data import (
    FlowersDataModule,
    cache,
    datasets,
    generate_flowers,
    index_folder,
    load_image,
)
from flowers.data.cache import build_once
from flowers.data.datasets import decode_all
from flowers.data.quality.duplicates import duplicate_pairs
from flowers.tasks import TransferTask


@pytest.fixture
def folder(photos):
    return index_folder(photos(cat=6, dog=6))


def checksums(folder):
    files = [folder.root / path for path in folder.paths]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def decode(folder, tmp_path, *, sha256=None, skip=(), **options):
    info = SimpleNamespace(sha256=sha256 or checksums(folder), errors=dict.fromkeys(skip, "broken"))
    decoding = {"image_size": 16, "resize": "stretch", "interpolation": "bicubic"} | options
    return decode_all(folder, info, decoding=decoding, cache_dir=tmp_path / "cache")


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1]))


def empty(file):
    os.truncate(file, 0)


def delete(file):
    file.unlink()


def replace_by_a_folder(file):
    file.unlink()
    file.mkdir()


def replace_entry_by_a_file(file):
    shutil.rmtree(file.parent)
    file.parent.write_bytes(b"no folder")


def replace_entry_by_a_broken_link(file):
    shutil.rmtree(file.parent)
    file.parent.symlink_to("nowhere")


def garbage_checksums(file):
    file.with_name("checksums.json").write_bytes(b"0\n{}")


def damaged_checksums(file):
    flip(file.with_name("checksums.json"))


def delete_checksums(file):
    file.with_name("checksums.json").unlink()


DAMAGES = [truncate, flip, empty, delete, replace_by_a_folder, replace_entry_by_a_file]
DAMAGES += [replace_entry_by_a_broken_link, garbage_checksums, damaged_checksums, delete_checksums]
FILES = ["info.json", "thumbnails.npy", "pairs.npz", "images.npy", "features.npy"]


def read_everything(root, task, cache_dir):
    """Return all that a training reads back from the cache."""
    data = FlowersDataModule(str(root), image_size=32, crop_size=32, cache_dir=str(cache_dir))
    features = cache_features(task, data)
    info = data.info
    pairs = duplicate_pairs(info, rule="near", cache_dir=cache_dir)
    return data.manifest_rows(), info.images, info.thumbnails, data.pixels, *pairs, features


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A folder of photos, a task, a cache in which all of it is, and what is read from there."""
    folder = tmp_path_factory.mktemp("pristine")
    generate_flowers(folder / "photos", per_class=5, image_size=32)
    names = index_folder(folder / "photos").class_names
    task = TransferTask(names, arch="mobilenet_v3_small", weights="none")
    return folder, task, read_everything(folder / "photos", task, folder / "cache")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_entry_is_reported_and_built_again(pristine, tmp_path, capsys, name, damage):
    folder, task, expected = pristine
    shutil.copytree(folder / "cache", tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f"*/{name}")
    damage(file)
    capsys.readouterr()
    results = read_everything(folder / "photos", task, tmp_path / "cache")
    assert capsys.readouterr().out.count("\n") == 1
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_equal(result, value)
    read_everything(folder / "photos", task, tmp_path / "cache")
    assert capsys.readouterr().out == ""


def test_a_reader_keeps_a_damaged_entry_while_it_is_built_again(folder, tmp_path):
    # Had its file been truncated in place, SIGBUS would end this process.
    images = decode(folder, tmp_path)
    (file,) = (tmp_path / "cache").glob("*/images.npy")
    flip(file)
    again = decode(folder, tmp_path)
    assert (images != again).sum() == 1


def test_only_the_damaged_entry_is_removed(folder, tmp_path):
    decode(folder, tmp_path)
    cache_dir = tmp_path / "cache"
    (cache_dir / "notes.txt").write_text("mine")
    (entry,) = (path.parent for path in cache_dir.glob("*/images.npy"))
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    decode(folder, tmp_path)  # a link to a whole entry is as good
    assert entry.is_symlink()
    flip(tmp_path / "elsewhere" / "images.npy")
    decode(folder, tmp_path)
    assert not entry.is_symlink()
    assert names(tmp_path / "elsewhere") == ["images.npy"]
    assert (cache_dir / "notes.txt").read_text() == "mine"


def test_an_entry_larger_than_a_block_is_checked_to_its_last_byte(tmp_path, capsys):
    size = 2**24 + 5

    def build(folder):
        (folder / "large").write_bytes(bytes(size))

    entry = build_once(tmp_path, "key", build)
    assert build_once(tmp_path, "key", None) == entry
    for position in (0, 2**24 - 1, 2**24, size - 1):
        with (entry / "large").open("r+b") as opened:
            opened.seek(position)
            opened.write(b"x")
        build_once(tmp_path, "key", build)
        assert (entry / "large").read_bytes() == bytes(size)
    assert capsys.readouterr().out.count("Damaged cache entry") == 4


def test_the_cache_has_the_decoded_images(folder, tmp_path):
    images = decode(folder, tmp_path)
    for number, path in enumerate(folder.paths):
        image = load_image(folder.root / path, image_size=16, resize="stretch")
        assert np.array_equal(images[number], image.permute(1, 2, 0).numpy())


def test_a_second_call_decodes_nothing_even_after_the_folder_moved(folder, tmp_path, monkeypatch):
    first = decode(folder, tmp_path)
    folder.root.rename(tmp_path / "moved")
    monkeypatch.setattr(datasets, "load_named", None)
    moved = index_folder(tmp_path / "moved")
    assert np.array_equal(first, decode(moved, tmp_path))


@pytest.mark.parametrize("change", [{"image_size": 17}, {"resize": "crop"}, {"skip": [0]}])
def test_other_settings_decode_again(folder, tmp_path, change):
    decode(folder, tmp_path)
    entries = set((tmp_path / "cache").iterdir())
    decode(folder, tmp_path, **change)
    assert len(set((tmp_path / "cache").iterdir()) - entries) == 2  # the entry and its lock


def test_skipped_images_are_black_and_no_other_is(folder, tmp_path):
    (folder.root / folder.paths[3]).write_bytes(b"no image")
    images = decode(folder, tmp_path, skip=[3])
    assert not images[3].any()
    assert all(images[number].any() for number in range(12) if number != 3)


def test_a_file_that_broke_since_it_was_checked_is_named(folder, tmp_path):
    (folder.root / folder.paths[3]).write_bytes(b"no image")
    with pytest.raises(OSError, match=r"cat/003\.png: expected one of JPEG"):
        decode(folder, tmp_path)


def test_a_file_that_changed_since_it_was_checked_is_named_and_not_cached(folder, tmp_path):
    sha256 = checksums(folder)
    before = (folder.root / folder.paths[3]).read_bytes()
    (folder.root / folder.paths[3]).write_bytes((folder.root / folder.paths[4]).read_bytes())
    with pytest.raises(OSError, match=r"cat/003\.png: its content changed"):
        decode(folder, tmp_path, sha256=sha256)
    (folder.root / folder.paths[3]).write_bytes(before)
    images = decode(folder, tmp_path)
    image = load_image(folder.root / folder.paths[3], image_size=16, resize="stretch")
    assert np.array_equal(images[3], image.permute(1, 2, 0).numpy())


def test_a_full_disk_is_reported_before_anything_is_decoded(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"`cache_dir` .*MiB.*`cache` false"):
        decode(folder, tmp_path)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    cache_dir = tmp_path / "file" / "cache"
    with pytest.raises(OSError, match=r"`cache_dir` .*Not a directory.*; give another folder"):
        build_once(cache_dir, "key", lambda _: None)


def names(entry):
    return sorted(path.name for path in entry.iterdir() if path.name != "checksums.json")


def test_an_interrupted_build_is_not_used(tmp_path):
    def dies(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path, "key", dies)
    entry = build_once(tmp_path, "key", lambda folder: (folder / "whole").touch())
    assert names(entry) == ["whole"]
    assert not list(tmp_path.glob("*.partial"))


def _decode_elsewhere(folder, tmp_path, queue):
    output = io.StringIO()
    with redirect_stdout(output):
        images = decode(folder, tmp_path)
    queue.put((hashlib.sha256(images.tobytes()).hexdigest(), output.getvalue().count("Damaged")))


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_build_at_the_same_time_get_the_same_entry(
    folder, tmp_path, damaged, forkserver
):
    expected = hashlib.sha256(decode(folder, tmp_path).tobytes()).hexdigest()
    if damaged:
        flip(next((tmp_path / "cache").glob("*/images.npy")))
    else:
        shutil.rmtree(tmp_path / "cache")
    queue = forkserver.Queue()
    args = (folder, tmp_path, queue)
    workers = [forkserver.Process(target=_decode_elsewhere, args=args) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert {digest for digest, _ in results} == {expected}
    assert sum(lines for _, lines in results) == damaged


def _builds_for_ever(cache_dir):
    def build(folder):
        (folder / "half").touch()
        time.sleep(600)

    build_once(cache_dir, "key", build)


@pytest.mark.slow
def test_waiting_for_another_process_is_reported_and_a_killed_one_is_replaced(
    tmp_path, monkeypatch, capsys, forkserver
):
    monkeypatch.setattr(cache, "QUIET_SECONDS", 0.1)
    other = forkserver.Process(target=_builds_for_ever, args=(tmp_path,))
    other.start()
    while not list(tmp_path.glob("key.*.partial/half")):
        assert other.is_alive()
        time.sleep(0.02)
    threading.Timer(0.5, other.kill).start()
    entry = build_once(tmp_path, "key", lambda folder: (folder / "whole").touch())
    other.join()
    assert names(entry) == ["whole"]
    assert (
        capsys.readouterr().out
        == f"Waiting for another process, which holds {tmp_path / 'key.lock'}\n"
    )


def test_what_a_killed_process_left_of_another_entry_is_removed(tmp_path):
    left, building, elsewhere = (tmp_path / f"{name}.partial" for name in ("a.x", "b.x", "c.other"))
    for folder in (left, building, elsewhere):
        folder.mkdir()
        (folder / "half").touch()
    with pytest.MonkeyPatch.context() as patch, FileLock(tmp_path / "b.lock"):
        patch.setattr(cache.platform, "node", lambda: "x")
        build_once(tmp_path, "key", lambda folder: (folder / "whole").touch())
        assert sorted(tmp_path.glob("*.partial")) == [building, elsewhere]


def test_of_two_machines_without_common_locks_the_entry_of_the_faster_one_is_used(
    tmp_path, monkeypatch
):
    def build_elsewhere(folder):
        with monkeypatch.context() as other_machine:
            other_machine.setattr(cache.platform, "node", lambda: "elsewhere")
            other_machine.setattr(cache, "FileLock", lambda file: nullcontext())
            other_machine.setattr(cache, "held", lambda lock: lock)
            build_once(tmp_path, "key", lambda folder: (folder / "first").touch())
        (folder / "second").touch()

    entry = build_once(tmp_path, "key", build_elsewhere)
    assert names(entry) == ["first"]
    assert not list(tmp_path.glob("*.partial"))


def test_an_entry_that_cannot_be_renamed_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        build_once(tmp_path, "key", lambda folder: folder.rmdir())
