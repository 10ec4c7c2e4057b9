// The items of a Responses conversation as messages of a chat.
#pragma once

#include <string>

#include "base/json.h"

namespace qnext::server {

class ResponsesInput {
 public:
  // `path` is how errors name the item. Throws ApiError.
  void add(const json::Value& item, const std::string& path);
  // All so far.
  json::Array messages();

 private:
  void add_message(const json::Value& item, const std::string& path);
  void add_call(const json::Value& item, const std::string& path);
  void end_turn();

  json::Array messages_;
  // The assistant's message that is being put together of its items.
  std::string reasoning_;
  std::string content_;
  json::Array calls_;
  bool has_content_ = false;
};

}  // namespace qnext::server
