// The whole model in fp64, plainly: the judge of every backend.
//
// Reads like the description of the model (docs/model.md): one function a formula, no caches, no
// batching, no threads, quadratic attention. For small models and short prompts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/config.h"

namespace qnext {

struct OracleOutputs {
  // residuals[n] [tokens, hidden]: the residual stream entering layer n; the last one is the
  // output of the final norm.
  std::vector<std::vector<double>> residuals;
  // router_logits[n] [tokens, experts] before softmax; empty for dense layers.
  std::vector<std::vector<double>> router_logits;
  std::vector<double> logits;  // [tokens, vocabulary]
  // For t < tokens - 1, from the final hidden state of t and token t + 1; empty without MTP head.
  std::vector<double> mtp_hidden;  // [tokens - 1, hidden]
  std::vector<double> mtp_logits;  // [tokens - 1, vocabulary]
};

// What each matrix was multiplied with, [rows, inputs] by the weight's name: experts with the rows
// that chose them, in order; lm_head with the model's rows, not the MTP head's.
using MatrixInputs = std::map<std::string, std::vector<double>, std::less<>>;

// The weights must have passed check_weights(). tokens are ids below vocabulary_size. inputs: where
// to put what matrices read, or null.
OracleOutputs oracle_forward(const Config& config, const Checkpoint& checkpoint,
                             std::span<const int32_t> tokens, MatrixInputs* inputs = nullptr);

}  // namespace qnext
