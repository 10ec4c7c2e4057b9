// One tool call of the family, read from what follows "<tool_call>" while it streams.
//
//   {"name": "f", "arguments": {"x": 1}}                                       JSON
//   <function=f>\n<parameter=x>\n1\n</parameter>\n</function>                  XML
//   (Qwen3-Coder, 3.5)
//
// Either way the call's arguments leave as JSON text, piece by piece. Of the JSON form they are
// what the model wrote. Of the XML form they are made here: a parameter that its schema calls a
// string streams as one; any other waits for its end and becomes the JSON that it is (a number, an
// object), or a string where it is none. A parameter ends at "</parameter>" and nowhere else, as
// code may hold any other tag.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace qnext {

struct AnswerPart {
  enum class Kind { reasoning, content, call_name, call_arguments };
  Kind kind = Kind::content;
  int call = 0;  // which call of the answer, from 0
  std::string text;
  bool operator==(const AnswerPart&) const = default;
};

// The types of the parameters that tools take.
class ToolSchemas {
 public:
  // `tools` as in a request: [{"type": "function", "function": {name, parameters}}].
  explicit ToolSchemas(const json::Array& tools);
  // Whether the parameter is a string and nothing else, or one that nothing is known of.
  bool is_text(const std::string& tool, const std::string& parameter) const;

 private:
  std::map<std::string, std::map<std::string, bool>> tools_;  // tool -> parameter -> is text
};

class ToolCallReader {
 public:
  enum class Status {
    more,     // text is needed
    done,     // the call is whole; what follows it is left
    no_call,  // it is in neither form; nothing was told of it
  };

  // `number`: AnswerPart::call. The schemas must outlive the reader.
  ToolCallReader(const ToolSchemas& schemas, int number);

  // Takes what it can from the front of `text` and adds what is certain to `parts`.
  Status read(std::string& text, std::vector<AnswerPart>& parts);
  // What it took, where the call has not begun.
  const std::string& consumed() const { return consumed_; }
  // Whether the call's name has been told.
  bool is_begun() const { return begun_; }
  // 1 at the first call of this after it was, else 0.
  int take_begun();

 private:
  enum class State {
    form,
    // JSON
    key_or_end,
    key,
    colon,
    value_start,
    value,
    broken,  // the name has been told, what follows is no JSON: dropped up to the end of the call
    // XML
    function_name,
    parameter_or_end,
    parameter_name,
    parameter_start,
    parameter_text,
    parameter_value,
    done,
    no_call,
  };
  using Parts = std::vector<AnswerPart>;

  bool advance(std::string& text, Parts& parts);
  void take(std::string& text, size_t count);
  bool skip_blank(std::string& text);
  void begin(const std::string& name, Parts& parts);
  void arguments(std::string_view text, Parts& parts);

  bool read_form(std::string& text);
  bool read_json(std::string& text, Parts& parts);
  void read_key_or_end(char c, Parts& parts);
  void read_value_start(char c);
  // Whether the value ends before this byte, and so does not hold it.
  bool read_value(char c);
  void end_value(Parts& parts);
  void fail_json();

  bool read_function_name(std::string& text, Parts& parts);
  bool read_parameter_or_end(std::string& text, Parts& parts);
  bool read_parameter_name(std::string& text, Parts& parts);
  bool read_parameter_start(std::string& text, Parts& parts);
  bool read_parameter_text(std::string& text, Parts& parts);
  bool read_parameter_value(std::string& text, Parts& parts);
  bool read_broken(std::string& text);

  const ToolSchemas& schemas_;
  int number_;
  State state_ = State::form;
  std::string consumed_;
  bool begun_ = false;
  bool begun_taken_ = false;

  std::string name_;       // of the function
  std::string key_;        // of a JSON member or a parameter
  std::string value_;      // of a member that is not streamed; its JSON text
  std::string arguments_;  // that came before the name
  bool has_arguments_ = false;
  bool streams_ = false;  // the value is the arguments, and the name is known
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool is_scalar_ = false;
  bool held_line_end_ = false;  // of a parameter: it belongs to the value unless the value ends
};

// Where `tag` begins in `text`, or where it may begin once more text has come; else the text's end.
size_t tag_begin(std::string_view text, std::string_view tag);

enum class TagMatch { yes, maybe, no };
// Whether `text` begins with `tag`, or may once more of it has come.
TagMatch match_tag(std::string_view text, std::string_view tag);

}  // namespace qnext
