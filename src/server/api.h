// The routes of the server, without HTTP: a request in, a reply out.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/allowed_sites.h"
#include "server/api_error.h"
#include "server/engine_thread.h"
#include "server/generation.h"
#include "server/metrics.h"
#include "server/response_store.h"
#include "server/served_model.h"

namespace qnext::server {

struct Request {
  std::string method;
  std::string path;           // without the query
  std::string authorization;  // the header of that name
  std::string api_key;        // the header x-api-key
  std::string body;
  // Headers that browsers send.
  std::string host = {};
  std::string origin = {};
  std::string wanted_headers = {};  // Access-Control-Request-Headers
  std::string id;                   // letters, digits, '-', '_', '.'
};

struct Reply {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  std::unique_ptr<Generation> generation = nullptr;  // set: the body, and its end, come from here
};

Reply error_reply(const ApiError& error, ErrorShape shape = ErrorShape::openai);

// Safe to call from many threads. All that is given by reference must outlive it and its replies.
class Api {
 public:
  // An empty key asks for none: then pages of other sites are kept out.
  Api(const ServedModel& model, EngineThread& engine, Metrics& metrics, std::string api_key,
      AllowedSites sites = AllowedSites({}));

  // What can be refused before the body is read: another site's, no such route, not this method, no
  // right to it.
  std::optional<Reply> refuse(const Request& request) const;
  // Never throws: errors are replies.
  Reply handle(const Request& request);
  // The route that serves a path, for counting; "other" where there is none.
  static std::string_view route_name(std::string_view path);
  // How its clients expect to be told of errors.
  static ErrorShape error_shape(std::string_view path);

  Metrics& metrics() const { return metrics_; }
  const AllowedSites& sites() const { return sites_; }

 private:
  struct Route;
  static const std::vector<Route>& routes();
  static std::vector<const Route*> routes_of(std::string_view path);
  void authorize(const Request& request) const;
  Reply answer(const Route& route, const Request& request);

  Reply page(const Request& request);
  Reply health(const Request& request);
  Reply show_metrics(const Request& request);
  Reply list_models(const Request& request);
  Reply show_model(const Request& request);
  Reply tokenize(const Request& request);
  Reply detokenize(const Request& request);
  Reply complete(const Request& request);
  Reply chat(const Request& request);
  Reply message(const Request& request);
  Reply count_tokens(const Request& request);
  Reply embed(const Request& request);
  Reply respond(const Request& request);
  Reply show_response(const Request& request);
  Reply delete_response(const Request& request);

  json::Object model_object() const;
  json::Value read_body(const Request& request) const;

  const ServedModel& model_;
  EngineThread& engine_;
  Metrics& metrics_;
  std::string api_key_;
  AllowedSites sites_;
  ResponseStore responses_;
};

}  // namespace qnext::server
