"""One `Small4Config` from a checkpoint's `config.json` (Hugging Face) or `params.json` (native), told apart by content.

The two files describe the same model in different words; each is read by one pydantic model of config_fields.py,
whose field types and `Literal`s say what is supported. Names follow transformers' `Mistral4Config`.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from sgl_small4.config_fields import (
    ConfigError,
    Dtype,
    HfRope,
    HfText,
    NativeParams,
    NativeQuantization,
    expect,
    read_json,
    validate,
)

logger = logging.getLogger(__name__)

Format = Literal["native", "hf"]
CONFIG_FILE: dict[Format, str] = {"native": "params.json", "hf": "config.json"}
WEIGHT_FILES: dict[Format, str] = {"native": "consolidated*.safetensors", "hf": "model*.safetensors"}


@dataclass(frozen=True)
class Rope:
    """Rotary positions on interleaved pairs with YaRN frequencies (Peng et al. 2023), and Llama 4's query scale."""

    theta: float
    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float
    magnitude: float  # multiplies cos and sin
    query_scale_beta: float  # query at position p times 1 + beta * ln(1 + floor(p / original_max_position_embeddings))
    mscale_all_dim: float  # of YaRN's temperature, which scales the softmax only where the next field is true
    apply_yarn_scaling: bool


@dataclass(frozen=True)
class Small4Config:
    """What the model definition and the loader need to know. Sizes count numbers, per head where it says head."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int
    moe_intermediate_size: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope: Rope
    quantization: Literal["static", "dynamic"] | None  # FP8 per tensor in the files, by how activations are scaled
    unquantized_modules: tuple[str, ...]
    dtype: Dtype
    has_vision: bool
    source: Format

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """Plain ``qk_head_dim ** -0.5`` for the published weights, in either format.

        YaRN's mscale is folded in only where the checkpoint was trained with it: native `yarn.apply_scale: true`, or
        `rope_parameters.apply_yarn_scaling: true` in an HF config. The published HF config has `mscale_all_dim: 1.0`
        all the same, and folding it in costs accuracy (sglang PR 26203).
        """
        mscale = _mscale(self.rope.factor, self.rope.mscale_all_dim) if self.rope.apply_yarn_scaling else 1.0
        return self.qk_head_dim**-0.5 * mscale**2

    @classmethod
    def from_folder(cls, folder: Path | str) -> Self:
        """Read a checkpoint folder's configuration; raises ConfigError when it is not a Small 4 that can be served."""
        folder = Path(folder)
        source = checkpoint_format(folder)
        file = folder / CONFIG_FILE[source]
        data = read_json(file)
        return cls.from_native(data, str(file)) if source == "native" else cls.from_hf(data, str(file))

    @classmethod
    def from_hf(cls, data: dict[str, Any], file: str = "config.json") -> Self:
        """Read a parsed `config.json`: text-only `mistral4`, or a wrapper with it as `text_config`."""
        text = data["text_config"] if "text_config" in data else data
        if "quantization_config" in data and text is not data:
            text = {**text, "quantization_config": data["quantization_config"]}
        fields = validate(HfText, text, file)
        rope, rope_dim = fields.rope_parameters, fields.qk_rope_head_dim
        dims = fields.qk_nope_head_dim + rope_dim
        expect(file, "num_key_value_heads", fields.num_key_value_heads, fields.num_attention_heads)
        expect(file, "head_dim", fields.head_dim, dims)
        expect(file, "qk_head_dim", fields.qk_head_dim, dims)
        expect(file, "rope_parameters.partial_rotary_factor", rope.partial_rotary_factor, rope_dim / dims)
        if rope.apply_yarn_scaling and not rope.mscale_all_dim:
            raise ConfigError(f"{file}: rope_parameters.apply_yarn_scaling is true, which needs mscale_all_dim above 0")
        if rope.mscale_all_dim and not rope.apply_yarn_scaling:
            logger.info(
                "%s: mscale_all_dim is %s; the softmax scale stays %s ** -0.5 because apply_yarn_scaling is not true",
                file, rope.mscale_all_dim, dims,
            )  # fmt: skip
        quantization = fields.quantization_config
        return cls(
            vocab_size=fields.vocab_size,
            hidden_size=fields.hidden_size,
            num_hidden_layers=fields.num_hidden_layers,
            num_attention_heads=fields.num_attention_heads,
            q_lora_rank=fields.q_lora_rank,
            kv_lora_rank=fields.kv_lora_rank,
            qk_nope_head_dim=fields.qk_nope_head_dim,
            qk_rope_head_dim=fields.qk_rope_head_dim,
            v_head_dim=fields.v_head_dim,
            n_routed_experts=fields.n_routed_experts,
            num_experts_per_tok=fields.num_experts_per_tok,
            n_shared_experts=fields.n_shared_experts,
            moe_intermediate_size=fields.moe_intermediate_size,
            rms_norm_eps=fields.rms_norm_eps,
            max_position_embeddings=fields.max_position_embeddings,
            rope=Rope(
                theta=rope.rope_theta,
                factor=rope.factor,
                original_max_position_embeddings=rope.original_max_position_embeddings,
                beta_fast=rope.beta_fast,
                beta_slow=rope.beta_slow,
                magnitude=_yarn_magnitude(rope),
                query_scale_beta=rope.llama_4_scaling_beta,
                mscale_all_dim=rope.mscale_all_dim or 0.0,
                apply_yarn_scaling=rope.apply_yarn_scaling,
            ),
            quantization=quantization.activation_scheme if quantization else fields.stored_quantization,
            unquantized_modules=tuple(quantization.modules_to_not_convert or ()) if quantization else (),
            dtype=fields.dtype or fields.torch_dtype or data.get("dtype") or "bfloat16",
            has_vision="vision_config" in data,
            source="hf",
        )

    @classmethod
    def from_served(cls, config: Any) -> Self:
        """Read the configuration object that SGLang carries, after its overrides and without SGLang's additions."""
        names = HfText.model_fields.keys() - {"torch_dtype"}
        fields = {name: getattr(config, name) for name in names if hasattr(config, name)}
        return cls.from_hf(fields | {"dtype": str(config.dtype).removeprefix("torch.")})

    @classmethod
    def from_native(cls, data: dict[str, Any], file: str = "params.json") -> Self:
        """Read a parsed `params.json`."""
        fields = validate(NativeParams, data, file)
        yarn, moe = fields.yarn, fields.moe
        dims = fields.qk_nope_head_dim + fields.qk_rope_head_dim
        original = yarn.original_max_position_embeddings
        expect(file, "n_kv_heads", fields.n_kv_heads, fields.n_heads)
        expect(file, "head_dim", fields.head_dim, dims)
        expect(
            file,
            "llama_4_scaling.original_max_position_embeddings",
            fields.llama_4_scaling.original_max_position_embeddings,
            original,
        )
        return cls(
            vocab_size=fields.vocab_size,
            hidden_size=fields.dim,
            num_hidden_layers=fields.n_layers,
            num_attention_heads=fields.n_heads,
            q_lora_rank=fields.q_lora_rank,
            kv_lora_rank=fields.kv_lora_rank,
            qk_nope_head_dim=fields.qk_nope_head_dim,
            qk_rope_head_dim=fields.qk_rope_head_dim,
            v_head_dim=fields.v_head_dim,
            n_routed_experts=moe.num_experts,
            num_experts_per_tok=moe.num_experts_per_tok,
            n_shared_experts=moe.num_shared_experts,
            moe_intermediate_size=moe.expert_hidden_dim,
            rms_norm_eps=fields.norm_eps,
            max_position_embeddings=fields.max_position_embeddings or fields.max_seq_len or int(original * yarn.factor),
            rope=Rope(
                theta=fields.rope_theta,
                factor=yarn.factor,
                original_max_position_embeddings=original,
                beta_fast=yarn.beta,
                beta_slow=yarn.alpha,
                magnitude=1.0,
                query_scale_beta=fields.llama_4_scaling.beta,
                mscale_all_dim=1.0,
                apply_yarn_scaling=yarn.apply_scale,
            ),
            quantization=_native_activation_scheme(fields.quantization),
            unquantized_modules=(),
            dtype="bfloat16",  # params.json does not say; SGLang's --dtype overrides
            has_vision=fields.vision_encoder is not None,
            source="native",
        )

    def to_hf(self, dequantize: bool = False) -> dict[str, Any]:
        """The same configuration in the words of `config.json`, so that ``from_hf(to_hf())`` computes the same model.

        With `dequantize` the layers are built unquantised and the loader multiplies FP8 weights by their scales.
        """
        rope = self.rope
        fields: dict[str, Any] = {
            "architectures": ["Mistral4ForCausalLM"],
            "model_type": "mistral4",
            **{
                name: getattr(self, name)
                for name in HfText.model_fields
                if name in self.__dataclass_fields__ and name != "rope_parameters"
            },
            "num_key_value_heads": self.num_attention_heads,
            "intermediate_size": self.moe_intermediate_size * self.num_experts_per_tok,  # no dense layer reads it
            "head_dim": self.qk_head_dim,
            "first_k_dense_replace": 0,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "n_group": 1,
            "topk_group": 1,
            "hidden_act": "silu",
            "attention_bias": False,
            "rope_interleave": True,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 11,
            "rope_parameters": {
                "rope_type": "yarn",
                "type": "yarn",
                "rope_theta": rope.theta,
                "factor": rope.factor,
                "original_max_position_embeddings": rope.original_max_position_embeddings,
                "max_position_embeddings": self.max_position_embeddings,
                "beta_fast": rope.beta_fast,
                "beta_slow": rope.beta_slow,
                "mscale": 1.0,
                "mscale_all_dim": rope.mscale_all_dim,
                "attention_factor": rope.magnitude,
                "llama_4_scaling_beta": rope.query_scale_beta,
                "partial_rotary_factor": self.qk_rope_head_dim / self.qk_head_dim,
            },
        }
        if rope.apply_yarn_scaling:  # only then, because transformers warns of a field it does not know
            fields["rope_parameters"]["apply_yarn_scaling"] = True
        if self.quantization and dequantize:
            fields["stored_quantization"] = self.quantization
        elif self.quantization:
            fields["quantization_config"] = {
                "quant_method": "fp8",
                "activation_scheme": self.quantization,
                "weight_block_size": None,
                "modules_to_not_convert": list(self.unquantized_modules),
            }
        return fields

    def to_native(self) -> dict[str, Any]:
        """The same configuration in the words of `params.json`; raises ConfigError for what those cannot say."""
        rope = self.rope
        if rope.magnitude != 1.0 or (rope.apply_yarn_scaling and rope.mscale_all_dim != 1.0):
            raise ConfigError("params.json cannot express this checkpoint's attention_factor or mscale_all_dim")
        fields: dict[str, Any] = {
            "dim": self.hidden_size,
            "n_layers": self.num_hidden_layers,
            "n_heads": self.num_attention_heads,
            "n_kv_heads": self.num_attention_heads,
            "head_dim": self.qk_head_dim,
            "hidden_dim": self.moe_intermediate_size * self.num_experts_per_tok,
            "vocab_size": self.vocab_size,
            "norm_eps": self.rms_norm_eps,
            "rope_theta": rope.theta,
            "tied_embeddings": False,
            "max_position_embeddings": self.max_position_embeddings,
            "q_lora_rank": self.q_lora_rank,
            "kv_lora_rank": self.kv_lora_rank,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "v_head_dim": self.v_head_dim,
            "yarn": {
                "factor": rope.factor,
                "original_max_position_embeddings": rope.original_max_position_embeddings,
                "beta": rope.beta_fast,
                "alpha": rope.beta_slow,
                "apply_scale": rope.apply_yarn_scaling,
            },
            "llama_4_scaling": {
                "original_max_position_embeddings": rope.original_max_position_embeddings,
                "beta": rope.query_scale_beta,
            },
            "moe": {
                "num_experts": self.n_routed_experts,
                "num_experts_per_tok": self.num_experts_per_tok,
                "num_shared_experts": self.n_shared_experts,
                "expert_hidden_dim": self.moe_intermediate_size,
                "routed_scale": 1.0,
                "num_expert_groups": 1,
                "num_expert_groups_per_tok": 1,
                "first_k_dense_replace": 0,
                "route_every_n": 1,
            },
        }
        if self.quantization:
            scheme = {"static": "TENSOR", "dynamic": "NO_SCALES"}[self.quantization]
            fields["quantization"] = {"qformat_weight": "fp8_e4m3", "qscheme_act": scheme}
        return fields


