"""transformers' Mistral 4 as the reference, with the fields that make it compute what the published weights mean."""

import torch
from transformers import Mistral4Config, Mistral4ForCausalLM

from tests.checkpoints import Checkpoint


def oracle(checkpoint: Checkpoint) -> Mistral4ForCausalLM:
    """The float32 reference model of a checkpoint, unscaled or scaled as its shape says.

    transformers multiplies the softmax scale whenever `mscale_all_dim` is not 0, and cos and sin by 1.485 unless
    `attention_factor` says 1; the unscaled reference sets both.
    """
    config = checkpoint.hf_text_config()
    rope = config["rope_parameters"]
    if not rope.pop("apply_yarn_scaling", False):
        rope |= {"mscale_all_dim": 0.0, "attention_factor": 1.0}
    whole = checkpoint.dequantised() if checkpoint.is_fp8 else checkpoint
    with torch.device("meta"):
        model = Mistral4ForCausalLM(Mistral4Config(**config))
    model.to_empty(device="cpu")
    model.load_state_dict(
        {name: tensor.float() for name, tensor in whole.hf_tensors().items()}, strict=True, assign=True
    )
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model.eval()


@torch.no_grad()
def reference_logits(model: Mistral4ForCausalLM, ids: tuple[int, ...]) -> torch.Tensor:
    """[tokens, vocab] float32 for every position of a sequence."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()
