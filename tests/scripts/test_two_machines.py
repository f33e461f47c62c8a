"""Runs a training on two machines, simulated by network namespaces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "two_machines.py"


@pytest.mark.slow
def test_a_training_resumes_after_the_network_was_cut(tmp_path):
    command = [sys.executable, str(SCRIPT), "--epochs", "4", "--timeout", "15"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "network cut: status [1, 1]" in done.stdout
    assert "resumed: largest difference of a weight to one machine 0\n" in done.stdout
