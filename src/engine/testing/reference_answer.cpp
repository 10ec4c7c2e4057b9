#include "engine/testing/reference_answer.h"

#include <algorithm>

#include "engine/testing/fake_backend.h"

namespace qnext::engine::testing {
namespace {

// The stop string that ends first in `text`; of several that end there, the one that starts first.
struct Found {
  size_t begin = std::string::npos;
  std::string which;
};
Found find_stop_string(const std::string& text, const std::vector<std::string>& stop_strings) {
  Found best;
  size_t best_end = std::string::npos;
  for (const std::string& wanted : stop_strings) {
    const size_t begin = text.find(wanted);
    if (begin == std::string::npos) continue;
    const size_t end = begin + wanted.size();
    if (end < best_end || (end == best_end && begin < best.begin)) {
      best_end = end;
      best = {begin, wanted};
    }
  }
  return best;
}

}  // namespace

ReferenceAnswer reference_answer(const GenerationRequest& request,
                                 const ReferenceSettings& settings) {
  std::vector<int32_t> stop_tokens = request.stop_tokens;
  if (!request.ignore_eos)
    stop_tokens.insert(stop_tokens.end(), settings.eos_tokens.begin(), settings.eos_tokens.end());
  uint64_t history = 0;
  ops::TokenCounts counts;
  for (const int32_t token : request.prompt) {
    history = extend_history(history, token);
    counts.add(token, false);
  }

  const auto constraint = request.constraint ? request.constraint->begin() : nullptr;
  ReferenceAnswer answer;
  std::vector<int32_t> shown;  // tokens that give text
  const auto set_text = [&] {
    if (settings.tokenizer) answer.text = settings.tokenizer->decode(shown, true);
  };
  for (;;) {
    const int64_t position = std::ssize(request.prompt) + std::ssize(answer.tokens);
    const auto mask = constraint ? constraint->masks({})[0] : nullptr;
    const int32_t token =
        draw_token(history, position, request.sampling, digest_counts(request.sampling, counts),
                   settings.vocabulary, mask ? mask->data() : nullptr);
    if (constraint) constraint->accept(token);
    answer.tokens.push_back(token);
    history = extend_history(history, token);
    counts.add(token, true);
    if (std::ranges::find(stop_tokens, token) != stop_tokens.end()) {
      answer.reason = FinishReason::stop_token;
      return answer;
    }
    shown.push_back(token);
    set_text();
    const Found found = find_stop_string(answer.text, request.stop_strings);
    if (found.begin != std::string::npos) {
      answer.text.resize(found.begin);
      answer.stop_string = found.which;
      answer.reason = FinishReason::stop_string;
      return answer;
    }
    if (request.max_tokens && std::ssize(answer.tokens) == *request.max_tokens) {
      answer.reason = FinishReason::length;
      return answer;
    }
    if (position + 1 == settings.context) {
      answer.reason = FinishReason::context;
      return answer;
    }
  }
}

}  // namespace qnext::engine::testing
