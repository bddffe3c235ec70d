"""The text model: embedding, layers of latent attention and experts, final norm and head."""

import logging
from collections.abc import Iterable

import torch
from sglang.srt.eplb.expert_distribution import get_global_expert_distribution_recorder
from sglang.srt.eplb.expert_location import ModelConfigForExpertLocation
from sglang.srt.layers.dp_attention import is_dp_attention_enabled
from sglang.srt.layers.layer_boundary import append_stages, declare_attn, declare_ffn
from sglang.srt.layers.layer_boundary.residual import batch as residual_batch
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.logits_processor import LogitsProcessor, LogitsProcessorOutput
from sglang.srt.layers.quantization.base_config import QuantizationConfig
from sglang.srt.layers.utils import PPMissingLayer
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from sglang.srt.model_executor.forward_batch_info import ForwardBatch, PPProxyTensors
from sglang.srt.models.utils import WeightsMapper
from sglang.srt.runtime_context import get_parallel
from sglang.srt.utils import LazyValue, add_prefix, make_pp_layers
from torch import nn
from transformers import PretrainedConfig

from sgl_small4.checkpoint.load import load
from sgl_small4.config import Small4Config
from sgl_small4.model.attention import LatentAttention
from sgl_small4.model.moe import MixtureOfExperts
from sgl_small4.model.rope import YarnRotaryEmbedding, query_scale

logger = logging.getLogger(__name__)


class Small4DecoderLayer(nn.Module):
    """Norm, attention, norm, experts. The boundaries carry the residual and what tensor and data ranks exchange."""

    def __init__(
        self,
        config: Small4Config,
        layer_id: int,
        rotary: YarnRotaryEmbedding,
        quant_config: QuantizationConfig | None,
        prefix: str,
    ) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = LatentAttention(config, layer_id, rotary, quant_config, add_prefix("self_attn", prefix))
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MixtureOfExperts(config, layer_id, quant_config, add_prefix("mlp", prefix))
        attention, experts = self.stages()
        self.attn_boundary, self.ffn_boundary = append_stages(
            (attention, self.input_layernorm), (experts, self.post_attention_layernorm)
        )

    @staticmethod
    def stages(_layer_id: int = 0) -> tuple:
        """What every layer declares to SGLang's layer boundaries; the same for all layers."""
        return declare_attn(), declare_ffn(sparse=True, next_layer_sparse=True)

    def forward(
        self,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        forward_batch: ForwardBatch,
        scale: torch.Tensor,
    ) -> torch.Tensor:
        hidden_states = self.attn_boundary.prepare(hidden_states, forward_batch)
        if hidden_states.shape[0] != 0:
            hidden_states = self.self_attn(positions, hidden_states, forward_batch, scale)
        hidden_states = self.attn_boundary.finish(hidden_states, forward_batch)
        hidden_states = self.ffn_boundary.prepare(hidden_states, forward_batch)
        hidden_states = self.mlp(hidden_states)
        return self.ffn_boundary.finish(hidden_states, forward_batch)


class Small4Model(nn.Module):
    """This pipeline rank's layers, with the embedding on the first rank and the final norm on the last."""

    def __init__(self, config: Small4Config, quant_config: QuantizationConfig | None, prefix: str) -> None:
        super().__init__()
        self.rope = config.rope
        self.pp_group = get_parallel().pp_group
        self.embed_tokens = PPMissingLayer()
        if self.pp_group.is_first_rank:
            self.embed_tokens = VocabParallelEmbedding(
                config.vocab_size,
                config.hidden_size,
                use_attn_tp_group=is_dp_attention_enabled(),
                prefix=add_prefix("embed_tokens", prefix),
            )
        rotary = YarnRotaryEmbedding(config.rope, config.qk_rope_head_dim, torch.get_default_dtype())
        self.layers, self.start_layer, self.end_layer = make_pp_layers(
            config.num_hidden_layers,
            lambda idx, prefix: Small4DecoderLayer(config, idx, rotary, quant_config, prefix),
            prefix=add_prefix("layers", prefix),
            stage_facts=Small4DecoderLayer.stages,
        )
        self.norm = PPMissingLayer(return_tuple=True)
        if self.pp_group.is_last_rank:
            self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: ForwardBatch,
        input_embeds: torch.Tensor | None = None,
        pp_proxy_tensors: PPProxyTensors | None = None,
    ) -> torch.Tensor | PPProxyTensors:
        if self.pp_group.is_first_rank:
            hidden_states = self.embed_tokens(input_ids) if input_embeds is None else input_embeds
            residual_batch.start(forward_batch)
        else:
            hidden_states = self.layers[self.start_layer].attn_boundary.from_pp(pp_proxy_tensors, forward_batch)
        scale = query_scale(self.rope, positions)
        for number in range(self.start_layer, self.end_layer):
            with get_global_expert_distribution_recorder().with_current_layer(number):
                hidden_states = self.layers[number](positions, hidden_states, forward_batch, scale)
        if not self.pp_group.is_last_rank:
            return residual_batch.to_pp(hidden_states, forward_batch)
        return residual_batch.final_norm(hidden_states, forward_batch, self.norm, skip_empty=True)


