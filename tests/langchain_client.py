"""LangChain's ChatOpenAI drives `qnext serve`: python tests/langchain_client.py PROGRAM.

Needs the package langchain-openai. Prints a line for each check and exits with 1 if one failed.
"""

import sys
from typing import Literal

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict

from serving import KEY, MODEL, raises, run, serving


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return "fair in " + city


GREETING = [SystemMessage("A play."), HumanMessage("ROMEO:")]
TOOL_TURN = GREETING + [
    AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Verona"}, "id": "1"}]),
    ToolMessage("fair in Verona", tool_call_id="1")]


def model(url, **fields):
    return ChatOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0,
                      **{"model": MODEL, "temperature": 0, "max_tokens": 20, **fields})


def check_invoke(url):
    answer = model(url).invoke(GREETING)
    assert answer.content and answer.usage_metadata["output_tokens"] == 20
    assert answer.response_metadata["finish_reason"] == "length"
    stopped = model(url).invoke(GREETING, stop=["e"])
    assert "e" not in stopped.content
    several = model(url, n=2, temperature=1, seed=1).generate([GREETING])
    assert len(several.generations[0]) == 2
    likely = model(url).bind(logprobs=True, top_logprobs=2).invoke(GREETING)
    assert len(likely.response_metadata["logprobs"]["content"]) == 20


def check_streams(url):
    whole = model(url).invoke(GREETING)
    pieces = list(model(url, stream_usage=True).stream(GREETING))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert total.content == whole.content and len(pieces) > 2
    assert total.usage_metadata["output_tokens"] == 20
    batch = model(url).batch([GREETING] * 4)
    assert [answer.content for answer in batch] == [whole.content] * 4


def check_tools(url):
    answer = model(url).bind_tools([weather]).invoke(TOOL_TURN)
    assert answer.usage_metadata["input_tokens"] > 0


class City(BaseModel):
    """A city."""
    # More properties would be by the schema, and this model might not come to an end of them.
    model_config = ConfigDict(extra="forbid")
    city: Literal["Verona", "Rome"]


def check_forms(url):
    for method in ("json_schema", "function_calling"):
        city = model(url, max_tokens=200).with_structured_output(City, method=method)
        assert city.invoke(GREETING).city in ("Verona", "Rome")
    forced = model(url, max_tokens=200).bind_tools([City], tool_choice="any").invoke(GREETING)
    assert forced.tool_calls[0]["name"] == "City"
    assert forced.tool_calls[0]["args"]["city"] in ("Verona", "Rome")


def check_responses(url):
    answer = model(url, use_responses_api=True).invoke(GREETING)
    assert answer.text == model(url).invoke(GREETING).content
    total = None
    for piece in model(url, use_responses_api=True).stream(GREETING):
        total = piece if total is None else total + piece
    assert total.text == answer.text
    model(url, use_responses_api=True).bind_tools([weather]).invoke(TOOL_TURN)


def check_embeddings(url):
    embeddings = OpenAIEmbeddings(model=MODEL, base_url=url + "/v1", api_key=KEY, max_retries=0,
                                  check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(["But soft", "what light"])
    assert len(vectors) == 2 and len(vectors[0]) == len(embeddings.embed_query("But soft")) == 128


def check_errors(url):
    raises(openai.BadRequestError, lambda: model(url, temperature=7).invoke(GREETING))
    raises(openai.AuthenticationError, lambda: ChatOpenAI(
        model=MODEL, base_url=url + "/v1", api_key="wrong", max_retries=0).invoke(GREETING))
    raises(openai.NotFoundError, lambda: model(url, model="gpt").invoke(GREETING))


with serving(sys.argv[1]) as url:
    run([check_invoke, check_streams, check_tools, check_forms, check_responses, check_embeddings,
         check_errors], url)
