"""A client of the nano server's own routes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from launch.server import Server
from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import Effort, PromptFormat


@dataclass(frozen=True)
class Nano:
    """The served nano by its native routes, with prompts in its conversation format."""

    http: httpx.Client
    format: PromptFormat

    def prompt(self, question: str, effort: Effort = "none", document: str | None = None) -> list[int]:
        system = [{"role": "system", "content": document}] if document else []
        return self.format.encode([*system, {"role": "user", "content": question}], effort=effort)

    def generate(self, ids: list[int], max_new_tokens: int = 32, **more: Any) -> dict[str, Any]:
        """One `/generate` at temperature 0; `sampling` adds sampling parameters, anything else goes beside them."""
        sampling = {"temperature": 0, "max_new_tokens": max_new_tokens, **more.pop("sampling", {})}
        response = self.http.post("/generate", json={"input_ids": ids, "sampling_params": sampling, **more})
        assert response.status_code == 200, response.text
        return response.json()

    def chat(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """One `/v1/chat/completions` at temperature 0."""
        request = {"model": "nano", "messages": messages, "temperature": 0, "max_tokens": 64, **more}
        response = self.http.post("/v1/chat/completions", json=request)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="session")
def nano(nano_server: Server) -> Iterator[Nano]:
    with httpx.Client(base_url=nano_server.url, timeout=60, trust_env=False) as client:
        yield Nano(client, PromptFormat.from_folder(CHECKPOINT))
