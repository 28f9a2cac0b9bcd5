"""The floors of the first slice on held-out measurements: 80/20 splits, three seeds, all from real data."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesmat import data, forward

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources() -> list[forward.Fitted]:
    return [
        forward.fit(data.load(name), key=jax.random.key(0), progress=False)
        for name in ("boiling_point", "melting_point")
    ]


@pytest.mark.parametrize(
    ("name", "largest_rmse"), [("boiling_point", 35.0), ("melting_point", 60.0), ("thermal_conductivity", None)]
)
def test_held_out_error_and_coverage(name, largest_rmse, sources) -> None:
    table, errors, inside = data.load(name), [], []
    for seed in range(3):
        train, test = data.random_split(len(table), seed)
        transfer = sources if name == "thermal_conductivity" else []
        fitted = forward.fit(
            table.subset(train), key=jax.random.key(seed), sources=transfer, cache=False, progress=False
        )
        found = fitted.evaluate(table.subset(test))
        errors.append(found.rmse)
        inside.append((found.observed >= found.lower90) & (found.observed <= found.upper90))
    share, n = np.concatenate(inside).mean(), sum(map(len, inside))
    sampling = 2 * np.sqrt(0.9 * 0.1 / n)  # twice the standard error of a share of n
    assert 0.87 - sampling <= share <= 0.93 + sampling, share
    if largest_rmse is not None:
        assert max(errors) <= largest_rmse, errors
