// Arrays and objects.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "text/grammar/regular_expression.h"
#include "text/grammar/schema_compiler.h"

namespace qnext::grammar {
namespace {

constexpr size_t most_patterns = 6;
constexpr int64_t no_limit = std::numeric_limits<int64_t>::max();
constexpr int64_t most_counted = 100'000;

}  // namespace

TextAutomaton SchemaCompiler::pattern_of(const Part& part, const std::string& pattern) const {
  try {
    return regular_expression(pattern);
  } catch (const Error& error) {
    refuse(part, fmt::format("pattern {}: {}", pattern, error.what()));
  }
}

// --- arrays -----------------------------------------------------------------------------------

namespace {

// The list of schemas for the first items, by its name of today or of draft 7.
const char* prefix_keyword(const json::Value& schema) {
  if (schema.find("prefixItems")) return "prefixItems";
  const json::Value* items = schema.find("items");
  return items && items->is_array() ? "items" : nullptr;
}

}  // namespace

SchemaCompiler::Parts SchemaCompiler::parts_for_item(const Parts& parts, size_t index) const {
  Parts result;
  for (const Part& part : parts) {
    const char* prefix = prefix_keyword(*part.schema);
    if (prefix && !find(part, prefix)->is_array())
      refuse(part, fmt::format("{} must be a list", prefix));
    if (prefix && index < find(part, prefix)->as_array().size()) {
      result.push_back(item(part, prefix, index));
      continue;
    }
    const bool is_draft_7 = prefix && std::string_view(prefix) == "items";
    const char* rest = is_draft_7 ? "additionalItems" : "items";
    if (find(part, rest)) result.push_back(child(part, rest));
  }
  return result;
}

void SchemaCompiler::compile_array(int32_t rule, const Parts& parts) {
  int64_t least = 0;
  int64_t most = no_limit;
  int64_t prefix = 0;
  for (const Part& part : parts) {
    least = std::max(least, count(part, "minItems").value_or(0));
    most = std::min(most, count(part, "maxItems").value_or(no_limit));
    if (const char* keyword = prefix_keyword(*part.schema);
        keyword && find(part, keyword)->is_array())
      prefix = std::max(prefix, std::ssize(find(part, keyword)->as_array()));
  }
  for (const Part& part : parts) {
    const json::Value* unique = find(part, "uniqueItems");
    if (unique && *unique != json::Value(false) && most > 1)
      refuse(part, "uniqueItems cannot be enforced");
  }
  const int64_t counted = std::max({prefix, least, most == no_limit ? 0 : most, int64_t{1}});
  if (counted > most_counted)
    refuse(parts[0], fmt::format("more than {} items cannot be counted", most_counted));
  const int32_t from = builder_.rule_start(rule);
  const int32_t to = builder_.rule_end(rule);
  // State i: i items have been read and one more is begun, or the list is closed.
  int32_t at = builder_.state();
  rules_.open(from, '[', at);
  if (least == 0) builder_.literal(at, "]", to);
  for (int64_t i = 0; i < most; ++i) {
    const bool loops = i >= counted;  // nothing is left to count
    const Parts judged = parts_for_item(parts, static_cast<size_t>(i));
    const int32_t value = judged.empty() ? rules_.any_value() : rule_for(judged);
    const int32_t behind = builder_.state();
    builder_.call(at, value, behind);
    if (i + 1 >= least) rules_.close(behind, ']', to);
    if (loops) {
      rules_.comma(behind, at);
      break;
    }
    if (i + 1 == most) break;
    const int32_t next = builder_.state();
    rules_.comma(behind, next);
    at = next;
  }
}

// --- objects ----------------------------------------------------------------------------------

// What each schema says of the member: its property, and the patterns that its key meets; only
// where it has none of these, additionalProperties.
SchemaCompiler::Parts SchemaCompiler::parts_for_key(const Parts& parts,
                                                    const std::string& key) const {
  Parts result;
  for (const Part& part : parts) {
    bool is_named = false;
    const json::Value* properties = find(part, "properties");
    if (properties && properties->find(key)) {
      result.push_back(property(part, key));
      is_named = true;
    }
    if (const json::Value* patterns = find(part, "patternProperties"))
      for (const auto& [pattern, schema] : patterns->as_object()) {
        if (!pattern_of(part, pattern).accepts(key)) continue;
        result.push_back({&schema, part.path + "/patternProperties/" + pattern});
        is_named = true;
      }
    if (!is_named && find(part, "additionalProperties"))
      result.push_back(child(part, "additionalProperties"));
  }
  return result;
}

// What propertyNames allows.
std::optional<TextAutomaton> SchemaCompiler::key_limits(const Parts& parts) {
  std::optional<TextAutomaton> all;
  for (const Part& part : parts) {
    if (!find(part, "propertyNames")) continue;
    Expanded names;
    std::vector<const json::Value*> chain;
    const Part schema = child(part, "propertyNames");
    expand(schema, chain, names);
    if (!names.choices.empty()) refuse(schema, "a choice of propertyNames cannot be enforced");
    const bool is_false = std::any_of(names.parts.begin(), names.parts.end(),
                                      [](const Part& one) { return one.schema->is_bool(); });
    TextAutomaton allowed = TextAutomaton::anything();
    if (is_false || !(types_of(names.parts) & string_type))
      allowed = {};
    else if (const auto limits = string_automaton(names.parts, nullptr))
      allowed = *limits;
    if (!is_false) {
      if (const auto values = listed_values(names.parts)) {
        std::vector<std::string> texts;
        for (const json::Value& value : *values)
          if (value.is_string()) texts.push_back(value.as_string());
        allowed = allowed & TextAutomaton::one_of(texts);
      }
    }
    all = all ? *all & allowed : allowed;
  }
  return all;
}

// Keys that no schema declares, in classes that are judged alike.
std::vector<SchemaCompiler::KeyClass> SchemaCompiler::key_classes(
    const Parts& parts, const std::vector<std::string>& declared) {
  struct Pattern {
    size_t part;
    const json::Value* schema;
    std::string path;
    TextAutomaton keys;
  };
  std::vector<Pattern> patterns;
  for (size_t i = 0; i < parts.size(); ++i)
    if (const json::Value* list = find(parts[i], "patternProperties"))
      for (const auto& [pattern, schema] : list->as_object())
        patterns.push_back({i, &schema, parts[i].path + "/patternProperties/" + pattern,
                            pattern_of(parts[i], pattern)});
  if (patterns.size() > most_patterns)
    refuse(parts[0], fmt::format("more than {} patternProperties cannot be enforced together",
                                 most_patterns));
  struct Split {
    TextAutomaton keys;
    std::vector<const Pattern*> met;
  };
  std::vector<Split> splits;
  TextAutomaton undeclared = TextAutomaton::anything() - TextAutomaton::one_of(declared);
  splits.push_back({std::move(undeclared), {}});
  for (const Pattern& pattern : patterns) {
    std::vector<Split> next;
    for (const Split& split : splits) {
      Split with{split.keys & pattern.keys, split.met};
      with.met.push_back(&pattern);
      if (!with.keys.empty()) next.push_back(std::move(with));
      Split without{split.keys - pattern.keys, split.met};
      if (!without.keys.empty()) next.push_back(std::move(without));
    }
    splits = std::move(next);
  }
  std::vector<KeyClass> classes;
  for (Split& split : splits) {
    KeyClass made{std::move(split.keys), {}};
    for (size_t i = 0; i < parts.size(); ++i) {
      bool is_met = false;
      for (const Pattern* pattern : split.met) {
        if (pattern->part != i) continue;
        made.parts.push_back({pattern->schema, pattern->path});
        is_met = true;
      }
      if (!is_met && find(parts[i], "additionalProperties"))
        made.parts.push_back(child(parts[i], "additionalProperties"));
    }
    const bool is_forbidden = std::any_of(
        made.parts.begin(), made.parts.end(),
        [](const Part& part) { return part.schema->is_bool() && !part.schema->as_bool(); });
    if (!is_forbidden) classes.push_back(std::move(made));
  }
  return classes;
}

SchemaCompiler::Members SchemaCompiler::members_of(const Parts& parts) const {
  Members members;
  members.most = no_limit;
  const auto add = [](std::vector<std::string>& list, const std::string& key) {
    if (std::find(list.begin(), list.end(), key) == list.end()) list.push_back(key);
  };
  for (const Part& part : parts) {
    for (const char* keyword : {"properties", "patternProperties"})
      if (find(part, keyword) && !find(part, keyword)->is_object())
        refuse(part, fmt::format("{} must be an object", keyword));
    if (const json::Value* properties = find(part, "properties"))
      for (const auto& [key, schema] : properties->as_object()) add(members.keys, key);
    members.least = std::max(members.least, count(part, "minProperties").value_or(0));
    members.most = std::min(members.most, count(part, "maxProperties").value_or(no_limit));
    const json::Value* list = find(part, "required");
    if (!list || list->is_bool()) continue;  // draft 3
    if (!list->is_array()) refuse(part, "required must be a list");
    for (const json::Value& key : list->as_array()) {
      if (!key.is_string()) refuse(part, "required must be a list of strings");
      add(members.required, key.as_string());
    }
  }
  for (const std::string& key : members.required) add(members.keys, key);
  return members;
}

// The strings that the schemas allow; nothing where other values are allowed too.
std::optional<TextAutomaton> SchemaCompiler::text_of(const Parts& parts) {
  Expanded expanded;
  for (const Part& part : parts) {
    std::vector<const json::Value*> chain;
    expand(part, chain, expanded);
  }
  const bool is_false = std::any_of(expanded.parts.begin(), expanded.parts.end(),
                                    [](const Part& part) { return part.schema->is_bool(); });
  if (is_false || !expanded.choices.empty()) return std::nullopt;
  if (types_of(expanded.parts) != string_type) return std::nullopt;
  if (const auto values = listed_values(expanded.parts)) {
    std::vector<std::string> texts;
    for (const json::Value& value : *values)
      if (holds(value, expanded.parts, string_type)) texts.push_back(value.as_string());
    return TextAutomaton::one_of(texts);
  }
  auto limited = string_automaton(expanded.parts, nullptr);
  return limited ? std::move(*limited) : TextAutomaton::anything();
}

std::vector<SchemaMember> SchemaCompiler::members() {
  const Part root{&root_, "#"};
  Expanded expanded;
  std::vector<const json::Value*> chain;
  expand(root, chain, expanded);
  const Members members = members_of(expanded.parts);
  const bool counts =
      members.least > std::ssize(members.required) || members.most < std::ssize(members.keys);
  if (!expanded.choices.empty() || counts || key_limits(expanded.parts))
    refuse(root, "its members are not free of each other, as the XML form of calls needs");
  if (!(types_of(expanded.parts) & object_type)) refuse(root, "it allows no object");
  std::vector<SchemaMember> result;
  for (const std::string& key : members.keys) {
    const Parts judged = parts_for_key(expanded.parts, key);
    const bool is_required =
        std::find(members.required.begin(), members.required.end(), key) != members.required.end();
    result.push_back({key, is_required, judged.empty() ? rules_.any_value() : rule_for(judged),
                      text_of(judged)});
  }
  return result;
}

void SchemaCompiler::compile_object(int32_t rule, const Parts& parts) {
  auto [keys, required, least, most] = members_of(parts);
  std::vector<KeyClass> others = key_classes(parts, keys);
  if (const auto limits = key_limits(parts)) {
    for (KeyClass& one : others) one.keys = one.keys & *limits;
    std::erase_if(others, [](const KeyClass& one) { return one.keys.empty(); });
    // A required key that may not be leaves no value; an optional one is never written.
    for (const std::string& key : required)
      if (!limits->accepts(key)) return;
    std::erase_if(keys, [&](const std::string& key) { return !limits->accepts(key); });
  }
  // Of keys that nobody counts apart, one may come twice.
  const auto needed = static_cast<int64_t>(required.size());
  if (!others.empty() && least > std::max(needed, int64_t{1}))
    refuse(parts[0], "minProperties can be enforced where the other members are declared");

  const int64_t counted = most == no_limit ? std::max(least, int64_t{1}) : most;
  if (most == 0 && needed > 0) return;
  if (counted * (std::ssize(keys) + 1) > most_counted)
    refuse(parts[0], "so many members cannot be counted");
  std::vector<int32_t> members;
  std::vector<bool> is_required;
  for (const std::string& key : keys) {
    const Parts judged = parts_for_key(parts, key);
    members.push_back(rules_.member(key, judged.empty() ? rules_.any_value() : rule_for(judged)));
    is_required.push_back(std::find(required.begin(), required.end(), key) != required.end());
  }
  std::vector<int32_t> other_members;
  for (const KeyClass& one : others) {
    const int32_t member = builder_.rule();
    const int32_t behind = builder_.state();
    const int32_t before = builder_.state();
    rules_.quoted(builder_.rule_start(member), one.keys, keys.empty() && others.size() == 1,
                  behind);
    rules_.colon(behind, before);
    builder_.call(before, one.parts.empty() ? rules_.any_value() : rule_for(one.parts),
                  builder_.rule_end(member));
    other_members.push_back(member);
  }

  const int32_t to = builder_.rule_end(rule);
  const size_t last = keys.size();
  // Behind `i` keys with so many members: another member follows (next), or one has ended (behind).
  const auto columns = static_cast<size_t>(counted) + 1;
  std::vector<int32_t> next((last + 1) * columns);
  std::vector<int32_t> behind((last + 1) * columns);
  for (int32_t& state : next) state = builder_.state();
  for (int32_t& state : behind) state = builder_.state();
  bool may_end = true;  // no required key is left
  for (size_t i = last + 1; i-- > 0;) {
    if (i < last && is_required[i]) may_end = false;
    for (size_t had = 0; had < columns; ++had) {
      const size_t here = i * columns + had;
      const bool is_enough = may_end && static_cast<int64_t>(had) >= least;
      if (is_enough) rules_.close(behind[here], '}', to);
      const bool is_full = most != no_limit && static_cast<int64_t>(had) >= most;
      if (is_full) continue;
      if (had > 0) rules_.comma(behind[here], next[here]);
      const size_t more = std::min(had + 1, columns - 1);
      if (i == last) {
        for (const int32_t member : other_members)
          builder_.call(next[here], member, behind[i * columns + more]);
        continue;
      }
      builder_.call(next[here], members[i], behind[(i + 1) * columns + more]);
      if (!is_required[i]) builder_.empty(next[here], next[here + columns]);
    }
  }
  const int32_t first = builder_.state();
  rules_.open(builder_.rule_start(rule), '{', first);
  builder_.empty(first, next[0]);
  if (may_end && least == 0) builder_.literal(first, "}", to);
}

}  // namespace qnext::grammar
