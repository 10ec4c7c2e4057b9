#include "text/answer_parser.h"

#include <algorithm>
#include <utility>

namespace qnext {
namespace {

constexpr std::string_view think = "<think>";
constexpr std::string_view think_end = "</think>";
constexpr std::string_view call = "<tool_call>";
constexpr std::string_view call_end = "</tool_call>";
constexpr std::string_view line_ends = "\n";
constexpr std::string_view blanks = " \n\r\t";

}  // namespace

size_t tag_begin(std::string_view text, std::string_view tag) {
  const size_t whole = text.find(tag);
  if (whole != std::string_view::npos) return whole;
  for (size_t length = std::min(tag.size() - 1, text.size()); length > 0; --length)
    if (text.ends_with(tag.substr(0, length))) return text.size() - length;
  return text.size();
}

TagMatch match_tag(std::string_view text, std::string_view tag) {
  if (text.starts_with(tag)) return TagMatch::yes;
  return tag.starts_with(text) ? TagMatch::maybe : TagMatch::no;
}

void append_part(std::vector<AnswerPart>& parts, AnswerPart::Kind kind, int number,
                 std::string_view text) {
  if (text.empty() && kind != AnswerPart::Kind::call_name) return;
  const bool goes_on = !parts.empty() && parts.back().kind == kind && parts.back().call == number &&
                       kind != AnswerPart::Kind::call_name;
  if (goes_on)
    parts.back().text += text;
  else
    parts.push_back({kind, number, std::string(text)});
}

bool prompt_opens_reasoning(std::string_view prompt) {
  const size_t end = prompt.find_last_not_of(blanks);
  return end != std::string_view::npos && prompt.substr(0, end + 1).ends_with(think);
}

AnswerParser::AnswerParser(const AnswerParserOptions& options)
    : options_(options), state_(options.in_reasoning ? State::reasoning_start : State::start) {}
AnswerParser::~AnswerParser() = default;
AnswerParser::AnswerParser(AnswerParser&&) noexcept = default;

std::vector<AnswerPart> AnswerParser::push(std::string_view piece) {
  std::vector<AnswerPart> parts;
  text_ += piece;
  while (advance(parts)) {
  }
  return parts;
}

// One step. False: more text is needed.
bool AnswerParser::advance(std::vector<AnswerPart>& parts) {
  switch (state_) {
    case State::start:
      return read_start();
    case State::reasoning_start:
      return read_reasoning_start();
    case State::reasoning:
      return read_reasoning(parts);
    case State::reasoning_end:
      if (!skip_blank(line_ends)) return false;
      state_ = State::content;
      return true;
    case State::content:
      return read_content(parts);
    case State::call:
      return read_call(parts);
    case State::call_end:
      return read_call_end();
  }
  return false;
}

// False: nothing is left.
bool AnswerParser::skip_blank(std::string_view blank) {
  text_.erase(0, std::min(text_.find_first_not_of(blank), text_.size()));
  return !text_.empty();
}

void AnswerParser::emit(std::vector<AnswerPart>& parts, AnswerPart::Kind kind, size_t end,
                        std::string_view blank) {
  const std::string_view text = std::string_view(text_).substr(0, end);
  const size_t last = text.find_last_not_of(blank);
  const size_t certain = last == std::string_view::npos ? 0 : last + 1;
  if (certain > 0) {
    append_part(parts, kind, 0, held_);
    append_part(parts, kind, 0, text.substr(0, certain));
    held_.clear();
  }
  held_ += text.substr(certain);
  text_.erase(0, end);
}

bool AnswerParser::read_start() {
  const size_t first = text_.find_first_not_of(blanks);
  if (first == std::string::npos) return false;
  const TagMatch match = match_tag(std::string_view(text_).substr(first), think);
  if (match == TagMatch::maybe) return false;
  state_ = match == TagMatch::yes ? State::reasoning_start : State::content;
  return true;
}

// Some models write the tag although the prompt did.
bool AnswerParser::read_reasoning_start() {
  if (!skip_blank(blanks)) return false;
  const TagMatch match = match_tag(text_, think);
  if (match == TagMatch::maybe) return false;
  if (match == TagMatch::yes)
    text_.erase(0, think.size());
  else
    state_ = State::reasoning;
  return true;
}

bool AnswerParser::read_reasoning(std::vector<AnswerPart>& parts) {
  emit(parts, AnswerPart::Kind::reasoning, tag_begin(text_, think_end), line_ends);
  if (!text_.starts_with(think_end)) return false;
  text_.erase(0, think_end.size());
  held_.clear();
  state_ = State::reasoning_end;
  return true;
}

bool AnswerParser::read_content(std::vector<AnswerPart>& parts) {
  if (!options_.tools) {
    emit(parts, AnswerPart::Kind::content, text_.size(), {});
    return false;
  }
  emit(parts, AnswerPart::Kind::content, tag_begin(text_, call), blanks);
  if (!text_.starts_with(call)) return false;
  begin_call();
  return true;
}

void AnswerParser::begin_call() {
  text_.erase(0, call.size());
  reader_ = std::make_unique<ToolCallReader>(*options_.tools, calls_);
  state_ = State::call;
}

bool AnswerParser::read_call(std::vector<AnswerPart>& parts) {
  const ToolCallReader::Status status = reader_->read(text_, parts);
  calls_ += reader_->take_begun();
  if (status == ToolCallReader::Status::more) return false;
  if (status == ToolCallReader::Status::no_call) {
    append_part(parts, AnswerPart::Kind::content, 0, std::exchange(held_, {}));
    append_part(parts, AnswerPart::Kind::content, 0, call);
    append_part(parts, AnswerPart::Kind::content, 0, reader_->consumed());
    state_ = State::content;
  } else {
    held_.clear();
    state_ = State::call_end;
  }
  reader_.reset();
  return true;
}

bool AnswerParser::read_call_end() {
  if (!skip_blank(blanks)) return false;
  switch (match_tag(text_, call_end)) {
    case TagMatch::maybe:
      return false;
    case TagMatch::yes:
      text_.erase(0, call_end.size());
      return true;
    case TagMatch::no:
      state_ = State::content;
      return true;
  }
  return false;
}

std::vector<AnswerPart> AnswerParser::finish() {
  std::vector<AnswerPart> parts;
  const auto content = [&](std::string_view text) {
    append_part(parts, AnswerPart::Kind::content, 0, text);
  };
  switch (state_) {
    case State::reasoning:
      if (!text_.empty()) append_part(parts, AnswerPart::Kind::reasoning, 0, held_ + text_);
      break;
    case State::reasoning_start:
      append_part(parts, AnswerPart::Kind::reasoning, 0, text_);
      break;
    case State::start:
    case State::content:
    case State::call_end:
      content(held_ + text_);
      break;
    case State::call:
      if (reader_->is_begun()) break;
      content(held_);
      content(call);
      content(reader_->consumed() + text_);
      break;
    case State::reasoning_end:
      break;
  }
  text_.clear();
  held_.clear();
  return parts;
}

}  // namespace qnext
