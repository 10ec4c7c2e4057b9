// What a request's answer must be: the hash model of fake_backend.h, one token at a time, alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "text/tokenizer.h"

namespace qnext::engine::testing {

struct ReferenceSettings {
  int32_t vocabulary = 0;
  int64_t context = 0;
  std::vector<int32_t> eos_tokens;
  const Tokenizer* tokenizer = nullptr;
};

struct ReferenceAnswer {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason reason = FinishReason::error;
  std::string stop_string;
};

ReferenceAnswer reference_answer(const GenerationRequest& request,
                                 const ReferenceSettings& settings);

}  // namespace qnext::engine::testing
