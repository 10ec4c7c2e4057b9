#include "text/tokenizer_definition.h"

#include <charconv>
#include <filesystem>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/byte_level.h"

namespace qnext {

namespace {

using json::Value;

std::string in_quotes(std::string_view text) {
  std::string out;
  json::append_string(out, text);
  return out;
}

// Members of JSON objects, with errors that say where they stand ("model.vocab").
const Value* find_set(const Value& object, std::string_view key) {
  const Value* value = object.find(key);
  return value && !value->is_null() ? value : nullptr;
}

template <typename Read>
auto read_as(std::string_view place, Read&& read) {
  try {
    return read();
  } catch (const Error& error) {
    fail("{}: {}", place, error.what());
  }
}

const std::string& text_at(const Value& value, std::string_view place) {
  return *read_as(place, [&] { return &value.as_string(); });
}
const json::Array& array_at(const Value& value, std::string_view place) {
  return *read_as(place, [&] { return &value.as_array(); });
}
const json::Object& object_at(const Value& value, std::string_view place) {
  return *read_as(place, [&] { return &value.as_object(); });
}
const Value& required(const Value& object, std::string_view key, std::string_view place) {
  object_at(object, place);
  const Value* value = object.find(key);
  if (!value) fail("{}: \"{}\" is missing", place, key);
  return *value;
}
bool flag(const Value& object, std::string_view key, bool absent, std::string_view place) {
  const Value* value = find_set(object, key);
  return value ? read_as(fmt::format("{}.{}", place, key), [&] { return value->as_bool(); })
               : absent;
}
const std::string& type_of(const Value& object, std::string_view place) {
  return text_at(required(object, "type", place), fmt::format("{}.type", place));
}

int32_t id_at(const Value& value, std::string_view place) {
  if (!value.is_integer()) fail("{}: expected an id, found {}", place, value.kind_name());
  const int64_t id = value.as_integer();
  if (id < 0 || id > INT32_MAX) fail("{}: {} is out of range for an id", place, id);
  return static_cast<int32_t>(id);
}

bool reads_nfc(const Value* normalizer, std::string_view place) {
  if (!normalizer || normalizer->is_null()) return false;
  const std::string& type = type_of(*normalizer, place);
  if (type == "NFC") return true;
  if (type != "Sequence") fail("{} \"{}\" is not supported; only NFC is", place, type);
  bool nfc = false;
  for (const Value& item : array_at(required(*normalizer, "normalizers", place), place))
    nfc |= reads_nfc(&item, place);
  return nfc;
}

void check_byte_level(const Value& step) {
  const std::string_view place = "pre_tokenizer ByteLevel";
  if (flag(step, "add_prefix_space", true, place))
    fail("{} with add_prefix_space true is not supported", place);
  if (flag(step, "use_regex", true, place))
    fail("{} with use_regex true is not supported: its expression is not a Qwen one", place);
}

WordScanner read_split(const Value& step) {
  const std::string_view place = "pre_tokenizer Split";
  const std::string& behavior = text_at(required(step, "behavior", place), place);
  if (behavior != "Isolated" || flag(step, "invert", false, place))
    fail("{} with behavior \"{}\"{} is not supported; only Isolated is, not inverted", place,
         behavior, flag(step, "invert", false, place) ? ", inverted," : "");
  const Value& pattern = required(step, "pattern", place);
  const std::string& expression = text_at(required(pattern, "Regex", place), place);
  const std::optional<WordScanner> scanner = WordScanner::from_expression(expression);
  if (!scanner)
    fail("{}: the expression {} is not supported; only those of Qwen2/3 and Qwen3.5 are", place,
         in_quotes(expression));
  return *scanner;
}

WordScanner read_pre_tokenizer(const Value& root) {
  const Value& sequence = required(root, "pre_tokenizer", "the file");
  const std::string_view wanted = "only a Sequence of a Split and a ByteLevel is supported";
  if (sequence.is_null()) fail("pre_tokenizer is null; {}", wanted);
  const std::string& type = type_of(sequence, "pre_tokenizer");
  if (type != "Sequence") fail("pre_tokenizer is {}; {}", in_quotes(type), wanted);
  const json::Array& steps =
      array_at(required(sequence, "pretokenizers", "pre_tokenizer"), "pre_tokenizer.pretokenizers");
  if (steps.size() != 2 || type_of(steps[0], "pre_tokenizer") != "Split" ||
      type_of(steps[1], "pre_tokenizer") != "ByteLevel")
    fail("pre_tokenizer has other steps; {}", wanted);
  check_byte_level(steps[1]);
  return read_split(steps[0]);
}

// ByteLevel changes offsets only; a template is harmless where it adds no token.
void check_post_processor(const Value* processor) {
  if (!processor || processor->is_null()) return;
  const std::string_view place = "post_processor";
  const std::string& type = type_of(*processor, place);
  if (type == "ByteLevel") return;
  if (type == "Sequence") {
    for (const Value& item : array_at(required(*processor, "processors", place), place))
      check_post_processor(&item);
    return;
  }
  if (type != "TemplateProcessing") fail("{} {} is not supported", place, in_quotes(type));
  for (const Value& item : array_at(required(*processor, "single", place), place))
    if (!item.find("Sequence"))
      fail(
          "{} TemplateProcessing adds tokens to every text, which is not supported: remove it "
          "and write the tokens in the chat template",
          place);
}

void check_decoder(const Value* decoder) {
  if (!decoder || decoder->is_null()) fail("decoder is missing; only ByteLevel is supported");
  const std::string& type = type_of(*decoder, "decoder");
  if (type != "ByteLevel") fail("decoder {} is not supported; only ByteLevel is", in_quotes(type));
}

AddedToken read_added_token(const Value& value, int32_t id, std::string_view place) {
  AddedToken token;
  token.id = id;
  token.content = text_at(required(value, "content", place), fmt::format("{}.content", place));
  if (token.content.empty()) fail("{}: the content of token {} is empty", place, id);
  if (token.content.size() > AddedTokenMatcher::maximum_length)
    fail("{}: the content of token {} is longer than {} bytes", place, id,
         AddedTokenMatcher::maximum_length);
  token.special = flag(value, "special", false, place);
  token.single_word = flag(value, "single_word", false, place);
  token.lstrip = flag(value, "lstrip", false, place);
  token.rstrip = flag(value, "rstrip", false, place);
  token.normalized = flag(value, "normalized", !token.special, place);
  return token;
}

// Added tokens as they gather from the two files.
class AddedTokens {
 public:
  // A token of tokenizer_config.json may replace one of tokenizer.json: its flags count, as they do
  // in transformers.
  void add(AddedToken token, bool may_replace, std::string_view place) {
    const auto same_id = by_id_.find(token.id);
    if (same_id != by_id_.end()) {
      if (same_id->second.content != token.content || !may_replace)
        fail("{}: id {} is given to {} and to {}", place, token.id,
             in_quotes(same_id->second.content), in_quotes(token.content));
      same_id->second = std::move(token);
      return;
    }
    const auto [same_content, is_new] = ids_.emplace(token.content, token.id);
    if (!is_new)
      fail("{}: {} has two ids, {} and {}", place, in_quotes(token.content), same_content->second,
           token.id);
    by_id_.emplace(token.id, std::move(token));
  }

