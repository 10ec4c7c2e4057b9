// Any bytes as a template over a fixed set of variables: it renders or throws Error, soon.
#include <cstdint>
#include <string>

#include "base/error.h"
#include "text/chat_template.h"

namespace {

const qnext::json::Object& variables() {
  static const qnext::json::Object object = qnext::json::parse(R"({
    "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hé <b>"},
                 {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f",
                  "arguments": {"x": 1, "y": [1.5, "a", null]}}}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "n": 7, "x": -2.5, "s": "Hello, world", "l": [3, 1, 2], "d": {"b": 1, "a": {"c": [true]}},
    "none": null, "t": true, "bos_token": "<s>", "add_generation_prompt": true})",
                                                               "variables")
                                                .as_object();
  return object;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const qnext::ChatTemplate chat(std::string(reinterpret_cast<const char*>(data), size));
    chat.render(variables(), 0);
  } catch (const qnext::Error&) {
  }
  return 0;
}
