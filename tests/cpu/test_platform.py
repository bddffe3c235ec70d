"""What `install` leaves behind, seen from fresh processes as SGLang's spawned ones are."""

import os
import subprocess
import sys

import pytest

GENERATE = """
import sys
import sglang
if __name__ == "__main__":
    engine = sglang.Engine(model_path=sys.argv[1], skip_tokenizer_init=True)
    ids = list(range(3, 40))
    sampling = {"max_new_tokens": 3, "temperature": 0, "ignore_eos": True}
    for _ in range(2):
        answer = engine.generate(input_ids=ids, sampling_params=sampling)
        print("answer", answer["output_ids"], answer["meta_info"]["cached_tokens"])
    engine.shutdown()
"""


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "SGL_SMALL4"))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        env=kept | environment,
    )


def test_a_host_without_an_accelerator_is_prepared_before_sglang_needs_it():
    script = """
import sglang.srt.utils as utils, sgl_kernel
from sgl_kernel.scalar_type import scalar_types
from sglang.srt.platforms import current_platform
print(utils.is_cpu(), type(current_platform).__name__, current_platform.is_out_of_tree())
print(sgl_kernel.__file__.endswith("sgl_small4/cpu/sgl_kernel/__init__.py"), scalar_types.uint4b8)
"""
    ended = run(script, CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["True CpuPlatform True", "True uint4b8"]


def test_the_user_may_forbid_it():
    script = """
import sys
import sglang.srt.utils as utils
from sgl_small4.cpu import platform
print(utils.is_cpu(), platform.install(), getattr(sys.modules.get("sgl_kernel"), "__file__", None) is None)
"""
    ended = run(script, SGLANG_USE_CPU_ENGINE="0")
    assert ended.stdout.split() == ["False", "False", "True"], ended.stderr


def test_the_stand_in_has_what_sglang_imports_and_nothing_else():
    script = """
import sglang.srt.utils, torch, sgl_kernel
table, place = torch.zeros(4, 8, dtype=torch.int32), torch.tensor
sgl_kernel.assign_req_to_token_pool_cpu(place([2, 0]), table, place([1, 0]), place([3, 1]), place([7, 8, 9]), 8)
print(table[2, :4].tolist(), table[0, :2].tolist(), hasattr(sgl_kernel, "rmsnorm"))
try:
    sgl_kernel.silu_and_mul(table)
except NotImplementedError as error:
    print(error)
"""
    lines = run(script, SGLANG_USE_CPU_ENGINE="1").stdout.splitlines()
    assert lines == [
        "[0, 7, 8, 0] [9, 0] False",
        "sgl_kernel.silu_and_mul has no form for an ordinary CPU: what needs it cannot run here",
    ]


def test_a_rank_stays_on_its_cores_and_says_when_it_has_none():
    script = """
import os, torch, sglang.srt.utils
from sgl_small4.cpu.platform import bind_threads
own = min(os.sched_getaffinity(0))
bind_threads(str(own))
print(os.sched_getaffinity(0) == {own}, torch.get_num_threads())
bind_threads("100000")
"""
    ended = run(script, SGLANG_USE_CPU_ENGINE="1")
    assert ended.stdout.split() == ["True", "1"]
    assert "none of the cores 100000 may be used by this process" in ended.stderr


@pytest.mark.slow
def test_another_model_runs_without_a_flag_on_sglangs_own_backend(tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=128, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    ended = run(GENERATE, str(tmp_path))
    answers = [line for line in ended.stdout.splitlines() if line.startswith("answer")]
    assert [line.split()[-1] for line in answers] == ["0", "36"], ended.stderr[-3000:]
    assert "small4_cpu" not in ended.stderr
