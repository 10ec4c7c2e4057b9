// qnext render: a conversation through a chat template.
#include <CLI/CLI.hpp>
#include <memory>

#include "app/command.h"
#include "app/model_source.h"
#include "app/terminal.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/chat_template.h"

namespace qnext::app {
namespace {

struct RenderOptions {
  std::string input = "-";
  std::string template_file;
  std::string model;
};

constexpr const char* examples =
    "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}],\n"
    "         \"add_generation_prompt\": true}' | qnext render --template chat.jinja\n"
    "  qnext render conversation.json --model ~/models/Qwen3-Next-80B-A3B-Instruct\n"
    "The variables (messages, tools, add_generation_prompt, ...) come as one JSON object; the "
    "text\n"
    "goes to standard output exactly as it is.";

json::Object read_variables(const std::string& input) {
  const bool is_standard_input = input == "-";
  const std::string what = is_standard_input ? "standard input" : input;
  json::Value value = json::parse(is_standard_input ? read_input() : read_file(input), what);
  if (!value.is_object()) {
    fail("{}: expected a JSON object with messages, found {}", what, value.kind_name());
  }
  return std::move(value.as_object());
}

int render(const RenderOptions& options) {
  if (!options.template_file.empty()) {
    const ChatTemplate chat_template(read_file(options.template_file));
    write_output(chat_template.render(read_variables(options.input)));
    return exit_status::success;
  }
  const ModelSource source(options.model);
  const auto chat_template = source.chat_template();
  if (!chat_template) fail("{} has no chat template; name one with --template FILE", source.path());
  write_output(chat_template->render(read_variables(options.input)));
  return exit_status::success;
}

}  // namespace

void register_render(CLI::App& app) {
  auto options = std::make_shared<RenderOptions>();
  CLI::App& command =
      add_command(app, "render", "Turn messages into a prompt with a chat template", examples);
  command.add_option("input", options->input, "file of variables; - or nothing: standard input")
      ->type_name("");
  CLI::Option* file =
      command.add_option("--template", options->template_file, "file of the Jinja template");
  file->type_name("FILE");
  command.add_option("-m,--model", options->model, "model whose chat template is used [bundled]")
      ->type_name("MODEL")
      ->excludes(file);
  on_run(command, [options] { return render(*options); });
}

}  // namespace qnext::app
