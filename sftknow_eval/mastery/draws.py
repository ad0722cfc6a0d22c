"""Random draws that are pure functions of a seed, a sample and a step.

Shapes: S samples, N nodes (rows of a batch; several samples may stand at one), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sftknow_eval.errors import ModelError

IntArray = npt.NDArray[np.int64]


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finish a splitmix64 state: a bijection of 64 bits that looks random."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seeds: Sequence[int], n: int, step: int) -> npt.NDArray[np.float64]:
    """Return the uniform numbers in [0, 1) of every sample at a step.

    Each is a pure function of (seed, sample, step): sample j is the splitmix64 stream that
    starts at seed + j, and `step` counts along it.

    Returns:
        float64 of shape (len(seeds) * n,): the samples of the first seed first.
    """
    states = np.asarray(seeds, dtype=np.uint64)[:, None] + np.arange(n, dtype=np.uint64)
    gamma = np.array([(step + 1) * 0x9E3779B97F4A7C15 % 2**64], dtype=np.uint64)
    bits = _mix(_mix(states) + gamma)
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(-1)


def draw(
    logits_NV: torch.Tensor, node: IntArray, u: npt.NDArray[np.float64], temperature: float
) -> IntArray:
    """Return each sample's next token: the inverse CDF of its node's softmax at its `u`.

    Args:
        logits_NV: next-token logits of the nodes.
        node: the node of each sample, (S,).
        u: the uniform number of each sample, (S,).
        temperature: divides the logits.
    """
    scaled_NV = logits_NV.float() / temperature
    weights_NV = (scaled_NV - scaled_NV.amax(dim=-1, keepdim=True)).exp_()
    # Summed in float64: over 128,000 tokens a float32 sum would lose the rare ones.
    cdf_NV = weights_NV.cumsum(dim=-1, dtype=torch.float64)
    total_N = cdf_NV[:, -1].cpu().numpy()
    if not np.isfinite(total_N).all():
        raise ModelError(
            "The model gives logits that are not numbers (NaN or infinite): its weights are "
            "damaged, or its dtype is too small. Try dtype float32."
        )
    order = np.argsort(node, kind="stable")
    starts = np.searchsorted(node[order], np.arange(len(total_N)))
    place = np.empty_like(node)
    place[order] = np.arange(len(node)) - starts[node[order]]
    grid = np.zeros((len(total_N), int(place.max()) + 1))
    grid[node, place] = u * total_N[node]
    wanted = torch.from_numpy(grid).to(cdf_NV.device)
    token = torch.searchsorted(cdf_NV, wanted, right=True).clamp_(max=cdf_NV.shape[1] - 1)
    return token.cpu().numpy()[node, place]
