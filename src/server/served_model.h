// The model that a server offers. Tokenizer and template must outlive the server.
#pragma once

#include <cstdint>
#include <string>

#include "engine/request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace qnext::server {

class Grammars;

struct ServedModel {
  std::string id;  // what requests call it
  const Tokenizer* tokenizer = nullptr;
  const ModelChatTemplate* chat_template = nullptr;
  ops::SamplingParameters sampling = {};  // where a request says nothing
  int32_t speculate = 0;                  // GenerationRequest::speculate of every request
  int64_t created = 0;                    // seconds since 1970, as /v1/models tells
  Grammars* grammars = nullptr;           // null: no answer can be held to a form
};

}  // namespace qnext::server
