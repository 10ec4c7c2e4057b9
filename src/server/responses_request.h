// A request of OpenAI's Responses API, in the fields of a chat completion.
//
// Items of the input: messages, reasoning, function calls and their outputs; reasoning and calls
// belong to the assistant's message beside them. `instructions` stand before the system message
// that the input may begin with, in one message with it, and are not inherited from an earlier
// response. Encrypted reasoning and the summaries asked for are left out: reasoning is told as it
// is. Sampling fields that only the other endpoints have (seed, stop, ...) are read here as there.
#pragma once

#include "base/json.h"
#include "server/response_store.h"

namespace qnext::server {

struct ResponsesRequest {
  json::Value chat;         // for read_chat_request
  json::Array input;        // the items that it brought itself
  json::Object told_again;  // settings that the response repeats
  StoredResponse::Pointer previous = nullptr;
  bool store = true;
};

// Throws ApiError naming the field that is wrong or not supported; 404 where previous_response_id
// is not (or no longer) in the store.
ResponsesRequest read_responses_request(const json::Value& body, ResponseStore& store);

}  // namespace qnext::server
