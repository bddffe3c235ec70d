"""The CPU platform: what SGLang asks of a device, and what a host needs before SGLang asks.

SGLang imports this module through the entry point while it is being imported itself; on its own, import sglang first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import KVPoolKind, PlatformCapabilities, SRTPlatform

from sgl_small4.cpu import host

if TYPE_CHECKING:
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.server_args import ServerArgs

ENGINE = "SGLANG_USE_CPU_ENGINE"
THREADS = "SGLANG_CPU_OMP_THREADS_BIND"
ATTENTION_BACKEND = "small4_cpu"
STAND_IN = Path(__file__).parent / "sgl_kernel"

# SGLang's own default, 2048 and more, times a context of a million makes a request table of 8 GB.
RUNNING_REQUESTS = 16
# Positions go to 1,048,576; the published weights are meant to be served at this many.
CONTEXT_LENGTH = 262_144
# Room in the cache for one request of the whole context, or for this many tokens where the context is short.
CACHE_TOKENS = 131_072
# Of the memory that is free at the start, the cache may take this share: weights and activations need the rest.
CACHE_SHARE = 0.25
# Tokens of one forward pass, which nothing interrupts: hang-ups, new requests and health checks wait for its end. A
# prompt of 8,000 tokens takes nano as long in passes of 1024 as in passes of 2048 (four each on a shared host: 0.54 to
# 0.83 s against 0.56 to 0.65 s); SGLang's own default here is 4096.
PREFILL_TOKENS = 1024


def install() -> bool:
    """Prepare this process for SGLang on a CPU; True where the CPU is the platform, False where an accelerator is.

    Called from the platform entry point, that is before SGLang's first `is_cpu()` and before it imports `sgl_kernel`,
    in the parent and in every spawned process. SGLANG_USE_CPU_ENGINE, when set, decides over what the host has.
    """
    chosen = os.environ.get(ENGINE)
    if chosen == "0" or (chosen is None and torch.accelerator.is_available()):
        return False
    os.environ[ENGINE] = "1"
    _stand_in_for_sgl_kernel()
    # SGLang imports flashinfer where it is installed, and with it CUDA's Python packages, and never calls it on a CPU:
    # 1.2 of 9.8 s of processor time in each process. None in sys.modules means "not installed", and SGLang copes.
    sys.modules.setdefault("flashinfer", None)  # type: ignore[arg-type]
    return True


def _stand_in_for_sgl_kernel() -> None:
    """Make `import sgl_kernel` find the stand-in, and submodules in the installed package's folder as well."""
    if "sgl_kernel" in sys.modules:
        return
    installed = importlib.util.find_spec("sgl_kernel")
    folders = list(installed.submodule_search_locations or []) if installed else []
    if any(list(Path(folder).glob("common_ops*.so")) for folder in folders):
        return  # a build for CPUs (its operators lie at the top; the CUDA build keeps them per architecture): use it
    spec = importlib.util.spec_from_file_location(
        "sgl_kernel", STAND_IN / "__init__.py", submodule_search_locations=[str(STAND_IN), *folders]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sgl_kernel"] = module
    spec.loader.exec_module(module)


def bind_threads(local_omp_cpuid: str) -> None:
    """Keep this rank on its cores: ``0,1`` or ``0-3``, one rank's part of SGLANG_CPU_OMP_THREADS_BIND.

    Threads that PyTorch starts later inherit the affinity of the thread that starts them.
    """
    ids = host.parse_cores(local_omp_cpuid) & os.sched_getaffinity(0)
    if not ids:
        raise ValueError(f"{THREADS}: none of the cores {local_omp_cpuid} may be used by this process")
    os.sched_setaffinity(0, ids)
    torch.set_num_threads(min(len(ids), host.core_limit()))


def _is_ours(model: ModelConfig) -> bool:
    """Whether this package's class serves the model."""
    from sglang.srt.models.registry import ModelRegistry

    served_by = ModelRegistry.models.get(model.hf_config.architectures[0])
    return getattr(served_by, "__module__", "").startswith("sgl_small4.")


def _cache_tokens(model: ModelConfig, context_length: int, ranks: int) -> int:
    """How many tokens the cache should hold: see CACHE_TOKENS, within this rank's share of the free memory."""
    latent = (model.kv_lora_rank + model.qk_rope_head_dim) * model.dtype.itemsize * model.num_hidden_layers
    affordable = int(host.memory_available() * CACHE_SHARE) // (latent * ranks)
    return min(max(context_length, CACHE_TOKENS), affordable)


class CpuPlatform(CpuDeviceMixin, SRTPlatform):
    """Small 4 on an ordinary CPU, and whatever else SGLang can serve there through its PyTorch paths.

    Out of tree, so that SGLang asks this class (for PyNccl, for memory) where it would otherwise assume CUDA.
    """

    _enum = PlatformEnum.OOT
    capabilities = PlatformCapabilities(supports_pynccl=False)
    _shares: str | None = None  # what `_share_cores` last wrote

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return host.memory_total()

    def get_current_memory_usage(self, device: torch.device | None = None) -> float:
        return float(host.memory_total() - host.memory_available())

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        return host.memory_available(), host.memory_total()

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_kv_pool_cls(self, *, kind: KVPoolKind) -> type | None:
        if kind != "mla":
            return None
        from sgl_small4.cpu.pool import LazyLatentPool  # imports SGLang's memory pools, which import the platform

        return LazyLatentPool

    def init_backend(self) -> None:
        """Called once in each process that runs a model, before the model is made."""
        from sglang.kernels.fused_op import BaseFusedOp
        from sglang.srt.layers.attention.attention_registry import register_attention_backend
        from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod
        from sglang.srt.models.deepseek_common.attention_backend_handler import AttentionBackendRegistry

        from sgl_small4.cpu import attention, experts

        register_attention_backend(ATTENTION_BACKEND)(attention.LatentAttentionBackend)
        AttentionBackendRegistry.register(ATTENTION_BACKEND, attention.choose_form)
        BaseFusedOp.register_oot_forward(UnquantizedFusedMoEMethod, experts.forward, self.get_dispatch_key_name())

    def apply_server_args_defaults(self, server_args: ServerArgs) -> None:
        """Fill in what the user left open; called in the parent, whose environment every rank inherits."""
        from sglang.srt.arg_groups.overrides import model_config_of

        ranks = server_args.dp_size * server_args.tp_size * server_args.pp_size
        self._share_cores(ranks)
        if server_args.max_running_requests is None:
            server_args.max_running_requests = RUNNING_REQUESTS
        if not server_args.enable_torch_compile:
            # SGLang compiles some small functions whatever the arguments: seconds of a first request, gains on a GPU.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        if "OMP_WAIT_POLICY" not in os.environ:
            # OpenMP's threads wait for each other spinning. Where another process wants the cores, each step then waits
            # for a thread that is not running (`python -m launch.bench.spinning` measures it).
            os.environ.setdefault("GOMP_SPINCOUNT", "0")
        model = model_config_of(server_args)
        if not _is_ours(model):
            return
        if server_args.attention_backend in (None, "intel_amx"):  # what SGLang has just put where nothing was named
            server_args.attention_backend = ATTENTION_BACKEND
        if server_args.context_length is None:
            server_args.context_length = min(model.context_len, CONTEXT_LENGTH)
        if server_args.max_total_tokens is None:
            server_args.max_total_tokens = _cache_tokens(model, server_args.context_length, ranks)
        if server_args.chunked_prefill_size is None:
            server_args.chunked_prefill_size = PREFILL_TOKENS

    def _share_cores(self, ranks: int) -> None:
        """Give each rank its cores, unless the user has: without this variable SGLang wants a NUMA node for each.

        What an earlier engine of this process was given is no wish of the user's.
        """
        if os.environ.get(THREADS) in (None, self._shares):
            self._shares = os.environ[THREADS] = host.shares(ranks)

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        return torch.profiler.ProfilerActivity.CPU
