// Options of a command from a file (TOML or INI): "port = 8000" is --port 8000.
#pragma once

namespace CLI {
class App;
}

namespace qnext::app {

// Adds --config FILE. What the command line says goes before what the file says; a section may be
// named like the command. To be called before any other option is added. While the command line is
// read, it throws Error naming the file where that cannot be read or names no option of the
// command.
void add_config_option(CLI::App& command);

}  // namespace qnext::app