class Mistral4ForCausalLM(nn.Module):
    """What SGLang instantiates for `Small4Config.to_hf()`; fills itself from either checkpoint format."""

    fall_back_to_pt_during_load = False  # never a pickle
    packed_modules_mapping = {"gate_up_proj": ["gate_proj", "up_proj"]}
    # The checkpoint's list of modules left in bf16 names them as its own files do.
    hf_to_sglang_mapper = WeightsMapper(
        orig_to_new_prefix={
            "language_model.model.": "model.",
            "model.language_model.": "model.",
            "language_model.lm_head": "lm_head",
        }
    )

    def __init__(
        self, config: PretrainedConfig, quant_config: QuantizationConfig | None = None, prefix: str = ""
    ) -> None:
        super().__init__()
        self.config = config
        self.small4 = Small4Config.from_served(config)
        self.quant_config = quant_config
        self.pp_group = get_parallel().pp_group
        self.model = Small4Model(self.small4, quant_config, add_prefix("model", prefix))
        self.lm_head = ParallelLMHead(
            self.small4.vocab_size,
            self.small4.hidden_size,
            use_attn_tp_group=get_parallel().enable_dp_lm_head,
            prefix=add_prefix("lm_head", prefix),
        )
        self.logits_processor = LogitsProcessor(config)
        self.routed_experts_weights_of_layer = LazyValue(
            lambda: {
                number: self.model.layers[number].mlp.routed_weights()
                for number in range(self.start_layer, self.end_layer)
            }
        )

    @torch.no_grad()
    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: ForwardBatch,
        input_embeds: torch.Tensor | None = None,
        pp_proxy_tensors: PPProxyTensors | None = None,
    ) -> LogitsProcessorOutput | PPProxyTensors:
        """input_ids and positions [tokens]; logits on the last pipeline rank, hidden states for the next elsewhere."""
        hidden_states = self.model(input_ids, positions, forward_batch, input_embeds, pp_proxy_tensors)
        if not self.pp_group.is_last_rank:
            return hidden_states
        return self.logits_processor(input_ids, hidden_states, self.lm_head, forward_batch)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        load(self, self.small4, weights)
        logger.info(
            "Mistral Small 4 by sgl_small4: layers %d to %d, softmax scale %.6g, FP8 scales %s",
            self.start_layer,
            self.end_layer - 1,
            self.small4.softmax_scale,
            self.small4.quantization or "none",
        )
        self.post_load_weights()

    def post_load_weights(self) -> None:
        """Called by SGLang after loaders that fill parameters themselves (dummy, sharded, remote)."""
        for number in range(self.start_layer, self.end_layer):
            self.model.layers[number].self_attn.absorb()

    @property
    def start_layer(self) -> int:
        return self.model.start_layer

    @property
    def end_layer(self) -> int:
        return self.model.end_layer

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    @classmethod
    def get_model_config_for_expert_location(cls, config: PretrainedConfig) -> ModelConfigForExpertLocation:
        return ModelConfigForExpertLocation(
            num_layers=config.num_hidden_layers, num_logical_experts=config.n_routed_experts, num_groups=None
        )


EntryClass = Mistral4ForCausalLM
