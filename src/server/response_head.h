// What the objects of one response have in common.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "engine/request.h"
#include "server/answer_feed.h"
#include "server/generation.h"

namespace qnext::server {

struct ResponseHead {
  std::string id;  // "cmpl-..."
  std::string model;
  int64_t created = 0;  // seconds since 1970

  // {id, object, created, model, choices}
  json::Object object(const char* kind, json::Array choices) const;
  // As an event of a stream; where its client asked for usage, that is null until the last event,
  // which has no choices.
  std::string chunk(const char* kind, json::Array choices, bool include_usage) const;
  std::string usage_chunk(const char* kind, const Usage& usage) const;
};

// A head for the request `request_id` at this moment.
ResponseHead make_head(const std::string& prefix, const std::string& request_id,
                       const std::string& model);

// "stop" or "length", as clients know them.
json::Value finish_reason_text(engine::FinishReason reason);

// The limit on what may wait for the client of a stream: a reader that is a MiB behind has been
// away for thousands of tokens. A whole answer is bounded by the context and needs none.
FeedOptions feed_options(bool stream, bool keep_tokens);

}  // namespace qnext::server
