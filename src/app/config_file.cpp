#include "app/config_file.h"

#include <CLI/CLI.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "app/nearest.h"
#include "base/error.h"
#include "base/file.h"

namespace qnext::app {
namespace {

std::vector<CLI::ConfigItem> read_items(const std::string& file) {
  std::istringstream text(read_file(file));
  try {
    return CLI::ConfigTOML().from_config(text);
  } catch (const CLI::Error& error) {
    fail("{}: {}", file, error.what());
  }
}

std::vector<std::string> names_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    names.insert(names.end(), option->get_lnames().begin(), option->get_lnames().end());
  return names;
}

void apply(CLI::App& command, const CLI::ConfigItem& item, const std::string& file) {
  CLI::Option* option = command.get_option_no_throw("--" + item.name);
  if (!option || item.name == "help" || item.name == "config") {
    const std::string suggestion = nearest(item.name, names_of(command));
    fail("{}: there is no option '{}'{}", file, item.name,
         suggestion.empty() ? "" : fmt::format("; did you mean '{}'?", suggestion));
  }
  if (option->count() > 0) return;
  if (option->get_expected_max() == 0)
    option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
  else
    option->add_result(item.inputs);
}

// Options are read in the order in which they were added. This one is the first: what it adds to
// those behind it is judged with what the command line says.
void apply_file(CLI::App& command, const std::string& file) {
  for (const CLI::ConfigItem& item : read_items(file)) {
    // CLI11's marks of where sections begin and end.
    if (item.name == "++" || item.name == "--") continue;
    if (!item.parents.empty() && item.parents != std::vector<std::string>{command.get_name()})
      fail("{}: there is no section '{}' but [{}]", file, item.parents.front(), command.get_name());
    apply(command, item, file);
  }
}

}  // namespace

void add_config_option(CLI::App& command) {
  command
      .add_option_function<std::string>(
          "--config", [&command](const std::string& file) { apply_file(command, file); },
          "options from a file, a line each: port = 8000; the command line goes before it")
      ->type_name("FILE");
}

}  // namespace qnext::app
