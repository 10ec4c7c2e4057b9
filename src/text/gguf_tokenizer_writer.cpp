#include <string>
#include <vector>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/gguf_tokenizer.h"

namespace qnext {

namespace {

std::string in_byte_level(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += to_byte_level(static_cast<unsigned char>(byte));
  return out;
}

}  // namespace

void write_gguf_tokenizer(const TokenizerDefinition& definition, int64_t vocabulary,
                          std::optional<int32_t> eos, GgufPairs& metadata) {
  const auto count = static_cast<size_t>(vocabulary);
  QNEXT_CHECK(definition.tokens.size() <= count, "{} tokens for {} rows", definition.tokens.size(),
              vocabulary);
  std::vector<std::string> texts(count);
  std::vector<int32_t> kinds(count, static_cast<int32_t>(GgufTokenKind::unused));
  for (size_t id = 0; id < definition.tokens.size(); ++id) {
    if (definition.tokens[id].empty()) continue;
    texts[id] = in_byte_level(definition.tokens[id]);
    kinds[id] = static_cast<int32_t>(GgufTokenKind::normal);
  }
  for (const AddedToken& token : definition.added) {
    const auto id = static_cast<size_t>(token.id);
    QNEXT_CHECK(id < count, "token {} of {}", id, count);
    texts[id] = token.content;
    kinds[id] =
        static_cast<int32_t>(token.special ? GgufTokenKind::control : GgufTokenKind::user_defined);
  }
  for (size_t id = 0; id < count; ++id)
    if (texts[id].empty()) texts[id] = fmt::format("[PAD{}]", id);
  std::vector<std::string> merges;
  merges.reserve(definition.merges.size());
  for (const BytePairEncoder::Merge& merge : definition.merges)
    merges.push_back(texts[static_cast<size_t>(merge.left)] + " " +
                     texts[static_cast<size_t>(merge.right)]);

  metadata.add("tokenizer.ggml.model", "gpt2");
  metadata.add("tokenizer.ggml.pre", definition.scanner.marks_are_letters() ? "qwen35" : "qwen2");
  metadata.add("tokenizer.ggml.tokens", texts);
  metadata.add("tokenizer.ggml.token_type", kinds);
  metadata.add("tokenizer.ggml.merges", merges);
  const auto add_id = [&](const char* name, std::optional<int32_t> id) {
    if (id)
      metadata.add(fmt::format("tokenizer.ggml.{}_token_id", name), static_cast<uint32_t>(*id));
  };
  add_id("eos", definition.eos ? definition.eos : eos);
  add_id("bos", definition.bos);
  add_id("padding", definition.pad);
  metadata.add("tokenizer.ggml.add_bos_token", false);
}

void write_gguf_chat_template(const ModelChatTemplate& chat_template, GgufPairs& metadata) {
  metadata.add("tokenizer.chat_template", chat_template.standard().source());
  if (!chat_template.with_tools()) return;
  metadata.add("tokenizer.chat_templates", std::vector<std::string>{"tool_use"});
  metadata.add("tokenizer.chat_template.tool_use", chat_template.with_tools()->source());
}

}  // namespace qnext
