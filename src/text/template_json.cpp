// tojson as transformers defines it: json.dumps(value, ensure_ascii=False, ...).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_arithmetic.h"
#include "text/template_filters.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"

namespace qnext::jinja {

namespace {

class Writer {
 public:
  Writer(Runtime& runtime, const Arguments& arguments)
      : runtime_(runtime),
        bound_("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}) {
    ascii_ = bound_.flag(runtime, 0, false);
    pretty_ = bound_.given(1);
    if (pretty_)
      indent_ =
          bound_[1].is_string() ? bound_[1].text() : repeat(runtime, " ", bound_.integer(1, 0));
    between_items_ = pretty_ ? "," : ", ";
    if (bound_.given(2)) {
      const auto separators = to_vector(runtime, bound_[2]);
      if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
        fail("tojson needs two strings as 'separators'");
      between_items_ = separators[0].text();
      behind_key_ = separators[1].text();
    }
    sort_ = bound_.flag(runtime, 3, false);
  }

  std::string run(const Value& value) {
    write(value);
    return std::move(out_);
  }

 private:
  void write(const Value& value) {
    runtime_.step();
    runtime_.allocate(8);
    if (value.is_string())
      write_string(value.text());
    else if (value.is_sequence())
      write_list(value);
    else if (value.is_dict())
      write_dict(value.dict());
    else
      out_ += scalar(value);
  }

  std::string scalar(const Value& value) const {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.boolean() ? "true" : "false";
    if (const auto integer = value.integer()) return std::to_string(*integer);
    if (value.is_float()) return json::format_double(value.floating());
    if (value.is_undefined()) fail_undefined(value);
    fail("a '{}' cannot be written as JSON", value.type_name());
  }

  void write_string(const std::string& text) {
    runtime_.allocate(2 * text.size());
    json::append_string(out_, text, ascii_);
  }

  void new_line() {
    if (!pretty_) return;
    runtime_.allocate(depth_, indent_.size() + 1);
    out_ += '\n';
    for (int64_t i = 0; i < depth_; ++i) out_ += indent_;
  }

  void separate(bool first) {
    if (!first) {
      runtime_.allocate(between_items_.size());
      out_ += between_items_;
    }
    new_line();
  }

  void close(bool empty, char bracket) {
    --depth_;
    if (!empty) new_line();
    out_ += bracket;
  }

  void write_list(const Value& value) {
    runtime_.check_stack();
    out_ += '[';
    ++depth_;
    bool first = true;
    for (const Value& item : value.items()) {
      separate(first);
      first = false;
      write(item);
    }
    close(first, ']');
  }

  void write_dict(const Dict& dict) {
    runtime_.check_stack();
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    runtime_.step(static_cast<int64_t>(entries.size()));
    if (sort_)
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return less(runtime_, a->first, b->first);
      });
    out_ += '{';
    ++depth_;
    bool first = true;
    for (const auto* entry : entries) {
      separate(first);
      first = false;
      write_key(entry->first);
      runtime_.allocate(behind_key_.size());
      out_ += behind_key_;
      write(entry->second);
    }
    close(first, '}');
  }

  void write_key(const Value& key) {
    if (key.is_string())
      write_string(key.text());
    else
      write_string(scalar(key));
  }

  Runtime& runtime_;
  Bound bound_;
  bool ascii_ = false, pretty_ = false, sort_ = false;
  std::string indent_, between_items_, behind_key_ = ": ";
  int64_t depth_ = 0;
  std::string out_;
};

}  // namespace

Value filter_tojson(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return make_string(runtime, Writer(runtime, arguments).run(input));
}

}  // namespace qnext::jinja
