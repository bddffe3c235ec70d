"""What `small4 serve` checks and adds before it becomes `sglang serve`."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.errors import LaunchError
from launch.profiles import Profiles, as_command_line
from launch.serve import command_line
from tests.launch.commands import small4, the_sentence
from tests.launch.conftest import SMALL4, HostWith


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def test_defaults_stand_before_the_callers_arguments_so_that_the_callers_win(checkpoint: Path):
    port = free_port()
    given = [str(checkpoint), "--context-len", "4096", "--port", port, "--tp", "2"]
    command = command_line(given, None, HostWith())
    defaults = command[command.index("--model-path") + 2 : -6]
    assert command[-6:] == given[1:]
    assert defaults[defaults.index("--context-length") + 1] == "32768"
    assert {"--host", "--max-running-requests", "--max-total-tokens", "--enable-cache-report"} <= set(defaults)
    assert command.count("--model-path") == 1


def test_a_context_longer_than_the_checkpoints_is_not_asked_for(checkpoint: Path):
    (checkpoint / "config.json").write_text(json.dumps(SMALL4 | {"max_position_embeddings": 2048}))
    command = command_line([str(checkpoint), "--port", free_port()], None, HostWith())
    assert command[command.index("--context-length") + 1] == "2048"


def test_graphs_change_what_the_command_starts_and_none_of_its_arguments(checkpoint: Path):
    arguments = [str(checkpoint), "--port", free_port()]
    plain = command_line(arguments, None, HostWith())
    with_graphs = command_line(arguments, None, HostWith(), graphs=True)
    assert (plain[2], with_graphs[2]) == (
        "from launch.serve import sglang; sglang()",
        "from launch.graphs import sglang; sglang()",
    )
    assert plain[:2] + plain[3:] == with_graphs[:2] + with_graphs[3:]


def test_a_configuration_file_of_sglangs_replaces_the_profile(checkpoint: Path):
    command = command_line([str(checkpoint), "--config", "mine.yaml"], None, HostWith())
    assert command[-4:] == ["--model-path", str(checkpoint), "--config", "mine.yaml"]


@pytest.mark.parametrize(
    ("devices", "profile"),
    [
        ([], "cpu"),
        (["NVIDIA H100 80GB HBM3"] * 4, "h100x4"),
        (["NVIDIA H200"] * 2, "h200x2"),
        (["NVIDIA H200"] * 4, "h200x4"),
        (["NVIDIA B200"] * 2, "b200x2"),
        (["NVIDIA H100 80GB HBM3"] * 3, None),
        (["NVIDIA H100 80GB HBM3"] * 3 + ["NVIDIA T4"], None),
    ],
)
def test_the_profile_written_for_the_hosts_devices_is_chosen(devices: list[str], profile: str | None):
    assert Profiles.load().fitting(HostWith(*devices).accelerators) == profile


def test_without_a_fitting_profile_only_the_common_arguments_and_a_name_are_added(checkpoint: Path):
    command = command_line([str(checkpoint), "--port", free_port()], None, HostWith("NVIDIA T4"))
    added = Profiles.load().common | {"served-model-name": checkpoint.name}
    assert command[command.index("--model-path") + 2 : -2] == as_command_line(added)


def test_the_bundled_checkpoint_is_called_nano():
    command = command_line(["--port", free_port()], None, HostWith("NVIDIA T4"))
    assert command[command.index("--served-model-name") + 1] == "nano"


PARSE = """
import argparse
from sglang.srt.plugins import load_plugins
from sglang.srt.server_args import ServerArgs
from launch.profiles import Profiles, as_command_line

load_plugins()  # as `sglang serve` does before it parses: the plugin names the CPU's attention backend
parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
ServerArgs.add_cli_args(parser)
profiles = Profiles.load()
for name, profile in profiles.profile.items():
    arguments = profiles.common | profile.arguments
    parsed = parser.parse_args(["--model-path", "folder", *as_command_line(arguments)])
    for argument, value in arguments.items():
        assert getattr(parsed, argument.replace("-", "_")) == value, (name, argument)
    print("parsed", name)
"""


def test_every_profile_parses_to_arguments_that_sglang_accepts():
    result = subprocess.run([sys.executable, "-c", PARSE], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    said = [line.removeprefix("parsed ") for line in result.stdout.splitlines() if line.startswith("parsed ")]
    assert said == list(Profiles.load().profile)


def test_an_unknown_profile_names_the_known_ones(checkpoint: Path):
    with pytest.raises(LaunchError, match="cpu, h100x4"):
        command_line([str(checkpoint)], "laptop", HostWith())


def quick_failure(*arguments: str) -> str:
    """The sentence, said well before SGLang could have been imported."""
    started = time.perf_counter()
    sentence = the_sentence(small4("serve", *arguments))
    assert time.perf_counter() - started < 6
    return sentence


def test_an_unknown_folder(tmp_path: Path):
    assert "There is no folder" in quick_failure(str(tmp_path / "missing"))


def test_a_folder_of_another_model(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    assert "no Mistral Small 4" in quick_failure(str(tmp_path))


def test_a_folder_without_weights(checkpoint: Path):
    (checkpoint / "model.safetensors").unlink()
    assert "holds no weights" in quick_failure(str(checkpoint))


def test_a_port_in_use(checkpoint: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = quick_failure(str(checkpoint), "--port", port)
        assert f"127.0.0.1:{port}" in sentence
        assert "--port" in sentence
        assert sentence == quick_failure("--model-path", str(checkpoint), f"--port={port}")


@pytest.mark.parametrize("port", ["http", "99999"])
def test_a_port_that_is_none(port: str, checkpoint: Path):
    assert "port" in quick_failure(str(checkpoint), "--port", port)


def test_an_address_that_is_not_this_hosts(checkpoint: Path):
    assert "cannot listen on 192.0.2.1" in quick_failure(str(checkpoint), "--host", "192.0.2.1")
