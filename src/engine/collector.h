// A listener that keeps a whole answer: for tests, benchmarks and callers that do not stream.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"

namespace qnext::engine {

class Collector : public Listener {
 public:
  void on_token(RequestId, const ops::SampledToken& token) override { tokens.push_back(token); }
  void on_text(RequestId, std::string_view piece) override { text += piece; }
  void on_finish(RequestId, const Finish& end) override { finish = end; }

  std::vector<ops::SampledToken> tokens;
  std::string text;
  std::optional<Finish> finish;  // empty while the request runs
};

}  // namespace qnext::engine
