#include "app/load_scenario.h"

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace qnext::app {
namespace {

constexpr std::array<std::string_view, 64> vocabulary = {
    "time",  "year",  "people", "way",   "day",   "thing",  "world", "life",  "hand",   "part",
    "child", "eye",   "woman",  "place", "work",  "week",   "case",  "point", "night",  "home",
    "water", "room",  "mother", "area",  "money", "story",  "fact",  "month", "lot",    "right",
    "study", "book",  "word",   "side",  "kind",  "head",   "house", "page",  "friend", "hour",
    "game",  "line",  "end",    "law",   "car",   "city",   "name",  "team",  "minute", "idea",
    "body",  "back",  "face",   "level", "door",  "health", "art",   "war",   "party",  "light",
    "river", "paper", "garden", "king"};

// Any 64 bits do for a generator's seed, as long as they differ.
uint64_t mixed(uint64_t seed, uint64_t number) {
  return seed * 0x9e3779b97f4a7c15 + number;
}

int64_t parse_length(std::string_view text, const std::string& option, int64_t least) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, value);
  if (read.ec != std::errc{} || read.ptr != end || value < least)
    fail("{} {}: give a number of at least {}, or a range such as 64:256", option, text, least);
  return value;
}

json::Object message(const char* role, std::string content) {
  return {{"role", role}, {"content", std::move(content)}};
}

json::Object common_fields(const ScenarioOptions& options, int64_t generate) {
  json::Object body{{"model", options.model}, {"max_tokens", generate}, {"stream", true}};
  body.set("stream_options", json::Object{{"include_usage", true}});
  if (options.ignore_eos) body.set("ignore_eos", true);
  return body;
}

}  // namespace

int64_t LengthRange::draw(std::mt19937_64& random) const {
  return least + static_cast<int64_t>(random() % static_cast<uint64_t>(most - least + 1));
}

LengthRange parse_length_range(const std::string& text, const std::string& option, int64_t least) {
  const std::string_view view = text;
  const size_t colon = view.find(':');
  LengthRange range;
  range.least = range.most = parse_length(view.substr(0, colon), option, least);
  if (colon != std::string::npos) range.most = parse_length(view.substr(colon + 1), option, least);
  if (range.most < range.least) fail("{} {}: the range ends before it begins", option, text);
  return range;
}

std::string random_words(std::mt19937_64& random, int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += vocabulary[random() % vocabulary.size()];
  }
  return text;
}

std::string probe_body(const ScenarioOptions& options, int64_t words) {
  std::mt19937_64 random(options.seed);
  json::Object body = common_fields(options, 1);
  std::string text = random_words(random, words);
  if (options.chat)
    body.set("messages", json::Array{message("user", std::move(text))});
  else
    body.set("prompt", std::move(text));
  return json::write(body);
}

LoadConversation::LoadConversation(const ScenarioOptions& options, uint64_t number,
                                   std::string begin)
    : options_(options),
      random_(mixed(options.seed, number)),
      turns_(options.scenario == Scenario::multi_turn ? options.turns : 1) {
  if (begin.empty()) return;
  if (options.chat)
    messages_.emplace_back(message("system", std::move(begin)));
  else
    text_ = std::move(begin) + "\n";
}

std::string LoadConversation::words(int64_t tokens) {
  const double count = std::ceil(static_cast<double>(tokens) * options_.words_per_token);
  return random_words(random_, std::max(static_cast<int64_t>(count), int64_t{1}));
}

std::optional<LoadRequest> LoadConversation::next() {
  if (turns_-- <= 0) return std::nullopt;
  std::string asked = words(options_.prompt_tokens.draw(random_));
  LoadRequest request;
  request.generate = options_.generate.draw(random_);
  json::Object body = common_fields(options_, request.generate);
  if (options_.chat) {
    messages_.emplace_back(message("user", std::move(asked)));
    body.set("messages", messages_);
  } else {
    text_ += asked + "\n";
    body.set("prompt", text_);
  }
  request.body = json::write(body);
  return request;
}

void LoadConversation::answered(const std::string& text) {
  if (options_.chat)
    messages_.emplace_back(message("assistant", text));
  else
    text_ += text + "\n";
}

ScenarioSource::ScenarioSource(ScenarioOptions options) : options_(std::move(options)) {
  if (options_.scenario != Scenario::shared_prefix) return;
  std::mt19937_64 random(mixed(options_.seed, 0));
  const double count =
      std::ceil(static_cast<double>(options_.prefix_tokens) * options_.words_per_token);
  prefix_ = random_words(random, static_cast<int64_t>(count));
}

std::unique_ptr<LoadConversation> ScenarioSource::begin() {
  return std::unique_ptr<LoadConversation>(new LoadConversation(options_, next_++, prefix_));
}

}  // namespace qnext::app
