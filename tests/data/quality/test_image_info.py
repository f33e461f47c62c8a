from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flowers.data import index_folder, read_image_info
from flowers.data.quality import image_info


@pytest.fixture
def folder(photos):
    return index_folder(photos(cat=6, dog=6))


def read(folder, tmp_path):
    return read_image_info(folder.root, folder.paths, cache_dir=tmp_path / "cache")


def test_every_file_has_its_checksum_and_its_thumbnail(folder, tmp_path):
    info = read(folder, tmp_path)
    assert info.errors == {}
    for path, sha256, thumbnail in zip(folder.paths, info.sha256, info.thumbnails, strict=True):
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
    assert first[2:] == ("JPEG", "CMYK", 40, 30, 6, False, "")
    assert second[2:] == ("PNG", "RGB", 32, 24, 1, False, "")


ODD = {
    "12 bits.png": "12 of its 16 bits are in use",
    "no end.jpg": "its end marker is missing",
    "long text.png": "it has a text of more than 1 MiB",
}


def write_odd_files(folder: Path) -> None:
    grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(grey).save(folder / "12 bits.png")
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x9286] = b"\xff\xd8\xff\xd9"  # as the end marker of a preview
    Image.fromarray((grey // 16).astype(np.uint8)).save(content, "JPEG", exif=exif)
    (folder / "no end.jpg").write_bytes(content.getvalue()[:-2])
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", 2**21 * "x", zip=True)
    Image.new("RGB", (64, 64), "red").save(folder / "long text.png", pnginfo=text)


def test_what_is_unusual_about_a_file_is_noted(tmp_path):
    write_odd_files(tmp_path)
    Image.fromarray(np.full((64, 64), 4096, dtype=np.uint16)).save(tmp_path / "16 bits.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.jpg")
    paths = [*ODD, "16 bits.png", "plain.jpg"]
    info = read_image_info(tmp_path, paths, cache_dir=tmp_path / "cache")
    assert info.errors == {}
    assert [image.notes for image in info.images] == [*ODD.values(), "", ""]


def tiff(num_frames: int) -> bytes:
    """Return a TIFF file of grey images of a pixel."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    size = 2 + len(entries) + 4
    content = [b"II*\0" + struct.pack("<I", 8)]
    for number in range(1, num_frames + 1):
        following = 8 + number * size if number < num_frames else 0
        content.append(struct.pack("<H", len(tags)) + entries + struct.pack("<I", following))
    return b"".join(content)


def test_a_tiff_with_very_many_images_is_read_at_once(tmp_path):
    (tmp_path / "many.tif").write_bytes(tiff(40_000))
    (tmp_path / "one.tif").write_bytes(tiff(1))
    start = time.perf_counter()
    info = read_image_info(tmp_path, ["many.tif", "one.tif"], cache_dir=tmp_path / "cache")
    assert time.perf_counter() - start < 10  # minutes, were the images counted
    assert info.errors == {}
    assert [image.animated for image in info.images] == [True, False]


def test_a_second_call_reads_nothing(folder, tmp_path, monkeypatch):
    first = read(folder, tmp_path)
    monkeypatch.setattr(image_info, "open_image", None)
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
    info = read(folder, tmp_path)
    assert sorted(info.errors) == [1, 2, 3]
    assert "got another format, a broken file" in info.errors[1]
    assert "No such file" in info.errors[3]
    assert info.images[2].width == 32  # what its header says is known
    assert not info.thumbnails[[1, 2, 3]].any()
    assert read(folder, tmp_path).errors == info.errors


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
    info = read(folder, tmp_path)
    assert (
        info.sha256 is info.sha256
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


@pytest.mark.slow
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
