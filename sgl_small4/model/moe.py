"""Mixture of experts: a softmax router, routed experts of which a few work per token, and a shared one for all."""

import torch
from sglang.srt.layers.activation import SiluAndMul
from sglang.srt.layers.linear import MergedColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from sglang.srt.layers.moe import get_moe_a2a_backend
from sglang.srt.layers.moe.ep_moe.layer import get_moe_impl_class
from sglang.srt.layers.moe.topk import TopK
from sglang.srt.layers.moe.utils import RoutingMethodType, filter_moe_weight_param_global_expert
from sglang.srt.layers.quantization.base_config import QuantizationConfig
from sglang.srt.runtime_context import get_exec
from sglang.srt.utils import add_prefix
from torch import nn

from sgl_small4.config import Small4Config


class SharedExperts(nn.Module):
    """A gated MLP: [tokens, hidden_size] to [tokens, hidden_size], not yet summed over tensor ranks."""

    def __init__(self, config: Small4Config, quant_config: QuantizationConfig | None, prefix: str) -> None:
        super().__init__()
        inner = config.moe_intermediate_size * config.n_shared_experts
        # Under all-to-all expert parallelism each rank keeps its own tokens, so the shared expert is whole on each.
        ranks = {} if get_moe_a2a_backend().is_none() else {"tp_rank": 0, "tp_size": 1}
        self.gate_up_proj = MergedColumnParallelLinear(
            config.hidden_size,
            [inner, inner],
            bias=False,
            quant_config=quant_config,
            prefix=add_prefix("gate_up_proj", prefix),
            **ranks,
        )
        self.down_proj = RowParallelLinear(
            inner,
            config.hidden_size,
            bias=False,
            reduce_results=False,
            quant_config=quant_config,
            prefix=add_prefix("down_proj", prefix),
            **ranks,
        )
        self.act_fn = SiluAndMul()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_up_proj(hidden_states)[0]))[0]


class MixtureOfExperts(nn.Module):
    """Routed experts by the renormalised softmax over the chosen, plus the shared one, summed before one reduce."""

    def __init__(
        self, config: Small4Config, layer_id: int, quant_config: QuantizationConfig | None, prefix: str
    ) -> None:
        super().__init__()
        self.gate = ReplicatedLinear(
            config.hidden_size,
            config.n_routed_experts,
            bias=False,
            quant_config=None,
            prefix=add_prefix("gate", prefix),
        )
        self.topk = TopK(
            top_k=config.num_experts_per_tok,
            renormalize=True,
            use_grouped_topk=False,
            scoring_func="softmax",
            layer_id=layer_id,
        )
        self.experts = get_moe_impl_class(quant_config)(
            num_experts=config.n_routed_experts + get_exec().moe.ep_num_redundant_experts,
            top_k=config.num_experts_per_tok,
            layer_id=layer_id,
            hidden_size=config.hidden_size,
            intermediate_size=config.moe_intermediate_size,
            quant_config=quant_config,
            routing_method_type=RoutingMethodType.Renormalize,
            prefix=add_prefix("experts", prefix),
        )
        self.topk.bind_runner_backend(self.experts.runner_backend, routing_method_type=self.experts.routing_method_type)
        self.shared_experts = SharedExperts(config, quant_config, add_prefix("shared_experts", prefix))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[tokens, hidden_size] to the same, not yet summed over ranks; an idle rank has no tokens."""
        if hidden_states.shape[0] == 0:
            return self.experts(hidden_states, self.topk.empty_topk_output(hidden_states.device))
        shared = self.shared_experts(hidden_states)  # first: the routed kernels may write over their input
        router_logits = self.gate(hidden_states)[0]  # [tokens, n_routed_experts]
        return self.experts(hidden_states, self.topk(hidden_states, router_logits)) + shared

    def routed_weights(self) -> list[torch.Tensor]:
        """The experts' weights of this rank, for SGLang's expert-parallel load balancer."""
        return [
            weight.data
            for name, weight in self.experts.named_parameters()
            if filter_moe_weight_param_global_expert(name, weight, self.experts.num_local_experts)
        ]
