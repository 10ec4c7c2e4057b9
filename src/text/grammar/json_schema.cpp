#include "text/grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "text/grammar/schema_compiler.h"

namespace qnext::grammar {
namespace {

// Of anyOf beside anyOf each combination becomes a rule.
constexpr size_t most_combinations = 1000;

constexpr std::array<std::string_view, 15> refused_keywords = {"not",
                                                               "if",
                                                               "dependentRequired",
                                                               "dependentSchemas",
                                                               "dependencies",
                                                               "contains",
                                                               "minContains",
                                                               "maxContains",
                                                               "unevaluatedProperties",
                                                               "unevaluatedItems",
                                                               "$dynamicRef",
                                                               "$recursiveRef",
                                                               "extends",
                                                               "disallow",
                                                               "divisibleBy"};

// Those that constrain values by themselves.
constexpr std::array<std::string_view, 24> value_keywords = {"type",
                                                             "enum",
                                                             "const",
                                                             "properties",
                                                             "required",
                                                             "additionalProperties",
                                                             "patternProperties",
                                                             "propertyNames",
                                                             "minProperties",
                                                             "maxProperties",
                                                             "items",
                                                             "prefixItems",
                                                             "additionalItems",
                                                             "minItems",
                                                             "maxItems",
                                                             "uniqueItems",
                                                             "minLength",
                                                             "maxLength",
                                                             "pattern",
                                                             "format",
                                                             "minimum",
                                                             "maximum",
                                                             "exclusiveMinimum",
                                                             "exclusiveMaximum"};

// One token of a JSON pointer, as written in a URI fragment.
std::string pointer_token(std::string_view text) {
  std::string token;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      token += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else if (text[i] == '~' && i + 1 < text.size()) {
      token += text[++i] == '0' ? '~' : '/';
    } else {
      token += text[i];
    }
  }
  return token;
}

}  // namespace

int32_t schema_rule(JsonRules& rules, const json::Value& schema, const std::string& name) {
  return SchemaCompiler(rules, schema, name).whole();
}

std::vector<SchemaMember> schema_members(JsonRules& rules, const json::Value& schema,
                                         const std::string& name) {
  return SchemaCompiler(rules, schema, name).members();
}

SchemaCompiler::SchemaCompiler(JsonRules& rules, const json::Value& root, std::string name)
    : rules_(rules), builder_(rules.builder()), root_(root), name_(std::move(name)) {}

int32_t SchemaCompiler::whole() {
  return rule_for({{&root_, "#"}});
}

void SchemaCompiler::refuse(const Part& part, std::string_view problem) const {
  fail("{}{}: {}", name_, part.path, problem);
}

const json::Value* SchemaCompiler::find(const Part& part, const char* keyword) const {
  return part.schema->find(keyword);
}

void SchemaCompiler::check_schema(const Part& part) const {
  if (!part.schema->is_object() && !part.schema->is_bool())
    refuse(part, "a schema must be an object, true or false");
}

SchemaCompiler::Part SchemaCompiler::child(const Part& part, const char* keyword) const {
  Part made{find(part, keyword), part.path + "/" + keyword};
  check_schema(made);
  return made;
}

SchemaCompiler::Part SchemaCompiler::property(const Part& part, const std::string& key) const {
  Part made{find(part, "properties")->find(key), part.path + "/properties/" + key};
  check_schema(made);
  return made;
}

SchemaCompiler::Part SchemaCompiler::item(const Part& part, const char* keyword,
                                          size_t index) const {
  Part made{&find(part, keyword)->as_array()[index],
            fmt::format("{}/{}/{}", part.path, keyword, index)};
  check_schema(made);
  return made;
}

std::optional<int64_t> SchemaCompiler::count(const Part& part, const char* keyword) const {
  const json::Value* value = find(part, keyword);
  if (!value) return std::nullopt;
  const bool is_whole =
      value->is_integer() ||
      (value->is_float() && value->as_double() >= 0 && value->as_double() < 1e15 &&
       value->as_double() == static_cast<double>(static_cast<int64_t>(value->as_double())));
  if (!is_whole || value->as_integer() < 0)
    refuse(part, fmt::format("{} must be a whole number that is not negative", keyword));
  return value->as_integer();
}

