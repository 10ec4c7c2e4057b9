// The fields that every endpoint with answers has: sampling, length, stops, streaming.
//
// Besides OpenAI's: top_k, min_p, repetition_penalty, stop_token_ids, ignore_eos. Sampling defaults
// are the model's own (ServedModel::sampling), as its makers recommend. Choice i of n has the seed
// seed + i.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "server/fields.h"
#include "server/served_model.h"

namespace qnext::server {

struct AnswerSettings {
  engine::GenerationRequest request;  // all but the prompt
  int32_t choices = 1;
  bool stream = false;
  bool include_usage = false;  // of a stream; a whole answer always has it
};

// Most choices that a request may ask for, prompts times n.
constexpr int64_t most_choices = 128;

// Throws ApiError naming the field.
AnswerSettings read_answer_settings(const Fields& fields, const ServedModel& model);

// n requests with this prompt, which came in `field`. Throws ApiError where it leaves no room in
// the context.
void add_choices(std::vector<engine::GenerationRequest>& requests, const AnswerSettings& settings,
                 const std::vector<int32_t>& prompt, int64_t max_context, const char* field);

}  // namespace qnext::server
