#include "server/api.h"

#include <algorithm>
#include <charconv>
#include <new>

#include "server/chat.h"
#include "server/chat_prompt.h"
#include "server/completions.h"
#include "server/embeddings.h"
#include "server/fields.h"
#include "server/messages.h"
#include "server/page.h"
#include "server/responses.h"

namespace qnext::server {
namespace {

constexpr std::string_view health_path = "/health";
constexpr std::string_view page_prefix = "/page/";
constexpr std::string_view model_prefix = "/v1/models/";
constexpr std::string_view response_prefix = "/v1/responses/";

Reply json_reply(const json::Value& value) {
  return {.body = json::write(value)};
}

// A line of plain characters, as headers may hold.
std::string header_text(const std::string& text) {
  constexpr size_t longest = 300;
  std::string line = text.substr(0, longest);
  for (char& c : line)
    if (c < ' ' || c > '~') c = '?';
  return line;
}

Reply generation_reply(std::unique_ptr<Generation> generation) {
  Reply reply;
  if (generation->streamed()) {
    reply.content_type = "text/event-stream";
    // Proxies pass events on as they come.
    reply.headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
  }
  for (const std::string& note : generation->notes())
    reply.headers.emplace_back("x-qnext-note", header_text(note));
  reply.generation = std::move(generation);
  return reply;
}

// In a time that depends on the length of `given` alone.
bool same_secret(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^
                  static_cast<unsigned char>(secret[i % secret.size()]);
  return difference == 0;
}

// As paths have it: "%2F" for a slash within a name.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* digits = text.data() + i + 1;
    const bool whole = text[i] == '%' && i + 2 < text.size() &&
                       std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2;
    out += whole ? static_cast<char>(byte) : text[i];
    if (whole) i += 2;
  }
  return out;
}

}  // namespace

struct Api::Route {
  std::string_view path;  // one that ends in '/', but for "/", serves what is below it
  std::string_view method;
  Reply (Api::*handler)(const Request&);
  ErrorShape errors = ErrorShape::openai;
  bool open = false;  // needs no key

  // HEAD is GET without the body, which the connection leaves out.
  bool takes(std::string_view wanted) const {
    return wanted == method || (wanted == "HEAD" && method == "GET");
  }
};

const std::vector<Api::Route>& Api::routes() {
  constexpr ErrorShape anthropic = ErrorShape::anthropic;
  static const std::vector<Route> all = {
      // A browser that opens the page has no key to send yet.
      {"/", "GET", &Api::page, ErrorShape::openai, true},
      {page_prefix, "GET", &Api::page, ErrorShape::openai, true},
      {health_path, "GET", &Api::health, ErrorShape::openai, true},
      {"/metrics", "GET", &Api::show_metrics},
      {"/v1/models", "GET", &Api::list_models},
      {model_prefix, "GET", &Api::show_model},
      {"/tokenize", "POST", &Api::tokenize},
      {"/detokenize", "POST", &Api::detokenize},
      {"/v1/completions", "POST", &Api::complete},
      {"/v1/chat/completions", "POST", &Api::chat},
      {"/v1/embeddings", "POST", &Api::embed},
      {"/v1/responses", "POST", &Api::respond},
      {response_prefix, "GET", &Api::show_response},
      {response_prefix, "DELETE", &Api::delete_response},
      {"/v1/messages", "POST", &Api::message, anthropic},
      {"/v1/messages/count_tokens", "POST", &Api::count_tokens, anthropic},
  };
  return all;
}

// One for each method that the path takes.
std::vector<const Api::Route*> Api::routes_of(std::string_view path) {
  std::vector<const Route*> found;
  for (const Route& route : routes()) {
    const bool is_folder = route.path.size() > 1 && route.path.ends_with('/');
    const bool serves = path == route.path || (is_folder && path.starts_with(route.path));
    if (serves && (found.empty() || found.front()->path == route.path)) found.push_back(&route);
  }
  return found;
}

