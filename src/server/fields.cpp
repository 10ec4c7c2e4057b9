#include "server/fields.h"

#include <utility>

namespace qnext::server {

void refuse_field(const std::string& path, const std::string& problem) {
  if (path.empty()) throw ApiError(400, "the request " + problem, "invalid_value");
  throw ApiError(400, path + " " + problem, "invalid_value", path);
}

ApiError renamed(const ApiError& error, std::span<const FieldName> names) {
  for (const FieldName& name : names) {
    std::string param = error.param();
    const size_t at = param.find(name.read);
    if (at == std::string::npos || (at > 0 && !name.read.starts_with('.'))) continue;
    const size_t end = at + name.read.size();
    const bool whole =
        name.read.ends_with('.') || end == param.size() || param[end] == '.' || param[end] == '[';
    if (!whole) continue;
    param.replace(at, name.read.size(), name.known);
    std::string message = error.what();
    if (const size_t named = message.find(error.param()); named != std::string::npos)
      message.replace(named, error.param().size(), param);
    return {error.status(), message, error.code(), param};
  }
  return error;
}

std::vector<int32_t> read_token_ids(const json::Array& ids, int64_t vocabulary,
                                    const std::string& path) {
  std::vector<int32_t> tokens;
  for (const json::Value& id : ids) {
    if (!id.is_integer() || id.as_integer() < 0 || id.as_integer() >= vocabulary)
      refuse_field(path, "holds what is no token of the model");
    tokens.push_back(static_cast<int32_t>(id.as_integer()));
  }
  return tokens;
}

Fields::Fields(const json::Value& value, std::string path) : value_(value), path_(std::move(path)) {
  if (!value.is_object())
    refuse_field(path_, fmt::format("must be an object, not {}", value.kind_name()));
}

std::string Fields::path(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

void Fields::refuse(std::string_view name, const std::string& problem) const {
  refuse_field(path(name), problem);
}

void Fields::refuse_unsupported(std::string_view name) const {
  if (!find(name)) return;
  const std::string field = path(name);
  throw ApiError(400, field + " is not supported yet: leave it out", "unsupported_value", field);
}

const json::Value* Fields::find(std::string_view name) const {
  const json::Value* value = value_.find(name);
  return value && !value->is_null() ? value : nullptr;
}

std::optional<bool> Fields::boolean(std::string_view name) const {
  const json::Value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_bool())
    refuse(name, fmt::format("must be true or false, not {}", value->kind_name()));
  return value->as_bool();
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t least, int64_t most) const {
  const json::Value* value = find(name);
  if (!value) return std::nullopt;
  int64_t integer = 0;
  try {
    integer = value->as_integer();
  } catch (const Error&) {
    refuse(name, fmt::format("must be an integer, not {}", json::write(*value).substr(0, 40)));
  }
  if (integer < least || integer > most) {
    if (most == INT64_MAX)
      refuse(name, fmt::format("is {}, but must be at least {}", integer, least));
    refuse(name, fmt::format("is {}, but must be from {} to {}", integer, least, most));
  }
  return integer;
}

std::optional<double> Fields::number(std::string_view name, double least, double most) const {
  const json::Value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_number())
    refuse(name, fmt::format("must be a number, not {}", value->kind_name()));
  const double number = value->as_double();
  if (!(number >= least && number <= most))
    refuse(name, fmt::format("is {}, but must be from {} to {}", number, least, most));
  return number;
}

std::optional<std::string> Fields::text(std::string_view name) const {
  const json::Value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_string())
    refuse(name, fmt::format("must be a string, not {}", value->kind_name()));
  return value->as_string();
}

const json::Value& Fields::required(std::string_view name) const {
  const json::Value* value = find(name);
  if (!value) refuse(name, "is missing");
  return *value;
}

const std::string& Fields::required_text(std::string_view name) const {
  const json::Value& value = required(name);
  if (!value.is_string()) refuse(name, fmt::format("must be a string, not {}", value.kind_name()));
  return value.as_string();
}

}  // namespace qnext::server
