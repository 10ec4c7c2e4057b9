#include "server/prompts.h"

namespace qnext::server {
namespace {

constexpr const char* kinds = "must be a string, a list of token ids, or a list of either";

class Reader {
 public:
  Reader(const std::string& path, const Tokenizer& tokenizer)
      : path_(path), tokenizer_(tokenizer) {}

  TextPrompt read(const std::string& text) const {
    TextPrompt prompt{text, tokenizer_.encode(text)};
    if (prompt.tokens.empty()) refuse_field(path_, "is empty: give some text");
    return prompt;
  }
  TextPrompt read(const json::Array& ids) const {
    TextPrompt prompt;
    prompt.tokens = read_token_ids(ids, tokenizer_.vocabulary_size(), path_);
    if (prompt.tokens.empty()) refuse_field(path_, "is empty: give at least one token");
    prompt.text = tokenizer_.decode(prompt.tokens);
    return prompt;
  }

 private:
  const std::string& path_;
  const Tokenizer& tokenizer_;
};

}  // namespace

std::vector<TextPrompt> read_text_prompts(const Fields& fields, const char* name, int64_t most,
                                          const Tokenizer& tokenizer) {
  const json::Value& value = fields.required(name);
  const std::string path = fields.path(name);
  const Reader reader(path, tokenizer);
  if (value.is_string()) return {reader.read(value.as_string())};
  if (!value.is_array()) refuse_field(path, kinds);
  const json::Array& list = value.as_array();
  if (list.empty() || list.front().is_integer()) return {reader.read(list)};
  if (std::ssize(list) > most) refuse_field(path, fmt::format("holds more than {} texts", most));
  std::vector<TextPrompt> prompts;
  for (const json::Value& entry : list) {
    if (entry.is_string())
      prompts.push_back(reader.read(entry.as_string()));
    else if (entry.is_array())
      prompts.push_back(reader.read(entry.as_array()));
    else
      refuse_field(path, kinds);
  }
  return prompts;
}

}  // namespace qnext::server
