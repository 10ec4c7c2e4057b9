"""The official openai client drives `qnext serve`: python tests/openai_client.py PROGRAM.

Needs the package openai. Prints a line for each check and exits with 1 if one failed.
"""

import json
import sys

import openai

from serving import EXPECTED, KEY, MODEL, raises, run, serving

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}]


def check_models(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "qnext"
    raises(openai.NotFoundError, lambda: client.models.retrieve("other"))


def check_completions(client):
    for reference in EXPECTED:
        prompt, text = reference["prompt"], reference["greedy_text"]
        whole = client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=64, temperature=0, echo=True)
        assert whole.choices[0].text == text, whole.choices[0].text
        assert whole.choices[0].finish_reason == "length"
        assert whole.usage.completion_tokens == 64
        stream = client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=64, temperature=0, stream=True,
            stream_options={"include_usage": True})
        chunks = list(stream)
        assert prompt + "".join(c.choices[0].text for c in chunks if c.choices) == text
        assert chunks[-1].usage.completion_tokens == 64
    scored = client.completions.create(model=MODEL, prompt="ROMEO:", max_tokens=5, logprobs=3)
    assert len(scored.choices[0].logprobs.tokens) == 5
    assert all(len(top) == 3 for top in scored.choices[0].logprobs.top_logprobs)


def check_chat(client):
    messages = [{"role": "system", "content": "A play."}, {"role": "user", "content": "ROMEO:"}]
    whole = client.chat.completions.create(
        model=MODEL, messages=messages, max_completion_tokens=20, temperature=0, logprobs=True,
        top_logprobs=2)
    text = whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant" and text
    assert len(whole.choices[0].logprobs.content) == 20
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, max_completion_tokens=20, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text
    several = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=10, n=3, seed=1, temperature=1)
    assert len({choice.message.content for choice in several.choices}) > 1
    with client.chat.completions.stream(
            model=MODEL, messages=messages, temperature=0, stop=["e"], tools=TOOLS) as events:
        final = events.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert "e" not in final.choices[0].message.content


def check_errors(client):
    def complete(**fields):
        return lambda: client.completions.create(model=MODEL, prompt="a", **fields)

    error = raises(openai.BadRequestError, complete(temperature=7))
    assert error.param == "temperature", error
    error = raises(openai.BadRequestError, complete(max_tokens=0))
    assert error.param == "max_tokens"
    raises(openai.NotFoundError, lambda: client.completions.create(model="gpt", prompt="a"))
    long = raises(openai.BadRequestError,
                  lambda: client.completions.create(model=MODEL, prompt="word " * 9000))
    assert long.code == "context_length_exceeded", long
    refused = raises(openai.BadRequestError, lambda: client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "a"}],
        response_format={"type": "json_schema", "json_schema": {
            "name": "a", "schema": {"not": {"type": "string"}}}}))
    assert refused.param == "response_format.json_schema.schema", refused
    stranger = openai.OpenAI(base_url=client.base_url, api_key="wrong")
    raises(openai.AuthenticationError, lambda: list(stranger.models.list()))


def check_responses(client):
    whole = client.responses.create(
        model=MODEL, input="ROMEO:", instructions="A play.", max_output_tokens=20, temperature=0)
    assert whole.status == "incomplete" and whole.incomplete_details.reason == "max_output_tokens"
    assert whole.output_text and whole.usage.output_tokens == 20
    items = client.responses.create(
        model=MODEL, max_output_tokens=20, temperature=0, store=False, input=[
            {"role": "developer", "content": "A play."},
            {"role": "user", "content": [{"type": "input_text", "text": "ROMEO:"}]}])
    assert items.output_text == whole.output_text
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    asked = list(client.responses.input_items.list(whole.id))
    assert len(asked) == 1 and asked[0].role == "user"
    turn = client.responses.create(
        model=MODEL, input="Again!", max_output_tokens=5, previous_response_id=whole.id)
    assert turn.previous_response_id == whole.id
    assert turn.usage.input_tokens > whole.usage.input_tokens
    client.responses.delete(whole.id)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(whole.id))
    raises(openai.NotFoundError, lambda: client.responses.retrieve(items.id))
    raises(openai.NotFoundError, lambda: client.responses.create(
        model=MODEL, input="a", previous_response_id=whole.id))
    refused = raises(openai.BadRequestError, lambda: client.responses.create(
        model=MODEL, input="a", tools=[{"type": "web_search"}]))
    assert refused.param == "tools[0].type"


