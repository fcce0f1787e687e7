"""LlamaIndex with its classes for servers that are like OpenAI's."""

import os

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

BASE, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]


class Weather(BaseModel):
    """A form."""

    city: str


def model() -> OpenAILike:
    return OpenAILike(
        model=os.environ["OPENAI_MODEL"],
        api_base=BASE,
        api_key=KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )


def test_chat_whole_and_streamed():
    messages = [ChatMessage(role="user", content="hello")]
    assert model().chat(messages).message.content
    assert "".join(piece.delta or "" for piece in model().stream_chat(messages))
    assert model().complete("hello").text


def test_tools():
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    tool = FunctionTool.from_defaults(weather)
    answer = model().chat_with_tools([tool], user_msg="hello", tool_required=True)
    (call,) = model().get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "answer"})


def test_structure():
    answer = model().as_structured_llm(Weather).complete("hello")
    assert answer.raw == Weather(city="answer")


def test_embeddings():
    made = OpenAILikeEmbedding(model_name="vectors", api_base=BASE, api_key=KEY, max_retries=0)
    assert len(made.get_text_embedding("a")) == 8
