from __future__ import annotations

import errno
import hashlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowers.data import index_folder, read_image_info
from flowers.data.quality import image_info


@pytest.fixture
def folder(photos):
    return index_folder(photos(cat=6, dog=6))


def read(folder, tmp_path):
    return read_image_info(folder.root, folder.paths, cache_dir=tmp_path / "cache")


def test_every_file_has_its_checksum_and_its_thumbnail(folder, tmp_path):
    found = read(folder, tmp_path)
    assert found.errors == {}
    for path, sha256, thumbnail in zip(folder.paths, found.sha256, found.thumbnails, strict=True):
        assert sha256 == hashlib.sha256((folder.root / path).read_bytes()).hexdigest()
        grey = (
            Image.open(folder.root / path).resize((48, 48), Image.Resampling.BICUBIC).convert("L")
        )
        assert np.abs(np.asarray(grey).astype(int) - thumbnail).max() <= 1


def test_format_mode_and_size_are_read(folder, tmp_path):
    file = folder.root / folder.paths[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("CMYK", (40, 30)).save(file, "JPEG", exif=exif)
    first, second, *_ = read(folder, tmp_path).images
    assert first[2:] == ("JPEG", "CMYK", 40, 30, 6, 1)
    assert second[2:] == ("PNG", "RGB", 32, 24, 1, 1)


def test_a_second_call_reads_nothing(folder, tmp_path, monkeypatch):
    first = read(folder, tmp_path)
    monkeypatch.setattr(image_info, "_read", None)
    second = read(folder, tmp_path)
    assert second.images == first.images
    assert np.array_equal(second.thumbnails, first.thumbnails)


def test_a_file_that_changed_is_read_again(folder, tmp_path):
    before = read(folder, tmp_path).images
    file = folder.root / folder.paths[0]
    stat = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = read(folder, tmp_path).images
    assert after[0].sha256 != before[0].sha256
    assert after[1:] == before[1:]


def test_unreadable_files_have_an_error_and_no_thumbnail(folder, tmp_path):
    (folder.root / folder.paths[1]).write_bytes(b"no image")
    whole = (folder.root / folder.paths[2]).read_bytes()
    (folder.root / folder.paths[2]).write_bytes(whole[: len(whole) // 2])
    (folder.root / folder.paths[3]).unlink()
    found = read(folder, tmp_path)
    assert sorted(found.errors) == [1, 2, 3]
    assert "got another kind of file or a broken one" in found.errors[1]
    assert "No such file" in found.errors[3]
    assert found.images[2].width == 32  # what its header says is known
    assert not found.thumbnails[[1, 2, 3]].any()
    assert read(folder, tmp_path).errors == found.errors


def test_a_file_that_could_not_be_read_is_tried_again(folder, tmp_path):
    file = folder.root / folder.paths[3]
    file.rename(file.with_suffix(".away"))
    file.symlink_to("away")  # its target is missing, as on a network disk that is not there
    assert list(read(folder, tmp_path).errors) == [3]
    file.with_name("away").write_bytes(file.with_suffix(".away").read_bytes())
    assert read(folder, tmp_path).errors == {}


def test_a_pipe_is_an_error_and_is_not_waited_for(folder, tmp_path):
    file = folder.root / folder.paths[3]
    file.unlink()
    os.mkfifo(file)
    assert "expected a file" in read(folder, tmp_path).errors[3]


def test_the_list_of_checksums_is_made_once(folder, tmp_path):
    found = read(folder, tmp_path)
    assert (
        found.sha256 is found.sha256
    )  # in a loop over N images, a list of N each would be N squared


def hidden(error):
    """Return how a decoder's error looks from outside where it is wrapped in another."""
    wrapped = OSError("broken image: ")
    wrapped.__cause__ = error
    return wrapped


LACKS = [MemoryError(), hidden(MemoryError()), OSError(errno.EMFILE, ""), OSError(errno.ENOMEM, "")]


@pytest.mark.parametrize("error", LACKS)
def test_too_little_memory_or_too_many_open_files_do_not_make_an_image_unreadable(
    folder, tmp_path, monkeypatch, error
):
    def fail(*args, **options):
        raise error

    with monkeypatch.context() as lacking:
        lacking.setattr(image_info, "load_image", fail)
        with pytest.raises(OSError, match=r"photos/cat/000\.png: cannot be read now.*limits"):
            read(folder, tmp_path)
    assert read(folder, tmp_path).errors == {}


def test_an_image_that_could_not_be_decoded_is_tried_again(folder, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError("broken data stream")  # Pillow, of a progressive JPEG, if memory is short

    with monkeypatch.context() as lacking:
        lacking.setattr(image_info, "load_image", fail)
        assert len(read(folder, tmp_path).errors) == 12
    again = read(folder, tmp_path)
    assert again.errors == {}
    fresh = read_image_info(folder.root, folder.paths, cache_dir=tmp_path / "other")
    assert again.images == fresh.images
    assert np.array_equal(again.thumbnails, fresh.thumbnails)


def _read_with_little_memory(root, paths, cache_dir, queue):
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, -1))
    try:
        queue.put(str(read_image_info(root, paths, cache_dir=cache_dir).errors))
    except OSError as error:
        queue.put(str(error))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits the memory as Linux does")
def test_an_image_larger_than_the_memory_is_not_reported_as_unreadable(
    folder, tmp_path, forkserver
):
    Image.new("L", (9400, 9400)).save(folder.root / "cat/003.png", compress_level=1)
    queue = forkserver.Queue()
    args = (folder.root, folder.paths, tmp_path / "cache", queue)
    other = forkserver.Process(target=_read_with_little_memory, args=args)
    other.start()
    message = queue.get(timeout=60)
    other.join()
    assert "cat/003.png: cannot be read now: Cannot allocate memory" in message
    assert read(folder, tmp_path).errors == {}
