from __future__ import annotations

import hashlib
import http.server
import io
import re
import tarfile
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from flowers.data import sources
from flowers.data.sources import ensure_root, flower_photos
from flowers.data.sources.flower_photos import FLOWER_PHOTOS, Archive, download_flower_photos


def tar(members: dict[str, bytes], *, extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        for info in extra:
            opened.addfile(info)
    return file.getvalue()


CONTENT = tar(
    {
        f"flower_photos/daisy/{i}.jpg": hashlib.sha256(str(i).encode()).digest() * 2000
        for i in range(5)
    }
)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` or a range of it; interrupts the first ``cuts`` answers, or never ends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.resumes, self.ends = CONTENT, 0, True, True
        self.starts: list[int] = []

    def archive(self) -> Archive:
        url = f"http://127.0.0.1:{self.server_port}/flower_photos.tgz"
        return Archive(url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        start = (
            int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if self.server.resumes
            else 0
        )
        self.server.starts.append(start)
        body = self.server.content[start:]
        self.send_response(206 if self.server.resumes else 200)
        if self.server.ends:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        with suppress(OSError):  # the client has gone
            while not self.server.ends:
                self.wfile.write(bytes(2**16))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(flower_photos.time, "sleep", lambda seconds: None)
    with Server() as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "flower_photos"


def whole(root: Path) -> bool:
    return sorted(file.name for file in root.rglob("*.jpg")) == [f"{i}.jpg" for i in range(5)]


def test_a_missing_root_is_downloaded_verified_and_extracted(server, root):
    download_flower_photos(root, archive=server.archive())
    assert whole(root)
    assert {path.name for path in root.parent.iterdir()} == {"flower_photos.tgz", "flower_photos"}


def test_an_interrupted_download_resumes_where_it_stopped(server, root):
    server.cuts = 2
    download_flower_photos(root, archive=server.archive())
    assert whole(root)
    assert server.starts == [
        0,
        len(CONTENT) // 2,
        len(CONTENT) // 2 + len(CONTENT[len(CONTENT) // 2 :]) // 2,
    ]


def test_the_next_run_resumes_the_download(server, root):
    server.cuts = 3
    with pytest.raises(ConnectionError, match=r"run the same command again"):
        download_flower_photos(root, archive=server.archive())
    assert not root.exists()
    download_flower_photos(root, archive=server.archive())
    assert whole(root)
    assert server.starts[-1] > 0


def test_a_server_that_cannot_resume_starts_over(server, root):
    server.resumes, server.cuts = False, 1
    download_flower_photos(root, archive=server.archive())
    assert whole(root)


@pytest.mark.parametrize("content", [CONTENT, b"something else"])
def test_a_server_that_never_ends_is_read_up_to_the_known_size(content, server, root):
    server.content, server.ends = content, False
    if content == CONTENT:
        download_flower_photos(root, archive=server.archive())
        assert root.with_name("flower_photos.tgz").stat().st_size == len(CONTENT)
    else:
        with pytest.raises(ConnectionError, match=r"expected the archive .* got another"):
            download_flower_photos(root, archive=server.archive())
        assert not [*root.parent.glob("*.tgz*")]


def test_an_archive_with_another_checksum_is_not_extracted(server, root):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(ConnectionError, match=r"expected the archive .* got another"):
        download_flower_photos(root, archive=server.archive())
    assert not root.exists()
    server.content = CONTENT
    download_flower_photos(root, archive=server.archive())
    assert whole(root)


def test_an_archive_put_there_by_hand_is_used_or_named(server, root):
    archive = root.with_name("flower_photos.tgz")
    archive.write_bytes(b"something else")
    with pytest.raises(ValueError, match="Remove the file"):
        download_flower_photos(root, archive=server.archive())
    assert archive.read_bytes() == b"something else"
    archive.write_bytes(CONTENT)
    download_flower_photos(root, archive=server.archive())
    assert whole(root)
    assert server.starts == []


def test_without_a_connection_all_alternatives_are_named(root, monkeypatch):
    monkeypatch.setattr(flower_photos.time, "sleep", lambda seconds: None)
    unreachable = FLOWER_PHOTOS._replace(url="http://127.0.0.1:9/flower_photos.tgz")
    with pytest.raises(ConnectionError) as caught:
        download_flower_photos(root, archive=unreachable)
    message = str(caught.value)
    for way_out in (
        str(root.with_name("flower_photos.tgz")),
        "`root`",
        "data/synthetic_flowers",
        "again",
    ):
        assert way_out in message


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt"])
def test_an_archive_that_reaches_outside_is_refused(root, name):
    hostile = tar({"flower_photos/daisy/0.jpg": b"0", name: b"1"})
    root.with_name("flower_photos.tgz").write_bytes(hostile)
    archive = Archive("http://127.0.0.1:9/", len(hostile), hashlib.sha256(hostile).hexdigest())
    if name.startswith(
        "/"
    ):  # tarfile's filter strips the slash: the file is extracted inside, then deleted
        download_flower_photos(root, archive=archive)
        assert not Path(name).exists()
    else:
        with pytest.raises(tarfile.OutsideDestinationError):
            download_flower_photos(root, archive=archive)
        assert not root.exists()


def _ensure(root, archive):
    download = partial(download_flower_photos, archive=archive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sources.SOURCES, "flower_photos", download)
        ensure_root(root)


@pytest.mark.slow
def test_processes_that_start_at_the_same_time_download_once(server, tmp_path, forkserver):
    root = tmp_path / "new" / "flower_photos"
    workers = [forkserver.Process(target=_ensure, args=(root, server.archive())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert whole(root)
    assert server.starts == [0]


def test_a_misspelt_root_downloads_nothing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)`root` .*data/flower_photos downloads.*generates"
    ):
        ensure_root(tmp_path / "flower_phtos")
    assert not (tmp_path / "flower_phtos").exists()


def test_the_published_archive_has_the_expected_checksum():
    # TensorFlow Datasets' checksum file for tf_flowers.
    assert FLOWER_PHOTOS.size == 228_813_984
    assert FLOWER_PHOTOS.sha256.startswith("4c54ace7911aaffe")
