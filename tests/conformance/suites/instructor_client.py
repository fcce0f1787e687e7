"""instructor: structured answers in each of its usual ways."""

import os

import instructor
import openai
import pytest
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "hello"}]


class Weather(BaseModel):
    """A form."""

    city: str
    degrees: int


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_a_form(mode):
    client = instructor.from_openai(openai.OpenAI(max_retries=0), mode=getattr(instructor.Mode, mode))
    made = client.chat.completions.create(
        model=os.environ["OPENAI_MODEL"], messages=HELLO, response_model=Weather, max_retries=0
    )
    assert (made.city, made.degrees) == ("answer", 3)


def test_a_form_that_grows():
    client = instructor.from_openai(openai.OpenAI(max_retries=0))
    grown = list(
        client.chat.completions.create_partial(model=os.environ["OPENAI_MODEL"], messages=HELLO, response_model=Weather)
    )
    assert (grown[-1].city, grown[-1].degrees) == ("answer", 3)