std::string_view Api::route_name(std::string_view path) {
  const std::vector<const Route*> found = routes_of(path);
  return found.empty() ? "other" : found.front()->path;
}

ErrorShape Api::error_shape(std::string_view path) {
  const std::vector<const Route*> found = routes_of(path);
  return found.empty() ? ErrorShape::openai : found.front()->errors;
}

Reply error_reply(const ApiError& error, ErrorShape shape) {
  return {.status = error.status(), .body = json::write(error.body(shape))};
}

Api::Api(const ServedModel& model, EngineThread& engine, Metrics& metrics, std::string api_key,
         AllowedSites sites)
    : model_(model),
      engine_(engine),
      metrics_(metrics),
      api_key_(std::move(api_key)),
      sites_(std::move(sites)) {}

void Api::authorize(const Request& request) const {
  if (api_key_.empty()) return;
  constexpr std::string_view scheme = "Bearer ";
  std::string_view given = request.authorization;
  if (given.starts_with(scheme)) given.remove_prefix(scheme.size());
  const bool known = same_secret(given, api_key_) | same_secret(request.api_key, api_key_);
  if (!known)
    throw ApiError(401, "the API key is missing or wrong: send 'Authorization: Bearer KEY'",
                   "invalid_api_key");
}

std::optional<Reply> Api::refuse(const Request& request) const {
  // Whether the server is well says nothing to anybody, and who watches it has names of his own.
  if (api_key_.empty() && request.path != health_path)
    if (const auto problem = sites_.refuse(request.host, request.origin))
      return error_reply(*problem, error_shape(request.path));
  const std::vector<const Route*> found = routes_of(request.path);
  if (found.empty())
    return error_reply({404, fmt::format("there is no route {}", request.path), "not_found"});
  std::string methods;
  for (const Route* route : found)
    methods += fmt::format("{}{}", methods.empty() ? "" : ", ", route->method);
  if (request.method == "OPTIONS") {
    Reply reply{
        .status = 204,
        .headers = sites_.preflight_headers(request.origin, methods, request.wanted_headers)};
    reply.headers.emplace_back("allow", methods);
    return reply;
  }
  const ErrorShape shape = found.front()->errors;
  try {
    if (!found.front()->open) authorize(request);
  } catch (const ApiError& error) {
    Reply reply = error_reply(error, shape);
    reply.headers.emplace_back("www-authenticate", "Bearer");
    return reply;
  }
  for (const Route* route : found)
    if (route->takes(request.method)) return std::nullopt;
  Reply reply =
      error_reply({405, fmt::format("{} takes {}, not {}", request.path, methods, request.method),
                   "method_not_allowed"},
                  shape);
  reply.headers.emplace_back("allow", methods);
  return reply;
}

Reply Api::handle(const Request& request) {
  if (auto refused = refuse(request)) return std::move(*refused);
  const std::vector<const Route*> found = routes_of(request.path);
  const Route& route = **std::find_if(found.begin(), found.end(),
                                      [&](const Route* one) { return one->takes(request.method); });
  Reply reply = answer(route, request);
  // What Anthropic's clients call x-request-id.
  if (route.errors == ErrorShape::anthropic) reply.headers.emplace_back("request-id", request.id);
  return reply;
}

Reply Api::answer(const Route& route, const Request& request) {
  const ErrorShape shape = route.errors;
  try {
    return (this->*route.handler)(request);
  } catch (const ApiError& error) {
    return error_reply(error, shape);
  } catch (const QueueFull& error) {
    Reply reply = error_reply(
        {429, fmt::format("the server is busy: {}", error.what()), "queue_full"}, shape);
    // A place is free when the next answer ends, which is soon where so many run.
    reply.headers.emplace_back("retry-after", "1");
    return reply;
  } catch (const Error& error) {
    return error_reply({400, error.what(), "invalid_request"}, shape);
  } catch (const std::bad_alloc&) {
    return error_reply({503, "out of memory: the request is too large just now", "out_of_memory"},
                       shape);
  } catch (const std::exception& error) {
    return error_reply({500, fmt::format("unexpected: {}", error.what()), "internal_error"}, shape);
  }
}