int32_t SchemaCompiler::rule_for(const Parts& parts) {
  std::vector<std::pair<const json::Value*, bool>> key;
  Parts distinct;
  for (const Part& part : parts) {
    const std::pair<const json::Value*, bool> one{part.schema, part.bare};
    if (std::find(key.begin(), key.end(), one) != key.end()) continue;
    key.push_back(one);
    distinct.push_back(part);
  }
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  const int32_t rule = builder_.rule();
  known_.emplace(std::move(key), rule);
  compile(rule, distinct);
  return rule;
}

void SchemaCompiler::compile(int32_t rule, const Parts& parts) {
  Expanded expanded;
  for (const Part& part : parts) {
    std::vector<const json::Value*> chain;
    expand(part, chain, expanded);
  }
  size_t combinations = 1;
  for (const Choice& choice : expanded.choices) {
    combinations *= choice.options.size();
    if (combinations > most_combinations)
      refuse(parts[0],
             fmt::format("its anyOf and oneOf combine in more than {} ways", most_combinations));
  }
  if (expanded.choices.empty()) {
    for (const Part& part : expanded.parts)
      if (part.schema->is_bool()) return;  // false
    return compile_types(rule, expanded.parts, types_of(expanded.parts));
  }
  for (size_t i = 0; i < combinations; ++i) {
    Parts all = expanded.parts;
    size_t rest = i;
    for (const Choice& choice : expanded.choices) {
      all.push_back(choice.options[rest % choice.options.size()]);
      rest /= choice.options.size();
    }
    builder_.call(builder_.rule_start(rule), rule_for(all), builder_.rule_end(rule));
  }
}

void SchemaCompiler::expand(const Part& part, std::vector<const json::Value*>& chain,
                            Expanded& out) {
  const json::Value& schema = *part.schema;
  if (schema.is_bool()) {
    if (!schema.as_bool()) out.parts.push_back({part.schema, part.path, true});
    return;
  }
  check_schema(part);
  const bool says_something =
      std::any_of(schema.as_object().begin(), schema.as_object().end(), [](const auto& entry) {
        return entry.first == "multipleOf" ||
               std::find(value_keywords.begin(), value_keywords.end(), entry.first) !=
                   value_keywords.end();
      });
  if (part.bare) {
    if (says_something) out.parts.push_back(part);
    return;
  }
  if (std::find(chain.begin(), chain.end(), part.schema) != chain.end())
    refuse(part, "it refers to itself without end");
  check_keywords(part);
  chain.push_back(part.schema);
  if (says_something) out.parts.push_back({part.schema, part.path, true});
  if (const json::Value* reference = find(part, "$ref")) {
    if (!reference->is_string()) refuse(part, "$ref must be a string");
    expand(resolve(part, reference->as_string()), chain, out);
  }
  const auto list = [&](const char* keyword) -> size_t {
    const json::Value* value = find(part, keyword);
    if (!value) return 0;
    if (!value->is_array() || value->as_array().empty())
      refuse(part, fmt::format("{} must be a list of schemas that is not empty", keyword));
    return value->as_array().size();
  };
  for (size_t i = 0, all = list("allOf"); i < all; ++i) expand(item(part, "allOf", i), chain, out);
  for (const char* keyword : {"anyOf", "oneOf"}) {
    const size_t options = list(keyword);
    if (options == 0) continue;
    Choice choice;
    for (size_t i = 0; i < options; ++i) choice.options.push_back(item(part, keyword, i));
    out.choices.push_back(std::move(choice));
    if (std::string_view(keyword) == "oneOf") check_exclusive(part);
  }
  chain.pop_back();
}

void SchemaCompiler::check_keywords(const Part& part) const {
  for (const std::string_view keyword : refused_keywords)
    if (part.schema->find(keyword)) refuse(part, fmt::format("{} cannot be enforced", keyword));
  const json::Value* id = find(part, "$id");
  // Within it "#" would be another document.
  if (id && part.schema != &root_) refuse(part, "$id cannot be followed below the root");
}