def check_response_streams(client):
    arguments = dict(model=MODEL, input="ROMEO:", temperature=0, extra_body={"stop": ["e"]})
    whole = client.responses.create(**arguments)
    assert whole.status == "completed"
    with client.responses.stream(**arguments) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == whole.output_text
    events = list(client.responses.create(stream=True, **arguments))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    types = [event.type for event in events]
    kept = [t for i, t in enumerate(types) if i == 0 or t != types[i - 1]]
    assert kept == ["response.created", "response.in_progress", "response.output_item.added",
                    "response.content_part.added", "response.output_text.delta",
                    "response.output_text.done", "response.content_part.done",
                    "response.output_item.done", "response.completed"], kept


# A call and its result, as a client's tool loop sends them back.
def check_response_tools(client):
    tools = [{"type": "function", "name": "weather", "strict": False, "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}]
    answer = client.responses.create(
        model=MODEL, tools=tools, max_output_tokens=10, input=[
            {"role": "user", "content": "Is it fair?"},
            {"type": "reasoning", "id": "rs_1", "summary": [],
             "content": [{"type": "reasoning_text", "text": "Let me look."}]},
            {"type": "function_call", "call_id": "1", "name": "weather",
             "arguments": '{"city": "Verona"}'},
            {"type": "function_call_output", "call_id": "1", "output": "fair"}])
    assert answer.usage.output_tokens == 10
    assert answer.tools[0].name == "weather"


CITY = {"type": "object", "properties": {"city": {"enum": ["Verona", "Rome"]}},
        "required": ["city"], "additionalProperties": False}


# Calls that the model has to make, whole and streamed, and text of a form.
def check_response_forms(client):
    tools = [{"type": "function", "name": "weather", "strict": True, "parameters": CITY}]
    arguments = dict(model=MODEL, input="ROMEO:", max_output_tokens=200, temperature=0, tools=tools,
                     tool_choice="required", parallel_tool_calls=False)
    answer = client.responses.create(**arguments)
    call = answer.output[-1]
    assert call.type == "function_call" and call.status == "completed", answer
    assert json.loads(call.arguments)["city"] in ("Verona", "Rome")
    with client.responses.stream(**arguments) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.function_call_arguments.delta")
        final = stream.get_final_response()
    assert text == final.output[-1].arguments
    turn = client.responses.create(
        model=MODEL, previous_response_id=answer.id, max_output_tokens=5, input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": "fair"}])
    assert turn.usage.output_tokens == 5
    written = client.responses.create(
        model=MODEL, input="ROMEO:", max_output_tokens=200, temperature=0,
        text={"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}})
    assert json.loads(written.output_text)["city"] in ("Verona", "Rome")
    refused = raises(openai.BadRequestError, lambda: client.responses.create(
        model=MODEL, input="a", text={"format": {
            "type": "json_schema", "name": "a", "schema": {"not": {"type": "string"}}}}))
    assert refused.param == "text.format.schema", refused


def check_embeddings(client):
    texts = ["But soft, what light", "O Romeo, Romeo! wherefore art thou Romeo?"]
    # The client asks for base64 and turns it into numbers, unless told otherwise.
    several = client.embeddings.create(model=MODEL, input=texts)
    assert several.usage.prompt_tokens == several.usage.total_tokens > 0
    for index, text in enumerate(texts):
        alone = client.embeddings.create(model=MODEL, input=text, encoding_format="float")
        vector = alone.data[0].embedding
        assert len(vector) == 128 and abs(sum(x * x for x in vector) - 1) < 1e-6
        assert several.data[index].index == index
        assert max(abs(a - b) for a, b in zip(vector, several.data[index].embedding)) < 1e-6
    refused = raises(openai.BadRequestError, lambda: client.embeddings.create(
        model=MODEL, input="a", dimensions=64))
    assert refused.param == "dimensions"


with serving(sys.argv[1]) as url:
    run([check_models, check_completions, check_chat, check_errors, check_responses,
         check_response_streams, check_response_tools, check_response_forms,
         check_embeddings],
        openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0))
