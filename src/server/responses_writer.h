// How /v1/responses writes an answer: items of reasoning, messages and function calls, streamed as
// the events of that API with their sequence numbers, from response.created to response.completed,
// response.incomplete or response.failed. What has not failed is stored where that is wanted.
#pragma once

#include <cstdint>
#include <string>

#include "server/answer_blocks.h"
#include "server/generation.h"
#include "server/response_store.h"
#include "text/tokenizer.h"

namespace qnext::server {

class ResponsesWriter : public ResponseWriter {
 public:
  struct Options {
    std::string id;  // the response is "resp_" + id, and the names of its items derive from it
    std::string model;
    int64_t created = 0;  // seconds since 1970
    bool stream = false;
    bool in_reasoning = false;     // the prompt ended inside "<think>"
    json::Array tools = {};        // that may be called
    json::Object told_again = {};  // fields of the request that the response repeats
    // Where the response is stored, and what with it; null: nowhere.
    ResponseStore* store = nullptr;
    json::Array input = {};
    StoredResponse::Pointer previous = nullptr;
  };
  // The tokenizer and the store must outlive the writer.
  ResponsesWriter(Options options, const Tokenizer& tokenizer);

  std::string begin() override;
  std::string news(size_t choice, const AnswerNews& news) override;
  std::string end(const Usage& usage) override;
  std::string fail(const ApiError& error, bool streamed) override;

 private:
  std::string event(std::string_view type, json::Object more);
  std::string write(const BlockChange& change);
  std::string write_begin(size_t number);
  std::string write_text(size_t number, const std::string& text);
  std::string write_end(size_t number);
  std::string item_id(size_t number) const;
  // As it begins, or whole.
  json::Object item(size_t number, bool whole) const;
  json::Object part(size_t number, bool whole) const;
  const char* item_status(size_t number) const;
  json::Object usage_object(const Usage& usage) const;
  json::Object response(const char* status) const;

  Options options_;
  const Tokenizer& tokenizer_;
  AnswerBlocks blocks_;
  int64_t sequence_number_ = 0;
  bool cut_off_ = false;  // by the limit of tokens or the context
  json::Value usage_;
  json::Value error_;
};

}  // namespace qnext::server
