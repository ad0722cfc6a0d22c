"""Divergences of next-token distributions, against values worked out by hand and by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from sftknow_eval.drift.token_kl import divergence, top_kl, top_tokens


def test_three_tokens_worked_out_by_hand() -> None:
    # p = (0.5, 0.3, 0.2), q = (0.4, 0.4, 0.2):
    # KL(p||q) = 0.5 ln 1.25 + 0.3 ln 0.75 = 0.111571775657 - 0.086304621736 = 0.025267153921
    # KL(q||p) = 0.4 ln 0.8 + 0.4 ln 4/3  = -0.089257420526 + 0.115072828981 = 0.025815408455
    p = torch.tensor([[0.5, 0.3, 0.2]]).log()
    q = torch.tensor([[0.4, 0.4, 0.2]]).log()
    assert top_kl(p, q).item() == pytest.approx(0.025267153921, abs=1e-7)
    assert divergence(q.double(), p.double()).item() == pytest.approx(0.025815408455, abs=1e-7)
    # Logits are known up to a constant.
    assert top_kl(p + 7, q - 3).item() == pytest.approx(0.025267153921, abs=1e-6)


def test_the_bases_mass_on_other_words_drops_out() -> None:
    # The base puts 90% on a fourth token that is not among the fine-tune's three.
    finetuned = torch.tensor([[0.5, 0.3, 0.2, 1e-9]]).log()
    base = torch.tensor([[0.04, 0.04, 0.02, 0.9]]).log()
    ids = top_tokens(finetuned, 3)
    assert ids.tolist() == [[0, 1, 2]]
    found = top_kl(finetuned.gather(1, ids), base.gather(1, ids)).item()
    assert found == pytest.approx(0.025267153921, abs=1e-6)
    # Over the whole vocabulary it counts: the base's rare tokens cost ln(0.5 / 0.04) and so on.
    whole = 0.5 * math.log(12.5) + 0.3 * math.log(7.5) + 0.2 * math.log(10)
    assert divergence(finetuned, base).item() == pytest.approx(whole, abs=1e-5)


def test_values_are_scipys_on_random_rows() -> None:
    random = np.random.default_rng(0)
    p, q = random.normal(scale=4, size=(2, 50, 700)).astype(np.float32)
    wanted = entropy(np.exp(p.astype(float)), np.exp(q.astype(float)), axis=1)
    found = divergence(torch.from_numpy(p), torch.from_numpy(q)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    same = divergence(torch.from_numpy(p), torch.from_numpy(p)).numpy()
    assert (same == 0).all()


def test_equal_logits_are_taken_by_the_lower_id() -> None:
    row = torch.zeros(2, 40)
    row[0, [30, 5]] = 1.0
    row[1, [39, 38, 37]] = torch.tensor([3.0, 2.0, 1.0])
    assert top_tokens(row, 10).tolist() == [
        [5, 30, 0, 1, 2, 3, 4, 6, 7, 8],
        [39, 38, 37, 0, 1, 2, 3, 4, 5, 6],
    ]
