"""Answers of a form from `qnext serve`, judged by the jsonschema package:
python tests/structured_output_client.py PROGRAM.

The bundled model knows nothing of JSON, so what comes is what the grammar alone holds it to. Needs
the packages openai and jsonschema. Prints a line for each check and exits with 1 if one failed.
"""

import json
import re
import subprocess
import sys

import jsonschema
import openai

MODEL = "tiny-shakespeare"
MESSAGES = [{"role": "user", "content": "ROMEO:"}]

SCHEMAS = [
    {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": "string", "format": "email"}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "array", "items": {"type": "integer", "exclusiveMinimum": -5, "maximum": 1000, "multipleOf": 3},
     "minItems": 2, "maxItems": 5},
    {"type": "array", "prefixItems": [{"type": "string", "pattern": "^[a-z]{2}-[0-9]+$", "maxLength": 9},
                                      {"type": "boolean"}], "items": False, "minItems": 2},
    {"anyOf": [{"type": "number", "minimum": -1.5, "maximum": 2.25}, {"enum": ["a", None, [1, {"b": 2}]]}]},
    {"type": "object", "properties": {"when": {"type": "string", "format": "date-time"},
                                      "day": {"type": "string", "format": "date"},
                                      "id": {"type": "string", "format": "uuid"},
                                      "host": {"type": "string", "format": "ipv4"}},
     "required": ["when", "day", "id", "host"], "additionalProperties": False},
    {"$defs": {"tree": {"type": "object", "properties": {
        "value": {"type": "integer", "minimum": 0, "maximum": 9},
        "left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}},
        "required": ["value", "left"], "additionalProperties": False},
        "leaf": {"type": "object", "properties": {"value": {"const": 1}}, "required": ["value"],
                 "additionalProperties": False}},
     "$ref": "#/$defs/tree"},
    {"type": "object", "allOf": [
        {"properties": {"a": {"type": "integer", "maximum": 99}}, "required": ["a"]},
        {"properties": {"a": {"minimum": 42}, "b": {"type": "boolean"}}, "required": ["b"]}],
     "maxProperties": 2},
    {"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "integer", "minimum": 1, "maximum": 9}},
         "required": ["kind", "r"], "additionalProperties": False},
        {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"enum": [1, 2]}},
         "required": ["kind", "side"], "additionalProperties": False}]},
    {"type": "object", "patternProperties": {"^n_[a-z]{1,3}$": {"type": "integer", "minimum": 0, "maximum": 9}},
     "additionalProperties": False, "minProperties": 1, "maxProperties": 3},
    {"type": "string", "enum": ["</tool_call>", "quote \" and \\", "\u00e9\U0001F600"]},
]

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "maxLength": 8},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "stop"}},
]


def ask(client, **fields):
    fields = {"messages": MESSAGES, "temperature": 1, "max_tokens": 1500, **fields}
    return client.chat.completions.create(model=MODEL, **fields)


def check_schemas(client):
    finished = 0
    for schema in SCHEMAS:
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        for seed in range(4):
            choice = ask(client, response_format=form, seed=seed).choices[0]
            if choice.finish_reason == "length":
                continue
            assert choice.finish_reason == "stop", choice
            value = json.loads(choice.message.content)
            jsonschema.validate(value, schema, jsonschema.Draft202012Validator,
                                format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
            finished += 1
    assert finished > 3 * len(SCHEMAS), finished


def check_objects(client):
    for seed in range(5):
        choice = ask(client, response_format={"type": "json_object"}, seed=seed, max_tokens=400).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.message.content.startswith("{")


def judge_calls(calls, at_least=1):
    assert len(calls) >= at_least
    for call in calls:
        tool = next(tool["function"] for tool in TOOLS if tool["function"]["name"] == call.function.name)
        jsonschema.validate(json.loads(call.function.arguments), tool.get("parameters", {"maxProperties": 0}))


def check_tools(client):
    for seed in range(6):
        choice = ask(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, seed=seed).choices[0]
        assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1
        judge_calls(choice.message.tool_calls)
        named = {"type": "function", "function": {"name": "weather"}}
        choice = ask(client, tools=TOOLS, tool_choice=named, seed=seed).choices[0]
        assert [call.function.name for call in choice.message.tool_calls] == ["weather"]
        judge_calls(choice.message.tool_calls)
    # The same streamed, piece by piece.
    name, arguments = "", ""
    for chunk in ask(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, seed=3, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name in ("weather", "stop") and isinstance(json.loads(arguments), dict)


def check_auto(client):
    # Until a call begins nothing is held back: the text is what it would be without tools, which the
    # bundled model's template does not show it. (What follows "<tool_call>" is the unit tests' affair:
    # this model never writes it.)
    for seed in range(4):
        auto = ask(client, tools=TOOLS, tool_choice="auto", seed=seed, max_tokens=60).choices[0]
        none = ask(client, tools=TOOLS, tool_choice="none", seed=seed, max_tokens=60).choices[0]
        assert auto.message.content == none.message.content


def check_guided(client):
    assert ask(client, extra_body={"guided_choice": ["yes", "no"]}).choices[0].message.content in ("yes", "no")
    text = ask(client, extra_body={"guided_regex": "[A-Z]{3}[0-9]{2}"}).choices[0].message.content
    assert re.fullmatch("[A-Z]{3}[0-9]{2}", text), text
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}
    for name in ("guided_json", "json_schema"):
        jsonschema.validate(json.loads(ask(client, extra_body={name: schema}).choices[0].message.content), schema)
    done = client.completions.create(model=MODEL, prompt="ROMEO:", max_tokens=200,
                                     extra_body={"guided_json": schema})
    jsonschema.validate(json.loads(done.choices[0].text), schema)


def check_refusals(client):
    def refused(param, **fields):
        try:
            ask(client, **fields)
        except openai.BadRequestError as error:
            assert error.param == param, error
            return str(error)
        raise AssertionError("accepted")

    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"a": {"not": {}}}}}}
    assert "#/properties/a: not" in refused("response_format.json_schema.schema", response_format=form)
    refused("tool_choice", tool_choice="required")
    refused("tool_choice.function.name", tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "other"}})
    tool = {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"not": {}}}}}}
    refused("tools", tools=[tool], tool_choice="required")
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, max_tokens=5, tools=[tool])
    assert "not enforced: tools[0]" in raw.headers["x-qnext-note"]
    tool["function"]["strict"] = True
    refused("tools", tools=[tool])


def main():
    server = subprocess.Popen(
        [sys.argv[1], "serve", "--port", "0", "--api-key", "key"], stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", server.stdout.readline()).group()
        client = openai.OpenAI(base_url=url + "/v1", api_key="key", max_retries=0)
        for check in (check_schemas, check_objects, check_tools, check_auto, check_guided, check_refusals):
            check(client)
            print(check.__name__, "holds")
    finally:
        server.terminate()
        status = server.wait(60)
    assert status == 0, f"the server ended with {status}"


main()
