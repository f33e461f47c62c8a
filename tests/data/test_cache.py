from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest

from flowers.data import cache, decode_all, index_folder, load_image
from flowers.data.cache import build_once


@pytest.fixture
def folder(photos):
    return index_folder(photos(cat=6, dog=6))


def decode(folder, tmp_path, **options):
    sha256 = [hashlib.sha256((folder.root / path).read_bytes()).hexdigest() for path in folder.paths]
    options = {"image_size": 16, "resize": "stretch", "cache_dir": tmp_path / "cache", "sha256": sha256} | options
    return decode_all(folder.root, folder.paths, **options)


def test_the_cache_holds_what_decoding_gives(folder, tmp_path):
    images = decode(folder, tmp_path)
    for number, path in enumerate(folder.paths):
        image = load_image(folder.root / path, image_size=16, resize="stretch")
        assert np.array_equal(images[number], image.permute(1, 2, 0).numpy())


def test_a_second_call_decodes_nothing_even_from_another_place(folder, tmp_path, monkeypatch):
    first = decode(folder, tmp_path)
    folder.root.rename(tmp_path / "moved")
    monkeypatch.setattr(cache, "load_named", None)
    moved = index_folder(tmp_path / "moved")
    assert np.array_equal(first, decode(moved, tmp_path))


@pytest.mark.parametrize("change", [{"image_size": 17}, {"resize": "crop"}, {"sha256": ["other"] * 12}, {"skip": [0]}])
def test_any_change_of_contents_or_settings_is_decoded_anew(folder, tmp_path, change):
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


def test_a_full_disk_is_said_before_anything_is_decoded(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"--data\.cache_dir .*MiB.*--data\.cache false"):
        decode(folder, tmp_path)


def test_a_build_that_was_cut_off_is_not_taken_for_a_whole_one(tmp_path):
    def dies(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path, "key", dies)
    entry = build_once(tmp_path, "key", lambda folder: (folder / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]
    assert not list(tmp_path.glob("*.partial"))


def _decode_elsewhere(root, paths, sha256, cache_dir, queue):
    images = decode_all(root, paths, sha256=sha256, image_size=16, resize="stretch", cache_dir=cache_dir)
    queue.put(hashlib.sha256(images.tobytes()).hexdigest())


def test_processes_that_build_at_once_agree(folder, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowers.data.cache"])
    queue = context.Queue()
    args = (folder.root, folder.paths, ["x"] * 12, tmp_path / "cache", queue)
    workers = [context.Process(target=_decode_elsewhere, args=args) for _ in range(3)]
    for worker in workers:
        worker.start()
    digests = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert digests == {hashlib.sha256(decode(folder, tmp_path).tobytes()).hexdigest()}


def _builds_for_ever(cache_dir):
    def build(folder):
        (folder / "half").touch()
        time.sleep(600)

    build_once(cache_dir, "key", build)


def test_who_waits_for_another_process_says_so_and_builds_if_it_is_killed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "_QUIET_SECONDS", 0.1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowers.data.cache"])
    other = context.Process(target=_builds_for_ever, args=(tmp_path,))
    other.start()
    while not list(tmp_path.glob("key.*.partial/half")):
        assert other.is_alive()
        time.sleep(0.02)
    threading.Timer(0.5, other.kill).start()
    entry = build_once(tmp_path, "key", lambda folder: (folder / "whole").touch())
    other.join()
    assert [path.name for path in entry.iterdir()] == ["whole"]
    assert capsys.readouterr().out == f"Waiting for another process, which holds {tmp_path / 'key.lock'}\n"


def test_of_two_machines_whose_locks_do_not_meet_the_faster_one_is_taken(tmp_path, monkeypatch):
    def build_elsewhere(folder):
        with monkeypatch.context() as other_machine:
            other_machine.setattr(cache.platform, "node", lambda: "elsewhere")
            other_machine.setattr(cache, "FileLock", lambda file: nullcontext())
            other_machine.setattr(cache, "_held", lambda lock: lock)
            build_once(tmp_path, "key", lambda folder: (folder / "first").touch())
        (folder / "second").touch()

    entry = build_once(tmp_path, "key", build_elsewhere)
    assert [path.name for path in entry.iterdir()] == ["first"]
    assert not list(tmp_path.glob("*.partial"))


def test_what_cannot_be_moved_to_its_place_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        build_once(tmp_path, "key", lambda folder: folder.rmdir())
