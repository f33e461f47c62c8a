"""The cache of the names of all options."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowers.cli import training
from flowers.cli.option_cache import known_options, remember_options


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """Use an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("own_cache")
def test_remembered_options_are_known():
    assert known_options("fit") == []
    remember_options({"fit": ["--data.root", "--model.lr"], "test": ["--ckpt_path"]})
    assert known_options("fit") == ["--data.root", "--model.lr"]
    assert known_options("test") == ["--ckpt_path"]
    assert known_options("nothing") == []


@pytest.mark.usefixtures("own_cache")
def test_options_that_may_have_changed_are_not_known(monkeypatch):
    remember_options({"fit": ["--data.root"]})
    monkeypatch.setattr("flowers.cli.option_cache.version", lambda name: "other")
    assert known_options("fit") == []


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_of": 3}'])
def test_a_damaged_cache_has_no_options(text, tmp_path):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "options.json").write_text(text)
    assert known_options("fit") == []


def test_without_a_cache_folder_a_mistake_is_still_reported(monkeypatch, capsys):
    Path("file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", "file")
    with pytest.raises(SystemExit) as ended:
        training.main(["fit", "--data.batchsize", "3"])
    assert ended.value.code == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert "did you mean --data.batch_size?" in message
    assert hint.startswith("Options: ")
