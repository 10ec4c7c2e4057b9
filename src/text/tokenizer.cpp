#include "text/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "base/error.h"
#include "text/byte_pair_encoder.h"
#include "text/normalize.h"
#include "text/tokenizer_definition.h"
#include "text/utf8.h"
#include "text/word_scanner.h"

namespace qnext {

namespace {

// Working memories handed to the calls in progress and kept warm between them: as many as there
// were calls at once.
class ScratchPool {
 public:
  using Scratch = BytePairEncoder::Scratch;

  std::unique_ptr<Scratch> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> scratch = std::move(idle_.back());
    idle_.pop_back();
    return scratch;
  }

  void give_back(std::unique_ptr<Scratch> scratch) {
    scratch->trim();
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

// What stands in the text where the token was found.
std::string content_in_text(const AddedToken& token, bool nfc) {
  std::string storage;
  return std::string(token.normalized && nfc ? unicode::nfc(token.content, storage)
                                             : token.content);
}

AddedTokenMatcher make_matcher(const TokenizerDefinition& definition, bool normalized) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> contents;
  for (const AddedToken& token : definition.added) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    contents.push_back(content_in_text(token, definition.nfc));
  }
  return AddedTokenMatcher(std::move(tokens), contents);
}

std::vector<std::string> all_token_bytes(const TokenizerDefinition& definition) {
  std::vector<std::string> bytes = definition.tokens;
  for (const AddedToken& token : definition.added)
    bytes[static_cast<size_t>(token.id)] = content_in_text(token, definition.nfc);
  return bytes;
}

}  // namespace

struct Tokenizer::State {
  explicit State(TokenizerDefinition&& definition)
      : encoder(definition.tokens, definition.merges, definition.ignore_merges),
        raw_matcher(make_matcher(definition, false)),
        normalized_matcher(make_matcher(definition, true)),
        scanner(definition.scanner),
        nfc(definition.nfc),
        token_bytes(all_token_bytes(definition)),
        special(token_bytes.size()),
        added(std::move(definition.added)),
        bos(definition.bos),
        eos(definition.eos),
        pad(definition.pad) {
    for (const AddedToken& token : added) {
      special[static_cast<size_t>(token.id)] = token.special;
      added_ids.emplace(token.content, token.id);
    }
  }

  bool knows(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < token_bytes.size(); }

  BytePairEncoder encoder;
  AddedTokenMatcher raw_matcher;
  AddedTokenMatcher normalized_matcher;
  WordScanner scanner;
  bool nfc;
  std::vector<std::string> token_bytes;  // by id
  std::vector<bool> special;             // by id
  std::vector<AddedToken> added;
  std::unordered_map<std::string, int32_t> added_ids;
  std::optional<int32_t> bos, eos, pad;
  mutable ScratchPool scratch_pool;
};

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const std::string& path) {
  return from_definition(load_tokenizer_definition(path), path);
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view name,
                               std::string_view config_json) {
  return from_definition(read_tokenizer_definition(tokenizer_json, name, config_json), name);
}

Tokenizer Tokenizer::from_definition(TokenizerDefinition definition, std::string_view name) {
  try {
    return Tokenizer(std::make_unique<const State>(std::move(definition)));
  } catch (const Error& error) {
    fail("{}: {}", name, error.what());
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  if (const auto offset = utf8::first_invalid(text))
    fail("the text is not valid UTF-8 at byte {}", *offset);
  const State& state = *state_;
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  std::unique_ptr<BytePairEncoder::Scratch> scratch = state.scratch_pool.take();
  std::string storage;
  const auto on_token = [&](int32_t id) { ids.push_back(id); };
  const auto on_words = [&](std::string_view piece) {
    for (size_t begin = 0; begin < piece.size();) {
      const size_t end = state.scanner.word_end(piece, begin);
      state.encoder.encode(piece.substr(begin, end - begin), *scratch, ids);
      begin = end;
    }
  };
  const auto on_text = [&](std::string_view piece) {
    if (state.nfc) piece = unicode::nfc(piece, storage);
    state.normalized_matcher.split(piece, parse_special, on_words, on_token);
  };
  state.raw_matcher.split(text, parse_special, on_text, on_token);
  state.scratch_pool.give_back(std::move(scratch));
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids)
    if (!(skip_special && is_special(id))) bytes += token_bytes(id);
  if (!utf8::first_invalid(bytes)) return bytes;
  std::string text;
  utf8::StreamDecoder decoder;
  decoder.push(bytes, text);
  decoder.finish(text);
  return text;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (!state_->knows(id)) return {};
  return state_->token_bytes[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  const auto added = state_->added_ids.find(std::string(content));
  if (added != state_->added_ids.end()) return added->second;
  return state_->encoder.find(content);
}

bool Tokenizer::is_special(int32_t id) const {
  return state_->knows(id) && state_->special[static_cast<size_t>(id)];
}

int32_t Tokenizer::vocabulary_size() const {
  return static_cast<int32_t>(state_->token_bytes.size());
}

const std::vector<AddedToken>& Tokenizer::added_tokens() const {
  return state_->added;
}
std::optional<int32_t> Tokenizer::bos_token_id() const {
  return state_->bos;
}
std::optional<int32_t> Tokenizer::eos_token_id() const {
  return state_->eos;
}
std::optional<int32_t> Tokenizer::pad_token_id() const {
  return state_->pad;
}

}  // namespace qnext
