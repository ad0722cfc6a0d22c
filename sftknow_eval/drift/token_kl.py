"""How far a fine-tune's next-token distribution has moved from its base's.

Both models are asked the same fact, each in its own words. Of the fine-tune's distribution the
ten likeliest tokens are taken, of the base's the same ten, and both are renormalised over them:
the base's mass on filler words, which its completion prompt invites, drops out. Beside it
stand the divergences over the whole vocabulary, in both directions.

Divergences are in nats, summed in float64, from logits or log-probabilities in float32: a
constant added to a row changes nothing.

Legend: N facts, V vocabulary, K tokens taken.

Source: section 4.
"""

from __future__ import annotations

import torch

TOP = 10


def top_tokens(finetuned_NV: torch.Tensor, k: int = TOP) -> torch.Tensor:
    """Return the ids of the `k` largest logits of each row, (N, K); of equal ones, the lowest ids.

    Args:
        finetuned_NV: the fine-tune's logits.
        k: how many; at most V.
    """
    values_NK, ids_NK = finetuned_NV.topk(k, dim=-1)
    # Among equal values `topk` takes any: where the last place is shared, the order is settled.
    reach_N = (finetuned_NV >= values_NK[:, -1:]).sum(dim=-1)
    for row in torch.nonzero(reach_N > k).flatten().tolist():
        order_V = torch.sort(finetuned_NV[row], descending=True, stable=True).indices
        ids_NK[row] = order_V[:k]
    return ids_NK


def top_kl(finetuned_NK: torch.Tensor, base_NK: torch.Tensor) -> torch.Tensor:
    """Return KL(fine-tune || base) over tokens that both are renormalised on, float64 (N,).

    Args:
        finetuned_NK: the fine-tune's logits or log-probabilities of its likeliest tokens.
        base_NK: the base's of the same tokens.

    Source: section 4 (s_KL = sum over i of p_i log(p_i / p'_i)).
    """
    return divergence(finetuned_NK.double(), base_NK.double())


def divergence(p_NV: torch.Tensor, q_NV: torch.Tensor) -> torch.Tensor:
    """Return KL(p || q) of two rows of logits, float64 (N,), at least 0.

    Args:
        p_NV: logits or log-probabilities.
        q_NV: those of the same tokens.
    """
    log_p_NV = torch.log_softmax(p_NV, dim=-1)
    terms_NV = log_p_NV.exp() * (log_p_NV - torch.log_softmax(q_NV, dim=-1))
    return terms_NV.sum(dim=-1, dtype=torch.float64).clamp(min=0)
