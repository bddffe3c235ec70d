"""What the engine must know about the model: its configuration, its weights, its defaults, and the CPU."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from sglang.srt.arg_groups.model_override_base import register_model_override, resolving_view
from sglang.srt.arg_groups.overrides import declare_resolution, is_attention_backend_not_set, model_config_of
from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook
from sglang.srt.configs.model_config import AttentionArch, ModelConfig
from sglang.srt.configs.model_config_parser_registry import ModelConfigParserBase, register_model_config_parser
from sglang.srt.model_executor.cuda_graph_config import Backend
from sglang.srt.plugins.hook_registry import HookType
from sglang.srt.runtime_context import get_platform
from sglang.srt.utils import is_cpu
from transformers import Mistral4Config, PretrainedConfig

from sgl_small4.checkpoint.files import check
from sgl_small4.config import (
    CONFIG_FILE,
    WEIGHT_FILES,
    ConfigError,
    Small4Config,
    checkpoint_format,
    is_small4,
    weight_files,
)
from sgl_small4.cpu import experts
from sgl_small4.cpu.platform import bind_threads
from sgl_small4.plugin.hooks import hook
from sgl_small4.prompt.served import is_ours


@lru_cache(maxsize=32)
def local_folder(model: str, revision: str | None) -> Path | None:
    """The folder with a Small 4's configuration files, from a path or a hub name; None for any other model."""
    folder = Path(model)
    if not folder.is_dir():
        if Path(model).is_absolute():
            return None
        try:
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(CONFIG_FILE.values())))
        except (HfHubHTTPError, HFValidationError, OSError):
            return None  # not on the hub or no network: upstream says so in its own words
    return folder if is_small4(folder) else None


@hook("sglang.kernels.ops.attention.decode_attention._decode_grouped_att_m_fwd", HookType.AROUND)
def load_values_apart(launch: Callable, query, key_buffer, value_buffer, *args, has_mla: bool = False, **kwargs):
    """Triton's decode kernel for latent rows that upstream does not split, ours of 256 + 64 among them.

    With `has_mla` the kernel takes its transposed key block for the values. The launcher cuts a key row into latent and
    rope for the widths 576 and 288 alone; 320 becomes one block of 512, which is no block of 256 values, and nothing
    compiles. Told that it is no MLA, the same kernel loads the values by themselves. Only launches that cannot compile
    are changed; what other models launch stays as it is.
    """
    key_width, value_width = key_buffer.shape[-1], value_buffer.shape[-1]
    split_upstream = key_width in (576, 288)
    same_block = (key_width - 1).bit_length() == (value_width - 1).bit_length()
    return launch(query, key_buffer, value_buffer, *args, has_mla=has_mla and (split_upstream or same_block), **kwargs)


@register_model_config_parser("small4")
class Small4ConfigParser(ModelConfigParserBase):
    """Both of a Small 4 checkpoint's configuration files to the one that our class takes."""

    def parse(self, model, trust_remote_code: bool, revision: str | None = None, **kwargs) -> PretrainedConfig:
        folder = local_folder(str(model), revision)
        if folder is None:
            raise ConfigError(f"{model} holds no Mistral Small 4; give another --model-config-parser, or none")
        config = Small4Config.from_folder(folder)
        if any(folder.glob(WEIGHT_FILES[config.source])):  # what does not fit is said before any process is spawned
            check(folder)
        return Mistral4Config(**config.to_hf(dequantize=is_cpu()))


@hook("sglang.srt.utils.hf_transformers.config.get_config", HookType.AROUND)
def read_by_content(
    read: Callable,
    model,
    trust_remote_code: bool,
    revision: str | None = None,
    model_override_args: dict | None = None,
    model_config_parser: str = "auto",
    **kwargs,
):
    """Upstream chooses the parser of `params.json` by words in the path, and has no class for HF's `mistral4`."""
    if model_config_parser == "auto" and local_folder(str(model), revision):
        model_config_parser = "small4"
    return read(model, trust_remote_code, revision, model_override_args, model_config_parser, **kwargs)


