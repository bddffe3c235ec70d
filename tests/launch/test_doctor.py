"""`small4 doctor` says what is here, what would run, what is missing, and what would serve a folder."""

import json
from pathlib import Path

import pytest

from launch.doctor import examine, examine_folder, probe
from launch.errors import LaunchError
from tests.launch.commands import small4
from tests.launch.conftest import SMALL4, HostWith


def test_json_is_one_object_that_names_this_hosts_parts():
    result = small4("doctor", "--json")
    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert report["cores"] >= 1
    assert report["memory_gib"] >= report["available_gib"] > 0
    assert report["versions"]["sglang"] == "0.5.23"
    assert report["folder"] is None


def test_the_words_of_the_report_are_for_people():
    result = small4("doctor")
    assert result.returncode == 0
    for part in (
        "processor",
        "memory",
        "compiler",
        "accelerators",
        "would run on",
        "attention",
        "kernels",
        "probes",
        "missing",
    ):
        assert part in result.stdout


def test_a_host_without_an_accelerator_runs_on_our_cpu_platform(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    serving = examine(HostWith(), None).serving
    assert (serving.profile, serving.profile_was_run, serving.attention_backend) == ("cpu", True, "small4_cpu")
    assert "CPU" in serving.platform


def test_four_h100_get_their_profile_and_are_told_that_nobody_ran_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    serving = examine(HostWith(*["NVIDIA H100 80GB HBM3"] * 4), None).serving
    assert (serving.profile, serving.profile_was_run, serving.attention_backend) == ("h100x4", False, "fa3")


@pytest.mark.parametrize(("chosen", "profile"), [("1", "cpu"), ("0", "h100x4")])
def test_the_engine_variable_decides_over_the_devices(chosen: str, profile: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", chosen)
    assert examine(HostWith(*["NVIDIA H100 80GB HBM3"] * 4), None).serving.profile == profile


def test_a_missing_compiler_is_named_with_its_package_and_is_optional():
    host = HostWith()
    host.compiler = None
    (item,) = examine(host, None).missing
    assert "C++ compiler" in item.what and "g++" in item.how and not item.needed


def test_too_little_memory_is_needed():
    host = HostWith()
    host.available_gib = 1.5
    (item,) = examine(host, None).missing
    assert "memory" in item.what and item.needed


def test_another_sglang_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("launch.doctor._version", lambda package: "0.5.22")
    (item,) = examine(HostWith(), None).missing
    assert item.how == "pip install sglang==0.5.23" and item.needed


def test_a_small4_folder_is_served_by_our_class(checkpoint: Path):
    folder = examine_folder(checkpoint)
    assert folder.ours
    assert folder.served_by == "sgl_small4.model, as Mistral4ForCausalLM"
    assert (folder.format, folder.quantization, folder.images) == ("Hugging Face", None, None)


def test_images_of_a_wrapped_checkpoint_are_said_to_be_left_out(checkpoint: Path):
    wrapper = {"model_type": "mistral3", "text_config": SMALL4, "vision_config": {"model_type": "pixtral"}}
    (checkpoint / "config.json").write_text(json.dumps(wrapper))
    images = examine_folder(checkpoint).images
    assert images is not None and "not served" in images


def test_another_models_folder_is_served_by_sglangs_own_class(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    folder = examine_folder(tmp_path)
    assert not folder.ours
    assert "LlamaForCausalLM" in folder.served_by


def test_a_folder_without_a_model_is_served_by_nothing(tmp_path: Path):
    assert examine_folder(tmp_path).served_by.startswith("nothing")


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(LaunchError, match="There is no folder"):
        examine_folder(tmp_path / "missing")


def test_a_contradictory_configuration_is_an_error_that_names_the_field(checkpoint: Path):
    (checkpoint / "config.json").write_text(json.dumps(SMALL4 | {"norm_topk_prob": False}))
    with pytest.raises(LaunchError, match="norm_topk_prob"):
        examine_folder(checkpoint)


def test_the_probes_are_named_and_wait_longer_than_the_server_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SGLANG_HEALTH_CHECK_TIMEOUT", raising=False)
    assert probe() == "alive: GET /health, timeout 25 s; takes requests: GET /ready, timeout 2 s"
    monkeypatch.setenv("SGLANG_HEALTH_CHECK_TIMEOUT", "60")
    assert "GET /health, timeout 65 s" in probe()
