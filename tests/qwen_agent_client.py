"""qwen-agent drives `qnext serve`: python tests/qwen_agent_client.py PROGRAM.

Needs the package qwen-agent. Prints a line for each check and exits with 1 if one failed.
"""

import sys

from qwen_agent.agents import Assistant
from qwen_agent.llm import get_chat_model
from qwen_agent.llm.base import ModelServiceError
from qwen_agent.tools.base import BaseTool, register_tool

from serving import KEY, MODEL, raises, run, serving

GREETING = [{"role": "system", "content": "A play."}, {"role": "user", "content": "ROMEO:"}]
FUNCTIONS = [{"name": "weather", "description": "Tells the weather.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]


@register_tool("weather")
class Weather(BaseTool):
    description = "Tells the weather."
    parameters = FUNCTIONS[0]["parameters"]

    def call(self, params, **kwargs):
        return "fair in " + self._verify_json_format_args(params)["city"]


def model(url, **settings):
    return get_chat_model({
        "model": MODEL, "model_type": "oai", "model_server": url + "/v1", "api_key": KEY,
        "generate_cfg": {"temperature": 0, "max_tokens": 20, "max_retries": 0, **settings}})


def check_chat(url):
    whole = model(url).chat(GREETING, stream=False)
    assert whole[-1]["role"] == "assistant" and whole[-1]["content"]
    for streamed in model(url).chat(GREETING, stream=True, delta_stream=False):
        pass
    assert streamed[-1]["content"] == whole[-1]["content"]


# The results of calls go back as messages of the tool, in the API's own form or in the prompt's.
def check_functions(url):
    turn = GREETING + [
        {"role": "assistant", "content": "",
         "function_call": {"name": "weather", "arguments": '{"city": "Verona"}'},
         "extra": {"function_id": "1"}},
        {"role": "function", "name": "weather", "content": "fair", "extra": {"function_id": "1"}}]
    for raw in (True, False):
        for answer in model(url, use_raw_api=raw).chat(turn, functions=FUNCTIONS, stream=True):
            pass
        assert answer[-1]["role"] == "assistant"


# An agent that may call a tool, and stops when it has an answer.
def check_agent(url):
    agent = Assistant(llm=model(url), function_list=[Weather()], system_message="A play.")
    for answer in agent.run([{"role": "user", "content": "ROMEO:"}]):
        pass
    assert answer[-1]["role"] == "assistant" and answer[-1]["content"]


# An agent whose model must call a tool, until the tool lets it answer: the calls are by the tool's
# schema, their results go back, and the last turn is text.
def check_tool_loop(url):
    cities = ["Verona", "Mantua"]
    heard = []

    @register_tool("forecast", allow_overwrite=True)
    class Forecast(BaseTool):
        description = "Tells what the weather will be."
        parameters = {"type": "object", "properties": {
            "city": {"type": "string", "enum": cities},
            "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city", "days"]}

        # The package's own judge of schemas does not know the word.
        @property
        def function(self):
            return {**super().function,
                    "parameters": {**self.parameters, "additionalProperties": False}}

        def call(self, params, **kwargs):
            heard.append(self._verify_json_format_args(params))
            if len(heard) == 3:
                agent.llm.generate_cfg["tool_choice"] = "none"
            return "fair"

    choice = {"type": "function", "function": {"name": "forecast"}}
    agent = Assistant(llm=model(url, use_raw_api=True, tool_choice=choice, max_tokens=200),
                      function_list=[Forecast()], system_message="A play.")
    for answer in agent.run([{"role": "user", "content": "ROMEO:"}]):
        pass
    assert len(heard) == 3
    for call in heard:
        assert set(call) == {"city", "days"} and call["city"] in cities and 1 <= call["days"] <= 9
    roles = [message["role"] for message in answer]
    assert roles == ["assistant", "function"] * 3 + ["assistant"], roles
    assert answer[-1]["content"] and not answer[-1].get("function_call")


def check_errors(url):
    raises(ModelServiceError, lambda: model(url, temperature=7).chat(GREETING, stream=False))
    raises(ModelServiceError, lambda: list(model(url, temperature=7).chat(GREETING, stream=True)))


with serving(sys.argv[1]) as url:
    run([check_chat, check_functions, check_agent, check_tool_loop, check_errors], url)
