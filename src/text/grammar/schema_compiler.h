// How json_schema.h is done: what the pieces of one schema compiler share.
//
// A value is judged by a conjunction: a list of schemas that must all hold. $ref and allOf add to
// the list; anyOf and oneOf make it several lists, one for each choice. Of the resulting lists each
// type of value is made from the keywords of all members. A list that has been met before is the
// same rule, which ends recursion.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/grammar/json_rules.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/number_automaton.h"
#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

class SchemaCompiler {
 public:
  SchemaCompiler(JsonRules& rules, const json::Value& root, std::string name);
  int32_t whole();
  std::vector<SchemaMember> members();

 private:
  struct Part {
    const json::Value* schema = nullptr;
    std::string path;
    // Its $ref, allOf, anyOf and oneOf have been taken out of it.
    bool bare = false;
  };
  using Parts = std::vector<Part>;
  struct Choice {
    std::vector<Part> options;
  };
  struct Expanded {
    Parts parts;  // bare, and none that says nothing
    std::vector<Choice> choices;
  };
  enum Type : unsigned {
    null_type = 1,
    boolean_type = 2,
    integer_type = 4,
    number_type = 8,
    string_type = 16,
    array_type = 32,
    object_type = 64,
    all_types = 127,
  };

  [[noreturn]] void refuse(const Part& part, std::string_view problem) const;
  const json::Value* find(const Part& part, const char* keyword) const;
  Part child(const Part& part, const char* keyword) const;
  Part property(const Part& part, const std::string& key) const;
  void check_schema(const Part& part) const;
  Part item(const Part& part, const char* keyword, size_t index) const;
  std::optional<int64_t> count(const Part& part, const char* keyword) const;

  // json_schema.cpp: what must hold together.
  int32_t rule_for(const Parts& parts);
  void compile(int32_t rule, const Parts& parts);
  void expand(const Part& part, std::vector<const json::Value*>& chain, Expanded& out);
  void check_keywords(const Part& part) const;
  Part resolve(const Part& part, const std::string& reference) const;
  void check_exclusive(const Part& part) const;
  bool cannot_both_hold(const json::Value& a, const json::Value& b) const;
  const json::Value& behind_reference(const json::Value& schema) const;
  unsigned types_of(const Part& part) const;
  unsigned types_of(const Parts& parts) const;
  bool says(const Parts& parts, unsigned type) const;

  // schema_values.cpp: one type each.
  void compile_types(int32_t rule, const Parts& parts, unsigned types);
  void compile_values(int32_t rule, const Parts& parts, unsigned types,
                      const std::vector<json::Value>& values);
  std::optional<std::vector<json::Value>> listed_values(const Parts& parts) const;
  void compile_string(int32_t rule, const Parts& parts);
  // Of the keywords of strings; nothing where there are none. `counted`: of lengths alone.
  std::optional<TextAutomaton> string_automaton(const Parts& parts,
                                                std::optional<Counted>* counted) const;
  NumberLimits number_limits(const Parts& parts) const;
  void compile_number(int32_t rule, const Parts& parts, bool whole);
  bool holds(const json::Value& value, const Parts& parts, unsigned types) const;

  // schema_containers.cpp
  struct KeyClass {
    TextAutomaton keys;
    Parts parts;
  };
  void compile_array(int32_t rule, const Parts& parts);
  struct Members {
    std::vector<std::string> keys;
    std::vector<std::string> required;
    int64_t least = 0;
    int64_t most = 0;
  };
  Members members_of(const Parts& parts) const;
  std::optional<TextAutomaton> text_of(const Parts& parts);
  void compile_object(int32_t rule, const Parts& parts);
  TextAutomaton pattern_of(const Part& part, const std::string& pattern) const;
  Parts parts_for_key(const Parts& parts, const std::string& key) const;
  std::vector<KeyClass> key_classes(const Parts& parts, const std::vector<std::string>& declared);
  std::optional<TextAutomaton> key_limits(const Parts& parts);
  Parts parts_for_item(const Parts& parts, size_t index) const;

  JsonRules& rules_;
  GrammarBuilder& builder_;
  const json::Value& root_;
  std::string name_;
  std::map<std::vector<std::pair<const json::Value*, bool>>, int32_t> known_;
};

}  // namespace qnext::grammar
