from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from byname import ops
from byname.score.cosine import Cosine
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Taxonomy
from tests.reference import stages_reference as ref

TAXONOMY = Taxonomy.from_names(["a", "b", "c"])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 120), st.floats(-20, 20))
def test_agrees_with_the_reference(seed: int, scale: float, bias: float) -> None:
    rng = np.random.default_rng(seed)
    X, W = (ops.unit(rng.standard_normal((n, 8))) for n in (5, 3))
    texts = ClassTexts(W, np.arange(3), TAXONOMY, scale=scale, bias=bias)
    expected = ref.cosine(X, W, scale, bias)
    found = Cosine().apply(Batch(X), texts, State(W=W))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    found = Cosine().apply(Batch(X.astype(np.float32)), texts, State(W=W))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert found.dtype == np.float32


def test_rows_of_W_need_not_have_length_one() -> None:
    texts = ClassTexts(np.eye(3), np.arange(3), TAXONOMY, scale=10)
    found = Cosine().apply(Batch(np.eye(3)[:1]), texts, State(W=np.diag([0.5, 2, 0])))
    assert found.tolist() == [[5, 0, 0]]
