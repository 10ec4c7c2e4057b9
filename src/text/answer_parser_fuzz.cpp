// Any bytes as an answer: whole or byte by byte, the parts are the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "text/answer_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const qnext::ToolSchemas schemas(
      qnext::json::parse(R"([{"type": "function", "function": {"name": "f", "parameters":
        {"properties": {"s": {"type": "string"}, "n": {"type": "integer"}}}}}])",
                         "tools")
          .as_array());
  if (size == 0) return 0;
  const qnext::AnswerParserOptions options{.in_reasoning = (data[0] & 1) != 0, .tools = &schemas};
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  using Parts = std::vector<qnext::AnswerPart>;
  const auto append = [](Parts& all, const Parts& more) {
    for (const qnext::AnswerPart& part : more)
      qnext::append_part(all, part.kind, part.call, part.text);
  };
  qnext::AnswerParser whole(options);
  Parts at_once;
  append(at_once, whole.push(text));
  append(at_once, whole.finish());
  qnext::AnswerParser slow(options);
  Parts one_by_one;
  for (const char byte : text) append(one_by_one, slow.push(std::string_view(&byte, 1)));
  append(one_by_one, slow.finish());
  if (at_once != one_by_one) std::abort();
  return 0;
}