def checkpoint_format(folder: Path) -> Format:
    """Which of the two formats to read from a folder; never by its name.

    One whose configuration describes Small 4, if possible with its weight files. Native is preferred where both are
    whole: it is the form the model's makers publish, and its `apply_scale` is unambiguous.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the folder of a Mistral Small 4 checkpoint")
    described = [source for source in CONFIG_FILE if _describes_small4(folder, source)]
    if not described:
        raise ConfigError(f"{folder} holds no Mistral Small 4: neither config.json nor params.json there describes one")
    return next((source for source in described if any(folder.glob(WEIGHT_FILES[source]))), described[0])


def weight_files(folder: Path) -> list[Path]:
    """The weight files of the format that is read from this folder, sorted; never a pickle."""
    source = checkpoint_format(folder)
    files = sorted(folder.glob(WEIGHT_FILES[source]))
    if not files:
        raise ConfigError(f"{folder} holds no weights; expected {WEIGHT_FILES[source]} beside {CONFIG_FILE[source]}")
    return files


def is_small4(folder: Path | str) -> bool:
    """Whether a folder's configuration describes a Small 4 text model, in either format, alone or in the wrapper."""
    return any(_describes_small4(Path(folder), source) for source in CONFIG_FILE)


def _describes_small4(folder: Path, source: Format) -> bool:
    file = folder / CONFIG_FILE[source]
    if not file.is_file():
        return False
    data = read_json(file)
    if source == "hf":
        text = data.get("text_config")
        return (text if isinstance(text, dict) else data).get("model_type") == "mistral4"
    # The EAGLE draft has latent attention and no experts; Mistral Large 3 has both and dense layers before them.
    moe = data.get("moe")
    return "kv_lora_rank" in data and isinstance(moe, dict) and not moe.get("first_k_dense_replace")


def _mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature: 0.1 * mscale * ln(factor) + 1 (section 3.4 of the paper, as in DeepSeek-V2)."""
    return 0.1 * mscale * math.log(factor) + 1.0


def _yarn_magnitude(rope: HfRope) -> float:
    """The multiplier of cos and sin, as transformers computes it (`_compute_yarn_parameters`)."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return _mscale(rope.factor, rope.mscale) / _mscale(rope.factor, rope.mscale_all_dim)
    return _mscale(rope.factor, 1.0)


def _native_activation_scheme(quantization: NativeQuantization | None) -> Literal["static", "dynamic"] | None:
    if quantization is None:
        return None
    return "dynamic" if quantization.qscheme_act == "NO_SCALES" else "static"
