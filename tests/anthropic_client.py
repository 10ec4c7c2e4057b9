"""The official anthropic client drives `qnext serve`: python tests/anthropic_client.py PROGRAM.

Needs the package anthropic. Prints a line for each check and exits with 1 if one failed.
"""

import json
import sys

import anthropic

from serving import KEY, MODEL, raises, run, serving

TOOLS = [{"name": "weather", "description": "Tells the weather.", "input_schema": {
    "type": "object", "properties": {"city": {"enum": ["Verona", "Rome"]}},
    "required": ["city"], "additionalProperties": False}}]
GREEDY = {"temperature": 0}
GREETING = [{"role": "user", "content": "ROMEO:"}]


def check_messages(client):
    whole = client.messages.create(
        model=MODEL, max_tokens=20, extra_body=GREEDY, system="A play.", messages=GREETING)
    assert whole.role == "assistant" and whole.type == "message"
    assert whole.stop_reason == "max_tokens" and whole.usage.output_tokens == 20
    assert whole.content[0].type == "text" and whole.content[0].text
    blocks = client.messages.create(
        model=MODEL, max_tokens=20, extra_body=GREEDY,
        system=[{"type": "text", "text": "A play.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "ROMEO:"}]}])
    assert blocks.content[0].text == whole.content[0].text
    stopped = client.messages.create(
        model=MODEL, max_tokens=200, extra_body=GREEDY, messages=GREETING, stop_sequences=["e"])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "e"
    assert "e" not in stopped.content[0].text
    cut = whole.content[0].text[:10].rstrip()
    resumed = client.messages.create(
        model=MODEL, max_tokens=5, extra_body=GREEDY, system="A play.",
        messages=GREETING + [{"role": "assistant", "content": cut}])
    assert resumed.usage.input_tokens > whole.usage.input_tokens


def check_streams(client):
    arguments = dict(model=MODEL, max_tokens=30, extra_body=GREEDY, messages=GREETING)
    whole = client.messages.create(**arguments)
    with client.messages.stream(**arguments) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    total = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) == total
    types = [event.type for event in client.messages.create(stream=True, **arguments)]
    assert types[0] == "message_start" and types[-1] == "message_stop"
    assert types.count("content_block_start") == types.count("content_block_stop") == 1


def check_cache(client):
    long = [{"role": "user", "content": "But soft, what light through yonder window? " * 40}]
    arguments = dict(model=MODEL, max_tokens=5, extra_body=GREEDY, messages=long)
    first = client.messages.create(**arguments)
    again = client.messages.create(**arguments)
    assert again.usage.cache_read_input_tokens > again.usage.input_tokens
    counted = client.messages.count_tokens(model=MODEL, messages=long)
    assert counted.input_tokens == first.usage.input_tokens + first.usage.cache_read_input_tokens


# Calls that the model has to make, whole and streamed, and their results.
def check_forced_tools(client):
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        arguments = dict(model=MODEL, max_tokens=200, messages=GREETING, tools=TOOLS,
                         extra_body=GREEDY,
                         tool_choice={**choice, "disable_parallel_tool_use": True})
        answer = client.messages.create(**arguments)
        call = answer.content[-1]
        assert answer.stop_reason == "tool_use" and call.type == "tool_use", answer
        assert call.name == "weather" and call.input["city"] in ("Verona", "Rome")
        with client.messages.stream(**arguments) as stream:
            partial = "".join(event.partial_json for event in stream if event.type == "input_json")
            final = stream.get_final_message()
        assert json.loads(partial) == final.content[-1].input
        client.messages.create(model=MODEL, max_tokens=5, tools=TOOLS, messages=GREETING + [
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": "fair"}]}])


def check_output_format(client):
    schema = TOOLS[0]["input_schema"]
    answer = client.messages.create(
        model=MODEL, max_tokens=200, messages=GREETING, extra_body=GREEDY,
        output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(answer.content[0].text)["city"] in ("Verona", "Rome")


# What the model writes is no call; what a client makes of one is read back.
def check_tools(client):
    conversation = GREETING + [
        {"role": "assistant", "content": [
            {"type": "text", "text": "I shall look."},
            {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Verona"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": "fair"},
            {"type": "text", "text": "So?"}]}]
    answer = client.messages.create(
        model=MODEL, max_tokens=10, messages=conversation, tools=TOOLS,
        tool_choice={"type": "auto"})
    assert answer.usage.output_tokens == 10


def check_errors(client):
    def create(**fields):
        return lambda: client.messages.create(
            **{"model": MODEL, "max_tokens": 5, "messages": GREETING, **fields})

    error = raises(anthropic.BadRequestError, create(extra_body={"temperature": 7}))
    assert error.body["error"]["type"] == "invalid_request_error"
    assert "temperature" in error.body["error"]["message"]
    assert error.request_id
    raises(anthropic.BadRequestError, create(max_tokens=0))
    raises(anthropic.NotFoundError, create(model="claude"))
    image = [{"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}]
    error = raises(anthropic.BadRequestError,
                   create(messages=[{"role": "user", "content": image}]))
    assert "messages[0].content[0].type" in error.body["error"]["message"]
    raises(anthropic.BadRequestError,
           create(messages=[{"role": "user", "content": "word " * 9000}]))
    stranger = anthropic.Anthropic(base_url=client.base_url, api_key="wrong", max_retries=0)
    raises(anthropic.AuthenticationError, lambda: stranger.messages.create(
        model=MODEL, max_tokens=5, messages=GREETING))


with serving(sys.argv[1]) as url:
    run([check_messages, check_streams, check_cache, check_tools, check_forced_tools,
         check_output_format, check_errors],
        anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0))
