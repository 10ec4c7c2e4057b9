"""The official openai client drives `qnext serve`: python tests/openai_client.py PROGRAM.

Needs the package openai. Prints a line for each check and exits with 1 if one failed.
"""

import json
import os
import re
import subprocess
import sys

import openai

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = "tiny-shakespeare"
EXPECTED = json.load(open(os.path.join(ROOT, "models", MODEL, "expected.json")))
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}]


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


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
        response_format={"type": "json_object"}))
    assert refused.param == "response_format"
    stranger = openai.OpenAI(base_url=client.base_url, api_key="wrong")
    raises(openai.AuthenticationError, lambda: list(stranger.models.list()))


def main():
    server = subprocess.Popen(
        [sys.argv[1], "serve", "--port", "0", "--api-key", "key"], stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", server.stdout.readline()).group()
        client = openai.OpenAI(base_url=url + "/v1", api_key="key", max_retries=0)
        for check in (check_models, check_completions, check_chat, check_errors):
            check(client)
            print(check.__name__, "holds")
    finally:
        server.terminate()
        status = server.wait(60)
    assert status == 0, f"the server ended with {status}"


main()
