// For tests: a tokenizer.json as the metadata of a GGUF file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/testing/gguf_writer.h"

namespace qnext::testing {

struct GgufTokenizer {
  std::string model = "gpt2";
  std::string split = "qwen2";
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;
  std::vector<std::string> merges;
  std::map<std::string, uint32_t> ids;  // "eos" to its token
  bool adds_bos = false;

  explicit GgufTokenizer(const json::Value& tokenizer_json) {
    const json::Value& bpe = *tokenizer_json.find("model");
    for (const auto& [text, id] : bpe.find("vocab")->as_object()) place(id, text, 1);
    for (const json::Value& token : tokenizer_json.find("added_tokens")->as_array())
      place(*token.find("id"), token.find("content")->as_string(),
            token.find("special")->as_bool() ? 3 : 4);
    for (const json::Value& merge : bpe.find("merges")->as_array())
      merges.push_back(merge.is_string() ? merge.as_string()
                                         : merge.as_array()[0].as_string() + " " +
                                               merge.as_array()[1].as_string());
  }

  void pad_to(size_t count) {
    while (tokens.size() < count) {
      tokens.push_back("[PAD" + std::to_string(tokens.size()) + "]");
      kinds.push_back(5);
    }
  }

  void add_to(GgufWriter& writer) const {
    writer.add("tokenizer.ggml.model", model);
    writer.add("tokenizer.ggml.pre", split);
    writer.add("tokenizer.ggml.tokens", tokens);
    writer.add("tokenizer.ggml.token_type", kinds);
    writer.add("tokenizer.ggml.merges", merges);
    for (const auto& [name, id] : ids) writer.add("tokenizer.ggml." + name + "_token_id", id);
    writer.add("tokenizer.ggml.add_bos_token", adds_bos);
  }

  GgufWriter writer() const {
    GgufWriter writer;
    add_to(writer);
    return writer;
  }

 private:
  void place(const json::Value& id, const std::string& text, int32_t kind) {
    const auto at = static_cast<size_t>(id.as_integer());
    if (at >= tokens.size()) {
      tokens.resize(at + 1);
      kinds.resize(at + 1);
    }
    tokens[at] = text;
    kinds[at] = kind;
  }
};

}  // namespace qnext::testing
