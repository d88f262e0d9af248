"""How far maps spread, against SciPy and by hand."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from lib.evaluation.planned import spread_by_run
from lib.models.spread import effective_positions, peak


def test_an_even_map_spreads_over_all_positions_and_a_peak_over_one():
    maps = np.zeros((3, 2, 5))
    maps[0], maps[1, 1, 2], maps[2, 0, :4] = 0.3, 7, 2
    np.testing.assert_allclose(effective_positions(maps), [10, 1, 4])
    np.testing.assert_allclose(peak(maps), [1, 10, 2.5])


@given(arrays("float64", (4, 3, 3), elements=st.floats(1e-3, 1e3)), st.floats(0.01, 100))
def test_it_is_the_exponential_of_the_entropy_whatever_the_scale(maps, scale):
    expected = [np.exp(entropy(one.ravel())) for one in maps]
    np.testing.assert_allclose(effective_positions(maps), expected, rtol=1e-9)
    np.testing.assert_allclose(effective_positions(scale * maps), expected, rtol=1e-9)
    assert (peak(maps) >= 1).all()


def test_runs_are_means_over_their_images():
    rows = [("d", "attention", seed, f"i{i}", state, 49, 10 * seed + i, 2.0) for seed in (1, 2)
            for state in (False, True) for i in range(3)]  # fmt: skip
    columns = ["dataset", "variant", "seed", "image_id", "attacked", "positions", "effective", "peak"]
    table = spread_by_run(pd.DataFrame(rows, columns=columns))
    assert table["effective"].tolist() == [11, 11, 21, 21]
    assert table["n"].tolist() == [3] * 4
    assert spread_by_run(pd.DataFrame(columns=columns)).empty
