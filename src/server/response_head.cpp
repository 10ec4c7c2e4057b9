#include "server/response_head.h"

#include <ctime>
#include <utility>

namespace qnext::server {

json::Object ResponseHead::object(const char* kind, json::Array choices) const {
  return {{"id", id},
          {"object", kind},
          {"created", created},
          {"model", model},
          {"choices", std::move(choices)}};
}

std::string ResponseHead::chunk(const char* kind, json::Array choices, bool include_usage) const {
  json::Object chunk = object(kind, std::move(choices));
  if (include_usage) chunk.set("usage", nullptr);
  return event(chunk);
}

std::string ResponseHead::usage_chunk(const char* kind, const Usage& usage) const {
  json::Object last = object(kind, {});
  last.set("usage", usage.object());
  return event(last);
}

ResponseHead make_head(const std::string& prefix, const std::string& request_id,
                       const std::string& model) {
  return {.id = prefix + request_id,
          .model = model,
          .created = static_cast<int64_t>(std::time(nullptr))};
}

json::Value finish_reason_text(engine::FinishReason reason) {
  const bool stopped =
      reason == engine::FinishReason::stop_token || reason == engine::FinishReason::stop_string;
  return stopped ? "stop" : "length";
}

FeedOptions feed_options(bool stream, bool keep_tokens) {
  FeedOptions options{.keep_tokens = keep_tokens, .whole = !stream};
  if (stream) options.limit_bytes = size_t{1} << 20;
  return options;
}

}  // namespace qnext::server
