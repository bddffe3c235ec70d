"""The CPU platform: what SGLang asks of a device, and what a host needs before SGLang is imported."""

import importlib.util
import logging
import os
import sys
from pathlib import Path

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform

from sgl_small4.cpu import host

logger = logging.getLogger(__name__)

THREADS = "SGLANG_CPU_OMP_THREADS_BIND"
STAND_IN = Path(__file__).parent / "sgl_kernel"
GIB = 1 << 30


def install() -> bool:
    """Prepare this process for SGLang on a CPU; True where the CPU is the platform, False where an accelerator is.

    Called from the platform entry point, that is before SGLang's first `is_cpu()` and before it imports `sgl_kernel`, in
    the parent and in every spawned process. SGLANG_USE_CPU_ENGINE, when set, decides over what the host has.
    """
    chosen = os.environ.get("SGLANG_USE_CPU_ENGINE")
    if chosen == "0" or (chosen is None and torch.accelerator.is_available()):
        return False
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    _stand_in_for_sgl_kernel()
    return True


def _stand_in_for_sgl_kernel() -> None:
    """Make `import sgl_kernel` find the stand-in, with the installed package's folder as a second place for submodules."""
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


def bind_threads(local_omp_cpuid: str, dist_init_method: str | None = None) -> None:
    """Keep this rank on its cores: ``0,1`` or ``0-3``, one rank's part of SGLANG_CPU_OMP_THREADS_BIND.

    Threads that PyTorch starts later inherit the affinity of the thread that starts them.
    """
    ids = host.parse_cores(local_omp_cpuid) & os.sched_getaffinity(0)
    if not ids:
        raise ValueError(f"{THREADS}: none of the cores {local_omp_cpuid} may be used by this process")
    os.sched_setaffinity(0, ids)
    torch.set_num_threads(min(len(ids), host.core_limit()))


class CpuPlatform(CpuDeviceMixin, SRTPlatform):
    """Small 4 on an ordinary CPU, and whatever else SGLang can serve there through its PyTorch paths.

    Out of tree, so that SGLang asks this class (for PyNccl, for memory) where it would otherwise assume CUDA.
    """

    _enum = PlatformEnum.OOT
    capabilities = PlatformCapabilities(supports_pynccl=False)

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return host.memory_total()

    def get_current_memory_usage(self, device: torch.device | None = None) -> float:
        return float(host.memory_total() - host.memory_available())

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        return host.memory_available(), host.memory_total()

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        return torch.profiler.ProfilerActivity.CPU
