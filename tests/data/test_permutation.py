"""The permutation against its written definition, its inverse, and chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pretrain_exp.data.permutation import MAX_N, Permutation

SIZES = [*range(1, 40), 63, 64, 65, 100, 1023, 1024, 1025, 4999]
WORD = (1 << 64) - 1
KNOWN_10 = [8, 6, 5, 4, 1, 7, 2, 9, 0, 3]
KNOWN_TERA = [936127633427, 222912876183, 846839616561]


def from_the_docstring(x: int, n: int, seed: int, epoch: int) -> int:
    """The four numbered paragraphs of the module's docstring, written down once more."""

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        return z ^ (z >> 31)

    def f(k: int, v: int) -> int:
        h = ((v ^ k) * 0xFF51AFD7ED558CCD) & WORD
        h = ((h ^ (h >> 32)) * 0xC4CEB9FE1A85EC53) & WORD
        return h >> 16

    gamma = 0x9E3779B97F4A7C15
    key = mix((mix((seed + gamma) & WORD) + (epoch + 1) * gamma) & WORD)
    rounds = 16 if n < 1024 else 8
    keys = [mix((key + (i + 1) * gamma) & WORD) for i in range(rounds)]
    a = math.isqrt(n - 1) + 1
    b = math.ceil(n / a) if n < 1 << 40 else -(-n // a)
    while True:
        left, right = x // b, x % b
        for i in range(0, rounds, 2):
            left = (left + f(keys[i], right)) % a
            right = (right + f(keys[i + 1], left)) % b
        x = left * b + right
        if x < n:
            return x


def test_known_values() -> None:
    """These numbers decide what a run reads: they must never change."""
    assert [Permutation(10, 0, 0)(x) for x in range(10)] == KNOWN_10
    assert [Permutation(10**12, 7, 3)(x) for x in range(3)] == KNOWN_TERA


@given(st.integers(1, 10**10), st.integers(0, WORD), st.integers(0, 1000), st.data())
def test_as_defined(n: int, seed: int, epoch: int, data: st.DataObject) -> None:
    x = data.draw(st.integers(0, n - 1))
    assert Permutation(n, seed, epoch)(x) == from_the_docstring(x, n, seed, epoch)


@pytest.mark.parametrize("n", SIZES)
def test_bijection_and_inverse_in_full(n: int) -> None:
    permutation, everything = Permutation(n, seed=5, epoch=2), np.arange(n)
    image = permutation.many(everything)
    assert sorted(image.tolist()) == everything.tolist()
    assert [permutation(x) for x in range(n)] == image.tolist()
    assert permutation.inverse_many(image).tolist() == everything.tolist()
    assert [permutation.inverse(y) for y in image.tolist()] == everything.tolist()


@given(st.integers(1, 10**10) | st.integers(10**10, MAX_N), st.integers(0, WORD), st.integers(0, WORD))
def test_inverse_at_any_size(n: int, seed: int, epoch: int) -> None:
    permutation = Permutation(n, seed, epoch)
    xs = np.unique(np.concatenate([np.random.default_rng(seed).integers(0, n, 50), [0, n - 1]]))
    ys = permutation.many(xs)
    assert len(np.unique(ys)) == len(xs)
    assert ys.min() >= 0
    assert ys.max() < n
    assert permutation.inverse_many(ys).tolist() == xs.tolist()
    assert [permutation(x) for x in xs[:3].tolist()] == ys[:3].tolist()
    assert [permutation.inverse(y) for y in ys[:3].tolist()] == xs[:3].tolist()


@pytest.mark.parametrize(("n", "draws"), [(3, 3000), (4, 6000), (5, 12000), (6, 20000)])
def test_all_orders_of_a_few_elements_are_equally_likely(n: int, draws: int) -> None:
    orders = []
    for epoch in range(draws):
        permutation = Permutation(n, 7, epoch)
        orders.append([permutation(x) for x in range(n)])
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == math.factorial(n)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("n", [30, 1024, 10**6, 10**10])
@pytest.mark.parametrize("vary", ["seed", "epoch"])
def test_where_neighbours_go_is_uniform_and_independent(n: int, vary: str) -> None:
    draws, cells = 4000, 8
    pairs = []
    for i in range(draws):
        seed, epoch = (i, 0) if vary == "seed" else (0, i)
        pairs.append(Permutation(n, seed, epoch).many(np.array([n // 2, n // 2 + 1])))
    table = (np.array(pairs) * cells) // n
    joint = np.zeros((cells, cells))
    np.add.at(joint, (table[:, 0], table[:, 1]), 1)
    sizes = np.diff([math.ceil(n * i / cells) for i in range(cells + 1)]).astype(
        float
    )  # two elements never share a place
    expected = draws * (np.outer(sizes, sizes) - np.diag(sizes)) / (n * (n - 1))
    assert stats.chisquare(joint.ravel(), expected.ravel()).pvalue > 1e-3


def test_one_epoch_is_spread_evenly_and_forgets_its_order() -> None:
    n = 100_003
    image = Permutation(n, 1, 0).many(np.arange(n))
    quarters = np.array([np.bincount(part * 16 // n, minlength=16) for part in np.array_split(image, 16)])
    # Without replacement the cells vary less than independent draws would: a variance of (1 - 1/16)^2 of the mean.
    statistic = ((quarters - n / 256) ** 2 / (n / 256)).sum()
    assert 1e-3 < stats.chi2.cdf(statistic, df=15 * 15) < 1 - 1e-3
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 4 / math.sqrt(n)
    assert np.mean(np.diff(image) == 1) < 10 / n


def test_seeds_and_epochs_share_nothing() -> None:
    n, orders = 5000, []
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]:
        orders.append(Permutation(n, seed, epoch).many(np.arange(n)))
    for i in range(len(orders)):
        for j in range(i):
            assert np.count_nonzero(orders[i] == orders[j]) <= 8  # Poisson with mean 1


@pytest.mark.parametrize("wrong", [(0, 0, 0), (MAX_N + 1, 0, 0), (5, -1, 0), (5, 1 << 64, 0), (5, 0, -1)])
def test_wrong_arguments(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError):
        Permutation(*wrong)


@pytest.mark.parametrize("values", [[-1], [5], [0, 7]])
def test_values_outside(values: list[int]) -> None:
    with pytest.raises(ValueError):
        Permutation(5, 0, 0).many(np.array(values))
