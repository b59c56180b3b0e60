"""Which shares a user names, and when those of the answers are called uneven."""

from __future__ import annotations

import numpy as np
import pytest

from byname.errors import RecipeError
from byname.refine.shares import effective, named_shares, uneven
from byname.taxonomy import Taxonomy


@pytest.mark.parametrize(("used", "told"), [(1, True), (6, True), (7, False), (10, False)])
def test_two_thirds_of_the_names_must_seem_to_be_there(used: int, told: bool) -> None:
    S = np.eye(10)[np.arange(420) % used]
    wanted = f"the answers are as mixed as {used:.1f} of the 10 classes: some have too few images"
    assert uneven(S) == (wanted if told else None)


def test_how_mixed_shares_are() -> None:
    assert effective(np.full(4, 0.25)) == pytest.approx(4)
    assert effective(np.array([1.0, 0, 0])) == 1
    assert 1 < effective(np.array([0.9, 0.1])) < 2


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("cat:0.5;cat:0.4", "the share of 'cat' is given twice. Give it once."),
        ("cat:0.5;dog:0.4", "the shares add up to 0.9. Give 'id:share;id:share', shares"),
        ("cat:0.5;dog:0.49", "the shares add up to 0.99"),
        ("caat:0.5", "'caat:0.5' names no class of this list. Did you mean 'cat'?"),
        ("x:1", "'x:1' names no class of this list. Give 'id:share;id:share' with ids of the cl"),
    ],
)
def test_shares_that_do_not_fit(text: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        named_shares("prior", text, Taxonomy.from_names(["cat", "dog"]))
    assert str(error.value).startswith(f"cannot use 'prior': {seen}")


def test_an_unknown_id_shows_some_of_a_long_list() -> None:
    taxonomy = Taxonomy.from_names([f"name {k}" for k in range(30)])
    with pytest.raises(RecipeError, match=r"classes: name-0, .*name-9, and 20 more\."):
        named_shares("dpa", "q:1", taxonomy)


def test_rounded_shares_are_scaled_to_one() -> None:
    taxonomy = Taxonomy.from_names(["cat", "dog", "cow"])
    found = named_shares("prior", "cat:0.3333; dog:0.3333; cow:0.3333", taxonomy)
    np.testing.assert_allclose(found, 1 / 3)
