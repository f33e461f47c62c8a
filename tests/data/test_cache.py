from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from flowers.data import cache, decode_all, index_folder, load_image


@pytest.fixture
def folder(photos):
    return index_folder(photos(cat=6, dog=6))


def decode(folder, tmp_path, **options):
    options = {"image_size": 16, "resize": "stretch", "cache_dir": tmp_path / "cache"} | options
    return decode_all(folder.root, folder.paths, **options)


def test_the_cache_holds_what_decoding_gives(folder, tmp_path):
    decoded = decode(folder, tmp_path)
    assert decoded.errors == {}
    for number, path in enumerate(folder.paths):
        image = load_image(folder.root / path, image_size=16, resize="stretch")
        assert np.array_equal(decoded.images[number], image.permute(1, 2, 0).numpy())
        assert decoded.sha256[number] == hashlib.sha256((folder.root / path).read_bytes()).hexdigest()


def test_a_second_call_decodes_nothing(folder, tmp_path, monkeypatch):
    first = decode(folder, tmp_path)
    monkeypatch.setattr(cache, "load_image", None)
    second = decode(folder, tmp_path)
    assert np.array_equal(first.images, second.images)
    assert second.fingerprint == first.fingerprint


def test_any_change_of_files_or_settings_is_decoded_anew(folder, tmp_path):
    before = decode(folder, tmp_path).fingerprint
    assert decode(folder, tmp_path, image_size=17).fingerprint != before
    assert decode(folder, tmp_path, resize="crop").fingerprint != before
    file = folder.root / folder.paths[0]
    stat = file.stat()
    Image.new("RGB", (32, 24), "red").save(file)
    after = decode(folder, tmp_path)
    assert after.fingerprint != before
    assert after.images[0, 8, 8].tolist() == [255, 0, 0]
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert decode(folder, tmp_path).fingerprint != after.fingerprint


def test_bad_files_are_reported_and_never_replaced(folder, tmp_path):
    (folder.root / folder.paths[1]).write_bytes(b"no image")
    whole = (folder.root / folder.paths[2]).read_bytes()
    (folder.root / folder.paths[2]).write_bytes(whole[: len(whole) // 2])
    (folder.root / folder.paths[3]).unlink()
    decoded = decode(folder, tmp_path)
    assert sorted(decoded.errors) == [1, 2, 3]
    assert "cannot identify" in decoded.errors[1]
    assert "BytesIO" not in decoded.errors[1]
    assert "No such file" in decoded.errors[3]
    assert not decoded.images[[1, 2, 3]].any()
    assert decode(folder, tmp_path).errors == decoded.errors


def test_a_file_that_could_not_be_read_is_tried_again(folder, tmp_path):
    file = folder.root / folder.paths[3]
    file.rename(file.with_suffix(".away"))
    file.symlink_to("away")  # its target is missing, as on a network disk that is not there
    assert list(decode(folder, tmp_path).errors) == [3]
    file.with_name("away").write_bytes(file.with_suffix(".away").read_bytes())
    assert decode(folder, tmp_path).errors == {}


def test_what_is_no_file_is_an_error_and_no_wait(folder, tmp_path):
    file = folder.root / folder.paths[3]
    file.unlink()
    os.mkfifo(file)
    assert "expected a file" in decode(folder, tmp_path).errors[3]


def test_facts_alone_take_no_pixels(folder, tmp_path):
    facts = decode(folder, tmp_path, keep_pixels=False)
    assert facts.images is None
    assert facts.sha256 == decode(folder, tmp_path).sha256
    assert not (tmp_path / "cache" / facts.fingerprint / "images.npy").exists()


def test_a_full_disk_is_said_before_anything_is_decoded(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"--data\.cache_dir .*MiB.*--data\.cache false"):
        decode(folder, tmp_path)


def test_a_build_that_was_cut_off_is_not_taken_for_a_whole_one(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache.json, "dumps", None)  # dies after the pixels, before the facts
        with pytest.raises(TypeError):
            decode(folder, tmp_path)
    decoded = decode(folder, tmp_path)
    assert decoded.images.any()
    assert not list((tmp_path / "cache").glob("*.partial"))


def _decode_elsewhere(root, paths, cache_dir, queue):
    decoded = decode_all(root, paths, image_size=16, resize="stretch", cache_dir=cache_dir)
    queue.put(hashlib.sha256(decoded.images.tobytes()).hexdigest())


def test_processes_that_build_at_once_agree(folder, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowers.data.cache"])
    queue = context.Queue()
    args = (folder.root, folder.paths, tmp_path / "cache", queue)
    workers = [context.Process(target=_decode_elsewhere, args=args) for _ in range(3)]
    for worker in workers:
        worker.start()
    digests = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert digests == {hashlib.sha256(decode(folder, tmp_path).images.tobytes()).hexdigest()}
