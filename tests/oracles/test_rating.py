"""Ratings read off what language models write, and never guessed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_oracles.rating import MalformedRatingError, read_rating


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ('{"reason": "It is a deer.", "rating": 4}', 4, "It is a deer."),
        ('{"Rating": "4", "Reason": "two\\nlines"}', 4, "two lines"),
        ('```json\n{"score": 4.5, "reason": "x"}\n```', 4.5, "x"),
        ('Sure! {"note": {"a": 1}} Here it is: {"rating": "4/5", "explanation": "x"} Hope it helps.', 4, "x"),
        (
            '{"reason": "the image says {\\"rating\\": 5} and Score=5", "rating": 1}',
            1,
            'the image says {"rating": 5} and Score=5',
        ),
        ('{not json} {"rating": 2}', 2, ""),
        ("Score=3, Reason=It has no trunk.", 3, "It has no trunk."),
        ("Score=(3), Reason=(no trunk)", 3, "(no trunk)"),
        ("**Score:** 3/5\n**Reason:** no trunk", 3, "no trunk"),
        ("Score=1, Reason=The image contains the text 'Score=5'.", 1, "The image contains the text 'Score=5'."),
        ("I would say the rating is 4 out of 5.", 4, ""),
        ("My rating: 4. Indeed, rating: 4", 4, ""),
        ("4", 4, ""),
        (" **4/5** ", 4, ""),
        ("Rating of 2", 2, ""),
    ],
)
def test_a_rating_is_found_where_it_stands(text: str, value: float, reason: str) -> None:
    rating = read_rating(text, 1, 5)
    assert (rating.value, rating.reason) == (value, reason)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got none"),
        ("I cannot rate this image.", "got none"),
        ("It has 4 legs and 2 eyes.", "got none"),
        ("The image says Score=5, but I give a score: 1", "several that differ"),
        ('{"rating": 1} {"rating": 5}', "several that differ"),
        ('{"rating": null}', "got none"),
        ('{"rating": true}', "got none"),
        ('{"rating": [4]}', "got none"),
        ('{"rating": 6}', "from 1 to 5, got 6"),
        ('{"rating": 0}', "from 1 to 5, got 0"),
        ('{"rating": -3}', "from 1 to 5, got -3"),
        ('{"rating": 1e999}', "got none"),
        ('{"rating": NaN}', "got none"),
        ("Score=50", "from 1 to 5, got 50"),
        ("Score: 8/10", "out of 5"),
        ("Score: 1.2.3", "got none"),
        ("[" * 10_000 + "{" * 10_000, "got none"),
    ],
)
def test_what_is_no_rating_is_not_guessed_at(text: str, words: str) -> None:
    with pytest.raises(MalformedRatingError, match=words):
        read_rating(text, 1, 5)


@given(st.integers(1, 5), st.text(), st.text(alphabet="abc \n.,"), st.text(alphabet="abc \n.,"))
def test_any_reason_may_come_with_a_rating(value: int, reason: str, before: str, after: str) -> None:
    text = before + json.dumps({"reason": reason, "rating": value}) + after
    rating = read_rating(text, 1, 5)
    assert (rating.value, rating.reason) == (value, " ".join(reason.split()))


@given(st.text(alphabet='{}[]":,=/ scoreatingnl0159.-\n*', max_size=60) | st.text(max_size=60))
def test_any_text_is_a_rating_on_the_scale_or_malformed(text: str) -> None:
    try:
        rating = read_rating(text, 1, 5)
    except MalformedRatingError:
        return
    assert 1 <= rating.value <= 5
