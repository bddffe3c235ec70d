"""Every way to start SGLang serves our class, in every process, with no wrapper and no environment variable."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from launch.server import Server
from sgl_small4.nano import CHECKPOINT

pytestmark = pytest.mark.slow
OURS = "type=Mistral4ForCausalLM"
SGLANG_SERVE = (sys.executable, "-c", "from sglang.cli.main import main; main()", "serve")

ENGINE = """
import sglang
from sgl_small4.nano import CHECKPOINT
from programs.many import solve_many
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.format import PromptFormat

if __name__ == "__main__":
    engine = sglang.Engine(model_path=str(CHECKPOINT), context_length=4096, log_level="info")
    prompt = PromptFormat.from_folder(CHECKPOINT).encode([{"role": "user", "content": "What is 7+5?"}])
    reply = engine.generate(input_ids=prompt, sampling_params={"temperature": 0, "max_new_tokens": 8})
    with Small4Backend(engine) as backend:
        results = solve_many(["What is 47+86+35?", "What is 8+9?"], "high", backend=backend, temperature=0)
    again = engine.generate(input_ids=prompt, sampling_params={"temperature": 0, "max_new_tokens": 8})
    engine.shutdown()
    print("reply:", reply["text"], again["text"])
    print("programs:", [result.answer for result in results], all(result.trace for result in results))
"""


def classes(log: str) -> list[str]:
    """The class each rank loaded, as SGLang's start-up lines name it."""
    return re.findall(r"type=\w+", log)


def asked(server: Server) -> str:
    request = {"model": "nano", "messages": [{"role": "user", "content": "What is 7+5?"}], "temperature": 0}
    response = httpx.post(f"{server.url}/v1/chat/completions", json={**request, "max_tokens": 8}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def test_plain_sglang_serve_without_flags(tmp_path: Path):
    with Server(CHECKPOINT, log=tmp_path / "log", launcher=SGLANG_SERVE) as server:
        assert asked(server).strip() == "12"
    assert classes(server.log.read_text()) == [OURS]


def test_small4_serve_on_two_ranks_with_expert_parallelism(tmp_path: Path):
    with Server(arguments=["--tp", "2", "--ep", "2"], log=tmp_path / "log") as server:
        assert asked(server).strip() == "12"
    assert set(classes(server.log.read_text())) == {OURS}


@pytest.mark.parametrize("source", ["a script", "a main module without a file, as in a notebook"])
def test_an_engine_in(source: str, tmp_path: Path):
    script = tmp_path / "engine.py"
    script.write_text(ENGINE)
    command = [sys.executable, str(script)] if source == "a script" else [sys.executable, "-c", ENGINE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "reply: 12 12" in result.stdout
    assert "programs: ['168', '17'] True" in result.stdout
    assert set(classes(result.stdout + result.stderr)) == {OURS}
