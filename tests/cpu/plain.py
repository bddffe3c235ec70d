"""What the CPU's attention and experts compute, written out one token at a time in float64."""

import torch


def latent_attention(query, rows, slots, new_lens, v_head_dim, scaling):
    """query [tokens, heads, dim], rows [slots, dim], slots: one list per request; [tokens, heads, v_head_dim]."""
    output, token = [], 0
    for request, new in zip(slots, new_lens, strict=True):
        latents = rows[torch.tensor(request)].double()
        for position in range(len(request) - new, len(request)):
            seen = latents[: position + 1]
            weights = (query[token].double() @ seen.T * scaling).softmax(-1)
            output.append(weights @ seen[:, :v_head_dim])
            token += 1
    return torch.stack(output)


def head_attention(query, key, value, new_lens, lens, scaling):
    """query [tokens, heads, dim], key and value [rows, heads, dim]; [tokens, heads, v_head_dim]."""
    output, token, row = [], 0, 0
    for new, length in zip(new_lens, lens, strict=True):
        for position in range(length - new, length):
            seen = slice(row, row + position + 1)
            scores = torch.einsum("hd,rhd->hr", query[token].double(), key[seen].double()) * scaling
            output.append(torch.einsum("hr,rhd->hd", scores.softmax(-1), value[seen].double()))
            token += 1
        row += length
    return torch.stack(output)


def experts(hidden, gate_up, down, weights, ids):
    """hidden [tokens, hidden]; experts elsewhere are -1; [tokens, hidden]."""
    output = torch.zeros(hidden.shape, dtype=torch.float64)
    for token, chosen in enumerate(ids.tolist()):
        for place, expert in enumerate(chosen):
            if expert >= 0:
                gate, up = (gate_up[expert].double() @ hidden[token].double()).chunk(2)
                product = torch.nn.functional.silu(gate) * up
                output[token] += weights[token, place].double() * (down[expert].double() @ product)
    return output
