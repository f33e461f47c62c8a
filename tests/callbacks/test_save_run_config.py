from __future__ import annotations

from flowers.callbacks.save_run_config import _write_new


def test_nothing_written_is_ever_replaced(tmp_path):
    file = tmp_path / "config.yaml"
    for text in ("a", "a", "b", "c", "b", "a"):
        _write_new(file, text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "config.yaml": "a",
        "config-2.yaml": "b",
        "config-3.yaml": "c",
    }
