"""Every example is short and runs as a script."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_runs_and_stays_under_60_lines(file):
    assert len(file.read_text().splitlines()) < 60
    done = subprocess.run(
        [sys.executable, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_guide_example_slows_the_plan_down():
    command = [sys.executable, str(ROOT / "examples" / "add_guide.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    free, guided = (
        float(line.split()[-2]) for line in done.stdout.splitlines() if "planned speed" in line
    )
    assert guided < free


def test_transformer_example_earns_more_than_its_logs():
    command = [sys.executable, str(ROOT / "examples" / "plan_with_transformer.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    planned, logged = re.findall(r"\d+\.\d", done.stdout.splitlines()[-1])
    assert float(planned) > 1.2 * float(logged)