  bool contains(std::string_view content) const { return ids_.count(std::string(content)) != 0; }
  const std::map<int32_t, AddedToken>& by_id() const { return by_id_; }

 private:
  std::map<int32_t, AddedToken> by_id_;
  std::unordered_map<std::string, int32_t> ids_;
};

AddedTokens read_added_tokens(const Value& root, const Value& config) {
  AddedTokens added;
  if (const Value* list = find_set(root, "added_tokens"))
    for (const Value& item : array_at(*list, "added_tokens")) {
      const int32_t id = id_at(required(item, "id", "added_tokens"), "added_tokens.id");
      added.add(read_added_token(item, id, "added_tokens"), false, "added_tokens");
    }
  const std::string_view place = "tokenizer_config.json: added_tokens_decoder";
  if (const Value* decoder = find_set(config, "added_tokens_decoder"))
    for (const auto& [key, item] : object_at(*decoder, place)) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0)
        fail("{}: {} is no id", place, in_quotes(key));
      added.add(read_added_token(item, id, place), true, place);
    }
  return added;
}

class VocabularyReader {
 public:
  VocabularyReader(const Value& model, const AddedTokens& added) {
    const json::Object& vocabulary = object_at(required(model, "vocab", "model"), "model.vocab");
    ids_.reserve(vocabulary.size());
    for (const auto& [content, id] : vocabulary)
      ids_.emplace(content, id_at(id, fmt::format("model.vocab {}", in_quotes(content))));
    place_all(added);
    tokens_.resize(contents_.size());
    for (const auto& [content, id] : ids_) {
      // An added token may stand in the vocabulary in plain text; merges never make it.
      std::optional<std::string> bytes = from_byte_level(content);
      if (bytes && !bytes->empty())
        tokens_[static_cast<size_t>(id)] = *std::move(bytes);
      else if (!added.contains(content))
        fail("model.vocab: {} (id {}) is not written in the byte-level alphabet",
             in_quotes(content), id);
    }
  }

