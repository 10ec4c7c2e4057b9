// For tests of writers: an answer with all that an answer may have, and its way through a writer.
#pragma once

#include <string>

#include "base/json.h"
#include "server/generation.h"

namespace qnext::server::testing {

// Reasoning "I think", content "Let me look.", the calls weather({"city": "Berlin"}) and
// weather({"city": "Rome"}), in both of the family's forms.
inline constexpr const char* full_answer =
    "I think\n</think>\n\nLet me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": "
    "{\"city\": \"Berlin\"}}\n</tool_call>\n<tool_call>\n<function=weather>\n<parameter=city>\n"
    "Rome\n</parameter>\n</function>\n</tool_call>";

inline json::Array weather_tools() {
  return json::parse(R"([{"type": "function", "function": {"name": "weather"}}])", "tools")
      .as_array();
}

inline AnswerNews last_news(const engine::Finish& finish) {
  AnswerNews news;
  news.finish = finish;
  return news;
}

// The body that becomes of `text` when it comes in pieces of `size` bytes.
inline std::string write_answer(ResponseWriter& writer, const std::string& text, size_t size,
                                const engine::Finish& finish, const Usage& usage = {}) {
  std::string out = writer.begin();
  for (size_t at = 0; at < text.size(); at += size) {
    AnswerNews news;
    news.text = text.substr(at, size);
    out += writer.news(0, news);
  }
  out += writer.news(0, last_news(finish));
  return out + writer.end(usage);
}

}  // namespace qnext::server::testing
