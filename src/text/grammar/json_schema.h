// JSON Schema to grammar. Every schema is enforced exactly or refused by an Error of one line that
// names the place and the keyword: "#/properties/x: uniqueItems cannot be enforced".
//
// Enforced: type (lists too), enum, const, properties, required, additionalProperties,
// patternProperties, propertyNames, minProperties, maxProperties, items, prefixItems (and draft 7's
// list of items with additionalItems), minItems, maxItems, minLength, maxLength, pattern
// (regular_expression.h), format (string_formats.h), minimum, maximum, exclusiveMinimum,
// exclusiveMaximum, multipleOf (whole numbers up to 1,000, and powers of ten below 1), anyOf,
// allOf, oneOf where its choices cannot hold together, $ref within the document, recursion, true
// and false. Refused: not, if, dependentRequired and its kin, contains, uniqueItems, unevaluated*,
// $dynamicRef, other documents, formats that have no expression here.
// Notes for the reader (title, default, examples, $comment, formats unknown to JSON Schema, unknown
// keywords) constrain nothing, as the specification says.
//
// "Exactly" is about values. Each value that the schema allows can be written, with these limits of
// form: members come in the order of `properties`, those that the schema only requires next, others
// last; numbers have at most 18 digits on a side of the point, and an exponent only where nothing
// limits them; strings with a pattern, a format or a list of values have no needless escapes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/grammar/json_rules.h"
#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

// The rule of the values that `schema` allows. `name` stands before the place in errors.
int32_t schema_rule(JsonRules& rules, const json::Value& schema, const std::string& name = "");

// A member that objects of a schema may have.
struct SchemaMember {
  std::string key;
  bool is_required = false;
  int32_t rule = 0;                        // of its values
  std::optional<TextAutomaton> text = {};  // its values, where they are strings and nothing else
};
// Those of the objects that `schema` allows, in the order in which they are written, for forms that
// write members one by one; members that the schema does not name are left out. Throws Error also
// where the members are not free of each other (anyOf, minProperties).
std::vector<SchemaMember> schema_members(JsonRules& rules, const json::Value& schema,
                                         const std::string& name = "");

}  // namespace qnext::grammar