// The request as JSON, for the model that is here.
json::Value Api::read_body(const Request& request) const {
  json::Value body = json::parse(request.body, "the request's body");
  const auto model = Fields(body).text("model");
  if (model && *model != model_.id)
    throw ApiError(404, fmt::format("there is no model '{}' here, only '{}'", *model, model_.id),
                   "model_not_found", "model");
  return body;
}

Reply Api::page(const Request& request) {
  const PageFile file = find_page_file(request.path);
  if (!file.bytes.data())
    throw ApiError(404, fmt::format("there is no route {}", request.path), "not_found");
  return {.content_type = std::string(file.content_type),
          .headers = page_headers(),
          .body = std::string(file.bytes)};
}

Reply Api::health(const Request&) {
  return json_reply(json::Object{{"status", "ok"}});
}

Reply Api::show_metrics(const Request&) {
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = metrics_.text(engine_.load())};
}

json::Object Api::model_object() const {
  return {{"id", model_.id},
          {"object", "model"},
          {"created", model_.created},
          {"owned_by", "qnext"},
          {"max_model_len", engine_.options().max_context}};
}

Reply Api::list_models(const Request&) {
  return json_reply(json::Object{{"object", "list"}, {"data", json::Array{model_object()}}});
}

Reply Api::show_model(const Request& request) {
  const std::string name = percent_decoded(request.path.substr(model_prefix.size()));
  if (name != model_.id)
    throw ApiError(404, fmt::format("there is no model '{}' here, only '{}'", name, model_.id),
                   "model_not_found", "model");
  return json_reply(model_object());
}

// Of a text ("prompt"), or of what a chat request would be ("messages").
Reply Api::tokenize(const Request& request) {
  const json::Value body = read_body(request);
  const Fields fields(body);
  const std::optional<std::string> prompt = fields.text("prompt");
  const std::string text = prompt ? *prompt : chat_prompt(fields, model_).text;
  json::Array tokens;
  for (const int32_t token : model_.tokenizer->encode(text)) tokens.emplace_back(int64_t{token});
  const auto count = static_cast<int64_t>(tokens.size());
  return json_reply(json::Object{{"count", count},
                                 {"max_model_len", engine_.options().max_context},
                                 {"tokens", std::move(tokens)}});
}

Reply Api::detokenize(const Request& request) {
  const json::Value body = read_body(request);
  const Fields fields(body);
  const json::Value& list = fields.required("tokens");
  if (!list.is_array()) fields.refuse("tokens", "must be a list of token ids");
  const std::vector<int32_t> tokens =
      read_token_ids(list.as_array(), model_.tokenizer->vocabulary_size(), fields.path("tokens"));
  return json_reply(json::Object{{"prompt", model_.tokenizer->decode(tokens)}});
}

Reply Api::complete(const Request& request) {
  return generation_reply(start_completion(read_body(request), request.id, model_, engine_));
}

Reply Api::chat(const Request& request) {
  return generation_reply(start_chat(read_body(request), request.id, model_, engine_));
}

Reply Api::embed(const Request& request) {
  return generation_reply(start_embeddings(read_body(request), model_, engine_));
}

Reply Api::respond(const Request& request) {
  return generation_reply(start_response(read_body(request), model_, engine_, responses_));
}

Reply Api::show_response(const Request& request) {
  return {.body = stored_response(request.path.substr(response_prefix.size()), responses_)};
}

Reply Api::delete_response(const Request& request) {
  return json_reply(
      server::delete_response(request.path.substr(response_prefix.size()), responses_));
}

Reply Api::message(const Request& request) {
  return generation_reply(start_message(read_body(request), request.id, model_, engine_));
}

Reply Api::count_tokens(const Request& request) {
  return json_reply(
      json::Object{{"input_tokens", count_message_tokens(read_body(request), model_)}});
}

}  // namespace qnext::server