  std::vector<std::string> take_tokens() { return std::move(tokens_); }

  std::vector<BytePairEncoder::Merge> read_merges(const Value& model) const {
    std::vector<BytePairEncoder::Merge> merges;
    const json::Array& list = array_at(required(model, "merges", "model"), "model.merges");
    merges.reserve(list.size());
    for (const Value& item : list) merges.push_back(read_merge(item, merges.size()));
    return merges;
  }

  std::optional<int32_t> find(std::string_view content) const {
    const auto it = ids_.find(content);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }

 private:
  // Each id has one token, and there is no hole below the largest.
  void place_all(const AddedTokens& added) {
    size_t total = ids_.size();
    for (const auto& [id, token] : added.by_id()) total += !ids_.count(token.content);
    contents_.resize(total);
    for (const auto& [content, id] : ids_) place(content, id);
    for (const auto& [id, token] : added.by_id()) {
      const std::optional<int32_t> known = find(token.content);
      if (known && *known != id)
        fail("added token {} has id {}, but model.vocab gives it id {}", in_quotes(token.content),
             id, *known);
      if (!known) place(token.content, id);
    }
    for (size_t id = 0; id < total; ++id)
      if (contents_[id].empty())
        fail("no token has id {}, though there are tokens with larger ids", id);
  }

  void place(std::string_view content, int32_t id) {
    if (content.empty()) fail("model.vocab: the content of token {} is empty", id);
    // Beyond the number of tokens: there is a hole below, which is reported once all are placed.
    if (static_cast<size_t>(id) >= contents_.size()) return;
    std::string_view& slot = contents_[static_cast<size_t>(id)];
    if (!slot.empty())
      fail("id {} is given to {} and to {}", id, in_quotes(slot), in_quotes(content));
    slot = content;
  }

  // Written "a b", or ["a", "b"] since tokens may hold spaces in other tokenizers.
  BytePairEncoder::Merge read_merge(const Value& item, size_t rank) const {
    std::string_view left, right;
    if (item.is_string()) {
      const std::string_view both = item.as_string();
      const size_t space = both.find(' ');
      if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos)
        fail("model.merges[{}]: {} is not two tokens with a space between", rank, in_quotes(both));
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else {
      const std::string place = fmt::format("model.merges[{}]", rank);
      const json::Array& pair = array_at(item, place);
      if (pair.size() != 2) fail("{}: expected two tokens, found {}", place, pair.size());
      left = text_at(pair[0], place);
      right = text_at(pair[1], place);
    }
    std::string merged(left);
    merged += right;
    return {merge_token(left, rank), merge_token(right, rank), merge_token(merged, rank)};
  }

  int32_t merge_token(std::string_view content, size_t rank) const {
    const std::optional<int32_t> id = find(content);
    if (!id) fail("model.merges[{}]: {} is not in model.vocab", rank, in_quotes(content));
    if (tokens_[static_cast<size_t>(*id)].empty())
      fail("model.merges[{}]: {} is not written in the byte-level alphabet", rank,
           in_quotes(content));
    return *id;
  }

  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<std::string_view> contents_;  // by id
  std::vector<std::string> tokens_;         // bytes by id
};

