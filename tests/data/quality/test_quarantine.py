from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flowers.data.quality.quarantine import QuarantineRow, quarantine_text, quarantined_images

PATHS = ("cat/0.jpg", "cat/1.jpg", 'dog/a, "quoted".jpg', "dog/\udcff.jpg", "=1+1/-2.jpg")
INDEX = SimpleNamespace(paths=PATHS)
INFO = SimpleNamespace(sha256=["sha0", "sha1", "sha2", "sha3", "sha4"])


def read(file):
    quarantined, unknown = quarantined_images(INDEX, INFO, quarantine=str(file))
    return np.flatnonzero(quarantined).tolist(), unknown


def test_a_list_reads_back_as_it_was_written(tmp_path):
    rows = []
    for path, checksum in zip(PATHS[1:], INFO.sha256[1:], strict=True):
        rows.append(QuarantineRow(path, checksum, "blurred"))
    file = tmp_path / "quarantine.csv"
    file.write_bytes(quarantine_text(rows).encode("utf-8", "surrogateescape"))
    assert read(file) == ([1, 2, 3, 4], [])
    assert "'=1+1/-2.jpg,sha4" in file.read_text(errors="replace")


def test_missing_and_changed_files_are_returned(tmp_path):
    rows = [
        QuarantineRow("cat/0.jpg", "checksum before it was repaired", "broken"),
        QuarantineRow("cat/gone.jpg", "sha", "broken"),
        QuarantineRow("cat/1.jpg", "", "a wolf"),  # whatever its content
    ]
    file = tmp_path / "quarantine.csv"
    file.write_text(quarantine_text(rows))
    assert read(file) == ([1], ["cat/0.jpg", "cat/gone.jpg"])


def test_a_list_written_by_a_spreadsheet_or_by_hand_is_read(tmp_path):
    file = tmp_path / "quarantine.csv"
    file.write_text("path,sha256,reason\ncat/0.jpg\ncat/1.jpg,,a wolf\n\n", encoding="utf-8-sig")
    assert read(file) == ([0, 1], [])
    file.write_text("path;sha256;reason\ncat/0.jpg;sha0;a; wolf\n;;\n", encoding="utf-8-sig")
    assert read(file) == ([0], [])


def test_without_a_list_no_image_is_in_quarantine():
    quarantined, unknown = quarantined_images(INDEX, INFO, quarantine=None)
    assert quarantined.tolist() == [False] * len(PATHS)
    assert unknown == []


@pytest.mark.parametrize("text", ["", "file,why\na,b\n", "path,sha256,split\na,b,train\n"])
def test_another_file_is_refused(text, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(text)
    message = r"`quarantine` .*list\.csv: expected a CSV file with the columns path"
    with pytest.raises(ValueError, match=message):
        read(file)


def test_a_missing_list_is_named():
    with pytest.raises(FileNotFoundError, match=r"`quarantine` nowhere\.csv"):
        read("nowhere.csv")
