#include "app/command.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "app/nearest.h"
#include "app/terminal.h"
#include "base/error.h"

namespace qnext::app {
namespace {

constexpr const char* description =
    "qnext runs models of the Qwen3-Next family on this computer.\n"
    "Without --model, commands use the small bundled model, which knows Shakespeare.";

constexpr const char* examples =
    "Examples:\n"
    "  qnext generate \"ROMEO:\" --echo\n"
    "  qnext chat --model ~/models/Qwen3-Next-80B-A3B-Instruct --quantize q4_0\n"
    "  qnext chat --model ~/models/Qwen3-Next-80B-A3B-Instruct-Q4_K_M.gguf\n"
    "  qnext serve --port 8000\n"
    "  qnext COMMAND --help";

// CLI11's messages may hold line ends; an error is one line.
std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n' || c == '\r') {
      if (!line.empty() && line.back() != ' ') line += ' ';
    } else {
      line += c;
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

int report(std::string_view message, int status) {
  fmt::print(stderr, "qnext: {}\n", one_line(message));
  return status;
}

// CLI11 puts two empty lines between groups.
void print_help(std::string text) {
  for (size_t at = 0; (at = text.find("\n\n\n", at)) != std::string::npos;) text.erase(at, 1);
  write_output(text);
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string with_suggestion(std::string message, const std::string& suggestion) {
  if (!suggestion.empty()) message += fmt::format("; did you mean {}?", suggestion);
  return message;
}

// What to say about an argument that `command` (the program itself, where no command was read)
// does not take.
std::string unexpected_argument(const CLI::App& app, const CLI::App& command,
                                const std::string& argument) {
  const bool is_program = &command == &app;
  if (argument.starts_with("-") && argument.size() > 1) {
    const std::string name = argument.substr(0, argument.find('='));
    const std::string who = is_program ? "qnext" : command.get_name();
    return with_suggestion(fmt::format("{} has no option {}", who, name),
                           nearest(name, option_names(command)));
  }
  if (is_program) {
    const std::string suggestion = nearest(argument, command_names(app));
    if (!suggestion.empty())
      return with_suggestion(fmt::format("there is no command '{}'", argument), suggestion);
    return fmt::format("there is no command '{}'; qnext --help lists the commands", argument);
  }
  return fmt::format("{} does not expect '{}'; put quotes around text of several words",
                     command.get_name(), argument);
}

int report_usage(const CLI::App& app, const CLI::ParseError& error) {
  const auto parsed = app.get_subcommands();
  const CLI::App& command = parsed.empty() ? app : *parsed.back();
  if (dynamic_cast<const CLI::ExtrasError*>(&error)) {
    return report(unexpected_argument(app, command, app.remaining(true).front()),
                  exit_status::usage);
  }
  const std::string name = parsed.empty() ? "qnext" : "qnext " + command.get_name();
  return report(fmt::format("{}; see {} --help", one_line(error.what()), name), exit_status::usage);
}

}  // namespace

CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& text,
                      const std::string& example_lines) {
  CLI::App* command = app.add_subcommand(name, text)->group("Commands");
  command->footer("Examples:\n" + example_lines);
  return *command;
}

void on_run(CLI::App& command, std::function<int()> run) {
  command.callback([run = std::move(run)] {
    if (const int status = run(); status != exit_status::success) throw CLI::RuntimeError(status);
  });
}

int run_command_line(int argument_count, const char* const* arguments) {
  // A closed pipe (qnext ... | head) ends the program quietly, whatever the parent process set.
  std::signal(SIGPIPE, SIG_DFL);

  CLI::App app(description, "qnext");
  app.footer(examples);
  app.get_formatter()->column_width(31);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.set_version_flag("--version", std::string("qnext ") + QNEXT_VERSION,
                       "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.require_subcommand(0, 1);
  register_generate(app);
  register_chat(app);
  register_serve(app);
  register_loadtest(app);
  register_tokenize(app);
  register_render(app);
  register_inspect(app);
  register_verify(app);
  register_bench(app);
  register_perplexity(app);
  register_synth(app);
  register_quantize(app);

  try {
    app.parse(argument_count, arguments);
    if (app.get_subcommands().empty()) print_help(app.help());
    return exit_status::success;
  } catch (const CLI::CallForHelp&) {
    const auto parsed = app.get_subcommands();
    print_help(parsed.empty() ? app.help() : parsed.back()->help("qnext"));
    return exit_status::success;
  } catch (const CLI::CallForVersion& version) {
    write_output(std::string(version.what()) + "\n");
    return exit_status::success;
  } catch (const CLI::RuntimeError& status) {
    return status.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return report_usage(app, error);
  } catch (const Error& error) {
    return report(error.what(), exit_status::failure);
  } catch (const std::bad_alloc&) {
    return report("out of memory; use a shorter --context or --quantize q4_0",
                  exit_status::failure);
  } catch (const std::exception& error) {
    return report(fmt::format("unexpected: {}", error.what()), exit_status::failure);
  }
}

}  // namespace qnext::app