// byte_fallback, unk_token and fuse_unk say what to do with characters that no token covers; with
// a token for every byte there are none.
void check_model(const Value& model) {
  object_at(model, "model");
  const Value* type = find_set(model, "type");
  if (type && text_at(*type, "model.type") != "BPE")
    fail("model.type {} is not supported; only BPE is", in_quotes(type->as_string()));
  const Value* dropout = find_set(model, "dropout");
  if (dropout && read_as("model.dropout", [&] { return dropout->as_double(); }) != 0)
    fail("model.dropout is not supported: encoding would be random; set it to null");
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Value* affix = find_set(model, key);
    if (affix && !text_at(*affix, fmt::format("model.{}", key)).empty())
      fail("model.{} is not supported by byte-level BPE; set it to null", key);
  }
}

// The id of the token that tokenizer_config.json names as its `key`.
std::optional<int32_t> named_token(const Value& config, std::string_view key,
                                   const AddedTokens& added, const VocabularyReader& vocabulary) {
  const Value* value = find_set(config, key);
  if (!value) return std::nullopt;
  const std::string place = fmt::format("tokenizer_config.json: {}", key);
  const std::string& content =
      text_at(value->is_object() ? required(*value, "content", place) : *value, place);
  for (const auto& [id, token] : added.by_id())
    if (token.content == content) return id;
  const std::optional<int32_t> id = vocabulary.find(content);
  if (!id) fail("{} {} is no token of the tokenizer", place, in_quotes(content));
  return id;
}

void check_config(const Value& config) {
  object_at(config, "tokenizer_config.json");
  for (const std::string_view kind : {"bos", "eos"}) {
    const std::string key = fmt::format("add_{}_token", kind);
    if (flag(config, key, false, "tokenizer_config.json") &&
        find_set(config, fmt::format("{}_token", kind)))
      fail("tokenizer_config.json: {} true is not supported: write the token in the chat template",
           key);
  }
}

TokenizerDefinition read_definition(const Value& root, const Value& config) {
  object_at(root, "the file");
  check_config(config);
  const Value& model = required(root, "model", "the file");
  check_model(model);
  TokenizerDefinition definition;
  definition.nfc = reads_nfc(root.find("normalizer"), "normalizer");
  definition.scanner = read_pre_tokenizer(root);
  check_post_processor(root.find("post_processor"));
  check_decoder(root.find("decoder"));
  const AddedTokens added = read_added_tokens(root, config);
  VocabularyReader vocabulary(model, added);
  definition.merges = vocabulary.read_merges(model);
  definition.ignore_merges = flag(model, "ignore_merges", false, "model");
  definition.bos = named_token(config, "bos_token", added, vocabulary);
  definition.eos = named_token(config, "eos_token", added, vocabulary);
  definition.pad = named_token(config, "pad_token", added, vocabulary);
  definition.tokens = vocabulary.take_tokens();
  for (const auto& [id, token] : added.by_id()) definition.added.push_back(token);
  return definition;
}

}  // namespace

TokenizerDefinition read_tokenizer_definition(std::string_view tokenizer_json,
                                              std::string_view name, std::string_view config_json) {
  const Value root = json::parse(tokenizer_json, name);
  try {
    return read_definition(root, config_json.empty()
                                     ? Value(json::Object())
                                     : json::parse(config_json, "tokenizer_config.json"));
  } catch (const Error& error) {
    fail("{}: {}", name, error.what());
  }
}

TokenizerDefinition load_tokenizer_definition(const std::string& path) {
  std::filesystem::path file(path);
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) file /= "tokenizer.json";
  const std::filesystem::path config = file.parent_path() / "tokenizer_config.json";
  const std::string config_json =
      std::filesystem::exists(config, ignored) ? read_file(config.string()) : std::string();
  return read_tokenizer_definition(read_file(file.string()), file.string(), config_json);
}

}  // namespace qnext
