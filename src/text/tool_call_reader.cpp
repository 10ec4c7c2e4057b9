#include "text/tool_call_reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/answer_parser.h"

namespace qnext {
namespace {

constexpr std::string_view blanks = " \n\r\t";
constexpr std::string_view call_end = "</tool_call>";
constexpr std::string_view function = "<function=";
constexpr std::string_view function_end = "</function>";
constexpr std::string_view parameter = "<parameter=";
constexpr std::string_view parameter_end = "</parameter>";
// No name is as long: a text that goes on is no call.
constexpr size_t longest_name = 1024;

bool is_blank(char c) {
  return blanks.find(c) != std::string_view::npos;
}

std::string json_text(std::string_view text) {
  std::string out;
  json::append_string(out, text);
  return out;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

// What a model wrote for a parameter that is not just a string, as JSON.
std::string value_json(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const std::string_view value = trim(text);
  // As models that learned from Python write them.
  for (const auto& [python, name] : {std::pair<std::string_view, const char*>{"True", "true"},
                                     {"False", "false"},
                                     {"None", "null"}})
    if (value == python) return name;
  try {
    return json::write(json::parse(value, "parameter"));
  } catch (const Error&) {
    return json_text(text);
  }
}

}  // namespace

ToolSchemas::ToolSchemas(const json::Array& tools) {
  for (const json::Value& tool : tools) {
    const json::Value* definition = tool.find("function");
    const json::Value* name = definition ? definition->find("name") : nullptr;
    if (!name || !name->is_string()) continue;
    auto& parameters = tools_[name->as_string()];
    const json::Value* schema = definition->find("parameters");
    const json::Value* properties = schema ? schema->find("properties") : nullptr;
    if (!properties || !properties->is_object()) continue;
    for (const auto& [key, property] : properties->as_object()) {
      const json::Value* type = property.find("type");
      parameters[key] = type && type->is_string() && type->as_string() == "string";
    }
  }
}

bool ToolSchemas::is_text(const std::string& tool, const std::string& key) const {
  const auto found = tools_.find(tool);
  if (found == tools_.end()) return true;
  const auto type = found->second.find(key);
  return type == found->second.end() || type->second;
}

ToolCallReader::ToolCallReader(const ToolSchemas& schemas, int number)
    : schemas_(schemas), number_(number) {}

ToolCallReader::Status ToolCallReader::read(std::string& text, Parts& parts) {
  while (state_ != State::done && state_ != State::no_call && advance(text, parts)) {
  }
  if (state_ == State::done) return Status::done;
  return state_ == State::no_call ? Status::no_call : Status::more;
}

int ToolCallReader::take_begun() {
  return begun_ && !std::exchange(begun_taken_, true) ? 1 : 0;
}

// One step. False: more text is needed.
bool ToolCallReader::advance(std::string& text, Parts& parts) {
  switch (state_) {
    case State::form:
      return read_form(text);
    case State::key_or_end:
    case State::key:
    case State::colon:
    case State::value_start:
    case State::value:
      return read_json(text, parts);
    case State::broken:
      return read_broken(text);
    case State::function_name:
      return read_function_name(text, parts);
    case State::parameter_or_end:
      return read_parameter_or_end(text, parts);
    case State::parameter_name:
      return read_parameter_name(text, parts);
    case State::parameter_start:
      return read_parameter_start(text, parts);
    case State::parameter_text:
      return read_parameter_text(text, parts);
    case State::parameter_value:
      return read_parameter_value(text, parts);
    case State::done:
    case State::no_call:
      break;
  }
  return false;
}

void ToolCallReader::take(std::string& text, size_t count) {
  if (!begun_) consumed_.append(text, 0, count);
  text.erase(0, count);
}

// False: nothing is left.
bool ToolCallReader::skip_blank(std::string& text) {
  take(text, std::min(text.find_first_not_of(blanks), text.size()));
  return !text.empty();
}

void ToolCallReader::begin(const std::string& name, Parts& parts) {
  name_ = name;
  begun_ = true;
  append_part(parts, AnswerPart::Kind::call_name, number_, name);
}

void ToolCallReader::arguments(std::string_view text, Parts& parts) {
  append_part(parts, AnswerPart::Kind::call_arguments, number_, text);
}

bool ToolCallReader::read_form(std::string& text) {
  if (!skip_blank(text)) return false;
  const TagMatch match = match_tag(text, function);
  if (match == TagMatch::maybe) return false;
  if (match == TagMatch::yes) {
    take(text, function.size());
    state_ = State::function_name;
  } else if (text.front() == '{') {
    take(text, 1);
    state_ = State::key_or_end;
  } else {
    state_ = State::no_call;
  }
  return true;
}

// --- JSON: one byte after the other; only the top level's members are told apart.

void ToolCallReader::fail_json() {
  state_ = begun_ ? State::broken : State::no_call;
}

bool ToolCallReader::read_json(std::string& text, Parts& parts) {
  size_t at = 0;
  const bool streamed = streams_ && state_ == State::value;
  size_t stream_begin = streamed ? 0 : std::string::npos;
  const auto flush = [&] {
    if (stream_begin != std::string::npos)
      arguments(std::string_view(text).substr(stream_begin, at - stream_begin), parts);
    stream_begin = std::string::npos;
  };
  for (bool goes_on = true; goes_on && at < text.size();) {
    const char c = text[at];
    switch (state_) {
      case State::key_or_end:
        ++at;
        read_key_or_end(c, parts);
        break;
      case State::key:
      case State::value:
        if (read_value(c)) {
          flush();
          end_value(parts);
        } else {
          ++at;
          // A string or a list ends with its last byte.
          if (!in_string_ && depth_ == 0 && !is_scalar_) {
            flush();
            end_value(parts);
          }
        }
        break;
      case State::colon:
        ++at;
        if (c == ':')
          state_ = State::value_start;
        else if (!is_blank(c))
          fail_json();
        break;
      case State::value_start:
        if (is_blank(c)) {
          ++at;
          break;
        }
        read_value_start(c);
        if (state_ == State::value && streams_) stream_begin = at;
        break;
      default:
        goes_on = false;
    }
  }
  flush();
  const bool was_more = at == text.size();
  take(text, at);
  return !was_more || state_ == State::done || state_ == State::no_call || state_ == State::broken;
}

void ToolCallReader::read_key_or_end(char c, Parts& parts) {
  if (is_blank(c) || c == ',') return;
  if (c == '"') {
    value_ = "\"";
    in_string_ = true;
    escaped_ = is_scalar_ = streams_ = false;
    depth_ = 0;
    state_ = State::key;
  } else if (c == '}' && begun_) {
    if (!has_arguments_) arguments("{}", parts);
    state_ = State::done;
  } else {
    fail_json();
  }
}

void ToolCallReader::read_value_start(char c) {
  value_.clear();
  in_string_ = escaped_ = false;
  depth_ = 0;
  const bool opens = c == '"' || c == '{' || c == '[';
  is_scalar_ = !opens;
  const bool is_arguments = key_ == "arguments" || key_ == "parameters";
  // A string holds its JSON escaped: it is told when it is whole.
  streams_ = is_arguments && begun_ && !has_arguments_ && c != '"';
  if (streams_) has_arguments_ = true;
  if (c == ',' || c == '}' || c == ']' || c == ':')
    fail_json();
  else
    state_ = State::value;
}

bool ToolCallReader::read_value(char c) {
  if (in_string_) {
    if (escaped_)
      escaped_ = false;
    else if (c == '\\')
      escaped_ = true;
    else if (c == '"')
      in_string_ = false;
  } else if (is_scalar_) {
    if (is_blank(c) || c == ',' || c == '}') return true;
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (c == '}' || c == ']') {
    --depth_;
  }
  if (!streams_) value_ += c;
  return false;
}

void ToolCallReader::end_value(Parts& parts) {
  const bool is_key = std::exchange(state_, State::key_or_end) == State::key;
  if (std::exchange(streams_, false)) return;
  try {
    if (is_key) {
      key_ = json::parse(value_, "key").as_string();
      state_ = State::colon;
    } else if (key_ == "name" && !begun_) {
      begin(json::parse(value_, "name").as_string(), parts);
      consumed_.clear();
      arguments(arguments_, parts);
    } else if ((key_ == "arguments" || key_ == "parameters") && !has_arguments_) {
      const json::Value value = json::parse(value_, "arguments");
      has_arguments_ = true;
      const std::string whole = value.is_string() ? value.as_string() : value_;
      if (begun_)
        arguments(whole, parts);
      else
        arguments_ = whole;
    }
  } catch (const Error&) {
    fail_json();
  }
  value_.clear();
}

bool ToolCallReader::read_broken(std::string& text) {
  const size_t end = tag_begin(text, call_end);
  take(text, end);
  if (!text.starts_with(call_end)) return false;
  state_ = State::done;
  return true;
}

// --- XML

bool ToolCallReader::read_function_name(std::string& text, Parts& parts) {
  const size_t end = text.find_first_of(">\n");
  if (std::min(end, text.size()) > longest_name ||
      (end != std::string::npos && text[end] == '\n')) {
    state_ = State::no_call;
    return true;
  }
  if (end == std::string::npos) return false;
  const std::string name(trim(std::string_view(text).substr(0, end)));
  begin(name, parts);
  take(text, end + 1);
  state_ = State::parameter_or_end;
  return true;
}

bool ToolCallReader::read_parameter_or_end(std::string& text, Parts& parts) {
  if (!skip_blank(text)) return false;
  const TagMatch another = match_tag(text, parameter);
  const TagMatch last = match_tag(text, function_end);
  const TagMatch missing = match_tag(text, call_end);
  if (another == TagMatch::yes) {
    take(text, parameter.size());
    state_ = State::parameter_name;
  } else if (last == TagMatch::yes || missing == TagMatch::yes) {
    if (last == TagMatch::yes) take(text, function_end.size());
    arguments(has_arguments_ ? "}" : "{}", parts);
    state_ = State::done;
  } else if (another == TagMatch::maybe || last == TagMatch::maybe || missing == TagMatch::maybe) {
    return false;
  } else {
    take(text, 1);  // what belongs to no parameter is dropped
  }
  return true;
}

bool ToolCallReader::read_parameter_name(std::string& text, Parts& parts) {
  const size_t end = text.find('>');
  if (std::min(end, text.size()) > longest_name) {
    state_ = State::parameter_or_end;
    return true;
  }
  if (end == std::string::npos) return false;
  key_ = trim(std::string_view(text).substr(0, end));
  take(text, end + 1);
  arguments(std::exchange(has_arguments_, true) ? ", " : "{", parts);
  arguments(json_text(key_) + ": ", parts);
  state_ = State::parameter_start;
  return true;
}

// The line end behind the name is none of the value's.
bool ToolCallReader::read_parameter_start(std::string& text, Parts& parts) {
  if (text.empty()) return false;
  if (text.front() == '\n') take(text, 1);
  value_.clear();
  held_line_end_ = false;
  const bool is_text = schemas_.is_text(name_, key_);
  if (is_text) arguments("\"", parts);
  state_ = is_text ? State::parameter_text : State::parameter_value;
  return true;
}

bool ToolCallReader::read_parameter_text(std::string& text, Parts& parts) {
  const size_t end = tag_begin(text, parameter_end);
  std::string piece = (held_line_end_ && end > 0 ? "\n" : "") + text.substr(0, end);
  if (end > 0) {
    held_line_end_ = piece.ends_with('\n');
    if (held_line_end_) piece.pop_back();
    const std::string quoted = json_text(piece);
    arguments(std::string_view(quoted).substr(1, quoted.size() - 2), parts);
  }
  take(text, end);
  if (text.starts_with(parameter_end)) {
    take(text, parameter_end.size());
    arguments("\"", parts);
    state_ = State::parameter_or_end;
    return true;
  }
  return false;
}

bool ToolCallReader::read_parameter_value(std::string& text, Parts& parts) {
  const size_t end = tag_begin(text, parameter_end);
  value_.append(text, 0, end);
  take(text, end);
  if (!text.starts_with(parameter_end)) return false;
  take(text, parameter_end.size());
  arguments(value_json(value_), parts);
  state_ = State::parameter_or_end;
  return true;
}

}  // namespace qnext