SchemaCompiler::Part SchemaCompiler::resolve(const Part& part, const std::string& reference) const {
  if (reference != "#" && !reference.starts_with("#/"))
    refuse(part, fmt::format("$ref {}: only places of the same document can be followed (#/...)",
                             reference));
  const json::Value* at = &root_;
  for (size_t begin = 1; begin < reference.size();) {
    const size_t end = std::min(reference.find('/', begin + 1), reference.size());
    const std::string token =
        pointer_token(std::string_view(reference).substr(begin + 1, end - begin - 1));
    const json::Value* next = at->find(token);
    const bool is_index = at->is_array() && !token.empty() && token.size() < 7 &&
                          token.find_first_not_of("0123456789") == std::string::npos;
    if (is_index) {
      const auto index = static_cast<size_t>(std::stoul(token));
      if (index < at->as_array().size()) next = &at->as_array()[index];
    }
    if (!next) refuse(part, fmt::format("$ref {} leads nowhere", reference));
    at = next;
    begin = end;
  }
  return {at, reference};
}

// --- oneOf ----------------------------------------------------------------------------------

const json::Value& SchemaCompiler::behind_reference(const json::Value& schema) const {
  const json::Value* at = &schema;
  for (int i = 0; i < 32; ++i) {
    const json::Value* reference = at->find("$ref");
    if (!reference || !reference->is_string()) break;
    at = resolve({at, "#"}, reference->as_string()).schema;
  }
  return *at;
}

// Whether something that both name keeps them apart: their types, their values, or a member that
// one requires and the other forbids or judges so.
bool SchemaCompiler::cannot_both_hold(const json::Value& first, const json::Value& second) const {
  const json::Value& a = behind_reference(first);
  const json::Value& b = behind_reference(second);
  if (a.is_bool() || b.is_bool()) return a == json::Value(false) || b == json::Value(false);
  unsigned types_a = types_of(Part{&a, "#"});
  unsigned types_b = types_of(Part{&b, "#"});
  if (types_a & number_type) types_a |= integer_type;
  if (types_b & number_type) types_b |= integer_type;
  if ((types_a & types_b) == 0) return true;
  const auto values = [](const json::Value& schema) -> std::optional<json::Array> {
    if (const json::Value* value = schema.find("const")) return json::Array{*value};
    const json::Value* list = schema.find("enum");
    if (!list || !list->is_array()) return std::nullopt;
    return list->as_array();
  };
  const auto values_a = values(a);
  const auto values_b = values(b);
  if (values_a && values_b) {
    return std::none_of(values_b->begin(), values_b->end(), [&](const json::Value& value) {
      return holds(value, {Part{&a, "#", true}}, all_types);
    });
  }
  if ((types_a & types_b) != object_type) return false;
  const auto requires_key = [](const json::Value& schema, const std::string& key) {
    const json::Value* required = schema.find("required");
    if (!required || !required->is_array()) return false;
    const json::Array& keys = required->as_array();
    return std::find(keys.begin(), keys.end(), json::Value(key)) != keys.end();
  };
  const auto property = [](const json::Value& schema, const std::string& key) {
    const json::Value* properties = schema.find("properties");
    return properties ? properties->find(key) : nullptr;
  };
  const auto forbids = [&](const json::Value& schema, const std::string& key) {
    const json::Value* additional = schema.find("additionalProperties");
    return additional && *additional == json::Value(false) && !property(schema, key) &&
           !schema.find("patternProperties");
  };
  for (const auto& [one, other] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
    const json::Value* required = one->find("required");
    if (!required || !required->is_array()) continue;
    for (const json::Value& key : required->as_array()) {
      if (!key.is_string()) continue;
      const std::string& text = key.as_string();
      if (forbids(*other, text)) return true;
      const json::Value* here = property(*one, text);
      const json::Value* there = property(*other, text);
      if (here && there && requires_key(*other, text) && cannot_both_hold(*here, *there))
        return true;
    }
  }
  return false;
}

void SchemaCompiler::check_exclusive(const Part& part) const {
  const json::Array& options = find(part, "oneOf")->as_array();
  for (size_t i = 0; i < options.size(); ++i)
    for (size_t j = i + 1; j < options.size(); ++j)
      if (!cannot_both_hold(options[i], options[j]))
        refuse(part, fmt::format("oneOf: choices {} and {} may hold together as far as can be "
                                 "told: use anyOf, or name what keeps them apart",
                                 i, j));
}

}  // namespace qnext::grammar
