"""The fields of a checkpoint's `config.json` and `params.json`: what types and values are supported, and what is not.

Read by config.py alone. A field that is not known and may change what the model computes is refused by name.
"""

import json
import logging
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

logger = logging.getLogger(__name__)

# Unknown fields with one of these in their name change what the model computes, so they may not be passed over.
MEANINGFUL = ("rope", "yarn", "scal", "attention", "attn", "head", "expert", "moe", "router", "quant", "norm", "window")
# Fields that describe the file, the training or the tokenizer and not what the served model computes.
INERT = frozenset(
    "architectures model_type transformers_version _name_or_path use_cache initializer_range "
    "pretraining_tp output_router_logits attention_dropout router_aux_loss_coef bos_token_id eos_token_id pad_token_id "
    "intermediate_size num_local_experts return_dict output_hidden_states output_attentions chunk_size_feed_forward "
    "is_encoder_decoder problem_type id2label label2id name_or_path checkpoint_format _attn_implementation_autoset "
    "is_decoder cross_attention_hidden_size add_cross_attention max_seq_len".split()
)

Fields = TypeVar("Fields", bound="Section")
Dtype = Literal["bfloat16", "float16", "float32"]
Size = Annotated[int, Field(gt=0)]
Number = Annotated[float, Field(ge=0)]
One = Annotated[float, Field(ge=1, le=1)]


class ConfigError(ValueError):
    """A checkpoint's configuration cannot be served; the message names file, field and what was expected."""


class Section(BaseModel):
    """Strictly typed fields of a JSON object; fields it does not name are kept in `model_extra`."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class HfRope(Section):
    """`rope_parameters` of transformers 5. `apply_yarn_scaling` is ours: see `Small4Config.softmax_scale`."""

    rope_type: Literal["yarn"] = "yarn"
    type: Literal["yarn"] = "yarn"
    rope_theta: Number
    factor: Annotated[float, Field(ge=1)]
    original_max_position_embeddings: Size
    max_position_embeddings: Size | None = None
    beta_fast: Number = 32.0
    beta_slow: Number = 1.0
    truncate: Literal[True] = True
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    llama_4_scaling_beta: Number
    partial_rotary_factor: float | None = None
    apply_yarn_scaling: bool = False


class HfQuantization(Section):
    """FP8 with one scale per tensor, the published form."""

    quant_method: Literal["fp8"]
    activation_scheme: Literal["static", "dynamic"] = "dynamic"
    weight_block_size: None = None
    modules_to_not_convert: list[str] | None = None


class HfText(Section):
    """`config.json` of a text-only checkpoint, or the `text_config` of the vision wrapper."""

    vocab_size: Size
    hidden_size: Size
    moe_intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    n_shared_experts: Size
    n_routed_experts: Size
    num_experts_per_tok: Size
    routed_scaling_factor: One = 1.0
    norm_topk_prob: Literal[True] = True
    n_group: Literal[1] | None = 1
    topk_group: Literal[1] | None = 1
    first_k_dense_replace: Literal[0] | None = 0
    kv_lora_rank: Size
    q_lora_rank: Size
    qk_rope_head_dim: Size
    qk_nope_head_dim: Size
    v_head_dim: Size
    head_dim: Size | None = None
    qk_head_dim: Size | None = None
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    rope_interleave: Literal[True] = True
    sliding_window: None = None
    tie_word_embeddings: Literal[False] = False
    max_position_embeddings: Size
    rms_norm_eps: Number
    rope_parameters: HfRope
    quantization_config: HfQuantization | None = None
    stored_quantization: Literal["static", "dynamic"] | None = None  # ours: FP8 in the files, dequantised at load
    dtype: Dtype | None = None
    torch_dtype: Dtype | None = None


class NativeYarn(Section):
    factor: Annotated[float, Field(ge=1)]
    original_max_position_embeddings: Size
    beta: Number = 32.0
    alpha: Number = 1.0
    apply_scale: bool


class NativeQueryScaling(Section):
    original_max_position_embeddings: Size
    beta: Number


class NativeMoe(Section):
    num_experts: Size
    num_experts_per_tok: Size
    num_shared_experts: Size
    expert_hidden_dim: Size
    routed_scale: One = 1.0
    num_expert_groups: Literal[1] | None = 1
    num_expert_groups_per_tok: Literal[1] | None = 1
    first_k_dense_replace: Literal[0] = 0
    route_every_n: Literal[1] = 1
    expert_parallel: int = 1  # how the weights were trained, not how they are served
    expert_model_parallel: int = 1


class NativeQuantization(Section):
    qformat_weight: Literal["fp8_e4m3"]
    qscheme_act: Literal["TENSOR", "NO_SCALES"] | None = "TENSOR"


class NativeParams(Section):
    """`params.json`."""

    dim: Size
    n_layers: Size
    n_heads: Size
    n_kv_heads: Size | None = None
    head_dim: Size | None = None
    hidden_dim: int | None = None
    vocab_size: Size
    norm_eps: Number
    rope_theta: Number
    tied_embeddings: Literal[False] = False
    activation: Literal["silu"] = "silu"
    max_position_embeddings: Size | None = None
    max_seq_len: Size | None = None
    sliding_window: None = None
    q_lora_rank: Size
    kv_lora_rank: Size
    qk_nope_head_dim: Size
    qk_rope_head_dim: Size
    v_head_dim: Size
    yarn: NativeYarn
    llama_4_scaling: NativeQueryScaling
    moe: NativeMoe
    quantization: NativeQuantization | None = None
    vision_encoder: dict[str, Any] | None = None
    model_type: str | None = None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; raises ConfigError when it is not one."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a JSON object, found {type(data).__name__}")
    return data


def validate(section: type[Fields], data: dict[str, Any], file: str) -> Fields:
    """The fields of one section; raises ConfigError with file, field and reason, or the unknown fields that matter."""
    try:
        fields = section.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {first['input']!r}"
        raise ConfigError(f"{file}: {place}: {first['msg']}{found}") from error
    unknown = sorted(name for name in _extra_names(fields) if name.rsplit(".", 1)[-1] not in INERT)
    meaningful = [name for name in unknown if any(word in name.lower() for word in MEANINGFUL)]
    if meaningful:
        raise ConfigError(f"{file}: unknown fields that change what the model computes: {', '.join(meaningful)}")
    if unknown:
        logger.info("%s: fields not used: %s", file, ", ".join(unknown))
    return fields


def _extra_names(section: Section, prefix: str = "") -> list[str]:
    names = [prefix + name for name in section.model_extra or ()]
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            names += _extra_names(value, f"{prefix}{name}.")
    return names


def expect(file: str, field: str, found: float | None, expected: float) -> None:
    """Raise ConfigError when a field, where it is given, is not what the others say."""
    if found is not None and not math.isclose(found, expected):
        raise ConfigError(f"{file}: {field} is {found}, expected {expected} from the other fields")
