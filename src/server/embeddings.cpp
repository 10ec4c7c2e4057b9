#include "server/embeddings.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "server/fields.h"
#include "server/prompts.h"

namespace qnext::server {
namespace {

static_assert(std::endian::native == std::endian::little, "base64 carries little-endian floats");

// As OpenAI's.
constexpr int64_t most_texts = 2048;

std::vector<float> unit_length(const std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * double{value};
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> scaled;
  for (const float value : values) scaled.push_back(static_cast<float>(value * scale));
  return scaled;
}

std::string base64(const std::vector<float>& values) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < count ? bytes[at + i] : 0u);
    for (size_t i = 0; i < 4; ++i) text += i <= count ? digits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

class EmbeddingsWriter : public ResponseWriter {
 public:
  EmbeddingsWriter(std::string model, bool as_base64, size_t texts)
      : model_(std::move(model)), as_base64_(as_base64), vectors_(texts) {}

  std::string news(size_t choice, const AnswerNews& news) override {
    if (news.finish) vectors_[choice] = unit_length(news.finish->embedding);
    return {};
  }

  // Written by hand: a list of a thousand vectors would be millions of values.
  std::string end(const Usage& usage) override {
    std::string out = R"({"object": "list", "data": [)";
    for (size_t i = 0; i < vectors_.size(); ++i) {
      out += fmt::format(R"({}{{"object": "embedding", "index": {}, "embedding": )",
                         i == 0 ? "" : ", ", i);
      if (as_base64_)
        out += fmt::format("\"{}\"", base64(vectors_[i]));
      else
        fmt::format_to(std::back_inserter(out), "[{}]", fmt::join(vectors_[i], ", "));
      out += "}";
    }
    const json::Object counts{{"prompt_tokens", usage.prompt_tokens},
                              {"total_tokens", usage.prompt_tokens}};
    return out + fmt::format(R"(], "model": {}, "usage": {}}})", json::write(model_),
                             json::write(counts));
  }

 private:
  std::string model_;
  bool as_base64_;
  std::vector<std::vector<float>> vectors_;
};

bool wants_base64(const Fields& fields) {
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    fields.refuse("encoding_format", fmt::format("is '{}', not float or base64", format));
  return format == "base64";
}

}  // namespace

std::unique_ptr<Generation> start_embeddings(const json::Value& body, const ServedModel& model,
                                             EngineThread& engine) {
  const Fields fields(body);
  const bool as_base64 = wants_base64(fields);
  const auto dimensions = fields.integer("dimensions", 1, std::numeric_limits<int64_t>::max());
  if (dimensions && *dimensions != engine.hidden_size())
    fields.refuse("dimensions", fmt::format("is {}, but this model's vectors have {} values and "
                                            "cannot be cut short",
                                            *dimensions, engine.hidden_size()));
  const std::string user = fields.text("user").value_or("");
  std::vector<engine::GenerationRequest> requests;
  for (TextPrompt& prompt : read_text_prompts(fields, "input", most_texts, *model.tokenizer)) {
    const int64_t context = engine.options().max_context;
    if (std::ssize(prompt.tokens) > context)
      throw ApiError(400,
                     fmt::format("input has a text of {} tokens, but the context is {}",
                                 prompt.tokens.size(), context),
                     "context_length_exceeded", "input");
    engine::GenerationRequest& request = requests.emplace_back();
    request.prompt = std::move(prompt.tokens);
    request.embed = true;
    request.user = user;
  }
  auto writer = std::make_unique<EmbeddingsWriter>(model.id, as_base64, requests.size());
  return std::make_unique<Generation>(
      engine.submit_in_turns(std::move(requests), {.keep_tokens = false, .whole = true}),
      std::move(writer), false, 1);
}

}  // namespace qnext::server