@hook("sglang.srt.model_loader.loader.DefaultModelLoader._prepare_weights", HookType.AROUND)
def choose_weight_files(prepare: Callable, loader, model: str, revision: str | None, *args, **kwargs):
    """Upstream mixes both formats' files or chooses by the path, takes pickles, and drops files in silence."""
    folder = local_folder(model, revision)
    if folder is None:
        return prepare(loader, model, revision, *args, **kwargs)
    if not Path(model).is_dir():
        patterns = [WEIGHT_FILES[checkpoint_format(folder)]]
        folder = Path(prepare(loader, model, revision, False, allow_patterns_overrides=patterns)[0])
    check(folder)
    return str(folder), [str(file) for file in weight_files(folder)], True


@hook("sglang.srt.configs.model_config.ModelConfig._derive_model_shapes", HookType.AFTER)
def use_latent_attention(_result: None, model_config: ModelConfig) -> None:
    """Upstream finds latent attention by a list of architecture names; without it the cache would hold full heads."""
    text = model_config.hf_text_config
    if text.model_type != "mistral4":
        return
    model_config.head_dim = 256  # what upstream's branch sets for every latent-attention model
    model_config.attention_arch = AttentionArch.MLA
    for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        setattr(model_config, name, getattr(text, name))
    model_config.swa_kv_lora_rank = model_config.kv_lora_rank
    model_config.swa_qk_rope_head_dim = model_config.qk_rope_head_dim
    model_config.index_head_dim = None
    # Read by flashinfer's paged wrappers instead of the layer's own scale.
    model_config.scaling = Small4Config.from_served(text).softmax_scale


@register_model_override("Mistral4ForCausalLM")
def restore_defaults(server_args, hf_config) -> dict[str, object]:
    """What upstream sets by architecture name for its own class of this model (`arg_groups/overrides.py`)."""
    given = resolving_view(server_args)
    wanted: dict[str, object] = {}
    if given.dtype == "auto" and not is_cpu():
        wanted["dtype"] = "bfloat16"
    if get_platform().is_sm100:
        if is_attention_backend_not_set(given):
            wanted["attention_backend"] = "trtllm_mla"
        if given.moe_a2a_backend == "none" and given.moe_runner_backend == "auto":
            wanted["moe_runner_backend"] = "flashinfer_trtllm"
    return wanted


@register_resolution_hook("apply_inkling_prefill_cuda_graph_default")
def capture_no_prefill(server_args, previous: Callable) -> None:
    """A captured prefill keeps to the absorbed form, which is 2.5 times the work of the expanded one.

    Upstream captures none for its own class of this model, because that class takes images. The step that this wraps is
    where it sets such a default for another architecture. Besides, cached tokens are reported on every route; upstream
    reports them unasked on /v1/responses alone.
    """
    previous(server_args)
    if not is_ours(model_config_of(server_args).hf_config):
        return
    if resolving_view(server_args).cuda_graph_backend_prefill is None:
        declare_resolution(server_args, "sgl_small4", cuda_graph_backend_prefill=Backend.DISABLED)
    declare_resolution(server_args, "sgl_small4", enable_cache_report=True)


@hook("sglang.srt.distributed.bootstrap._init_cpu_threads_env", HookType.REPLACE)
def bind_threads_to_cores(*, local_omp_cpuid: str, dist_init_method: str | None = None) -> None:
    """Upstream keeps a rank on its cores through an AMX kernel alone: elsewhere every rank would run on all cores."""
    bind_threads(local_omp_cpuid)


@hook("sglang.srt.layers.quantization.unquant.UnquantizedFusedMoEMethod.process_weights_after_loading", HookType.AFTER)
def pack_experts(_result: None, _method, layer) -> None:
    """The CPU's kernels read experts in an order of their own, made once per load; see `sgl_small4/cpu/experts.py`."""
    if is_cpu():
        experts.pack(layer)


@hook("sglang.srt.configs.update_config.adjust_config_with_unaligned_cpu_tp", HookType.AROUND)
def keep_sizes_on_cpu(adjust: Callable, model_config: ModelConfig, *args, **kwargs) -> ModelConfig:
    """Upstream rounds head counts and expert sizes up to what its AMX kernels take; ours have no such need."""
    return (
        model_config if model_config.hf_text_config.model_type == "mistral4" else adjust(model_config, *args, **kwargs)
    )
