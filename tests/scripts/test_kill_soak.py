"""Runs the soak test with one kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_soak.py"


@pytest.mark.slow
def test_a_training_killed_at_random_times_equals_an_uninterrupted_one(tmp_path):
    command = [sys.executable, str(SCRIPT), "--kills", "1", "--epochs", "6", "--seed", "58"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills" in done.stdout
    assert "largest difference of a weight: 0\n" in done.stdout
