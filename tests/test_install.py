"""What an installation puts where, built by the back end that pip calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture
def clone(tmp_path):
    """A clone named flowers, with folders that have the names of the package's own."""
    folder = tmp_path / "projects" / "flowers"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "flowers", folder / "flowers", ignore=without)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("data/daisy", "evaluation", "tests", "configs", "flowers_of_mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.py").touch()
    return folder


def build(clone, hook, target):
    """Return the wheel that a hook of the build back end makes; no network is needed."""
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(target)]
    subprocess.run(command, check=True, cwd=clone, env=ENVIRONMENT, capture_output=True)
    [wheel] = target.glob("*.whl")
    return ZipFile(wheel)


def test_the_wheel_holds_the_package_and_nothing_else(clone, tmp_path):
    with build(clone, "build_wheel", tmp_path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = [
        file
        for file in (clone / "flowers").rglob("*")
        if file.is_file() and file.name != "README.md"
    ]
    assert names == {file.relative_to(clone).as_posix() for file in files}
    assert "flowers/evaluation/reports/page.html.j2" in names


@pytest.mark.parametrize("hook", ["build_editable", "build_wheel"])
def test_the_folders_of_a_clone_do_not_hide_the_package(hook, clone, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    with build(clone, hook, tmp_path) as wheel:
        wheel.extractall(site)
    installed = clone if hook == "build_editable" else site

    def python(*words):
        command = [str(tmp_path / "venv" / "bin" / "python"), *words]
        done = subprocess.run(
            command, check=True, cwd=clone.parent, env=ENVIRONMENT, capture_output=True, text=True
        )
        return done.stdout

    assert "usage: python -m flowers" in python("-m", "flowers", "--help")
    for module in ("flowers", "flowers.data", "flowers.evaluation"):
        code = f"from importlib.util import find_spec; print(find_spec('{module}').origin)"
        assert (
            Path(python("-c", code).strip()) == installed / module.replace(".", "/") / "__init__.py"
        )
