"""Triton's attention kernels at Small 4's head sizes give what plain PyTorch gives, run in Triton's interpreter."""

import json
import os
import subprocess
import sys

import pytest

from tests.backends.triton_interpreted import CASES


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    command = [sys.executable, "-m", "tests.backends.triton_interpreted"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_equals_plain_attention(case, errors):
    assert errors[case] < 1e-5


def test_upstreams_own_decode_launch_does_not_run(errors):
    assert errors["upstream compiles"] is False
