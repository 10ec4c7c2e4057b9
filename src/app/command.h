// What all commands of qnext share: registration, exit status, errors.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace qnext::app {

namespace exit_status {
constexpr int success = 0;
constexpr int failure = 1;        // an Error, or a check that did not hold
constexpr int usage = 2;          // the command line itself is wrong
constexpr int interrupted = 130;  // Ctrl-C, as shells report it
}  // namespace exit_status

// Adds the command `name`. The examples are shown below its --help, a line each.
CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& examples);
// `run` is called once the command line is read and gives the exit status. It may throw Error.
void on_run(CLI::App& command, std::function<int()> run);

// One file a command: <name>_command.cpp.
void register_generate(CLI::App& app);
void register_serve(CLI::App& app);
void register_loadtest(CLI::App& app);
void register_chat(CLI::App& app);
void register_tokenize(CLI::App& app);
void register_render(CLI::App& app);
void register_inspect(CLI::App& app);
void register_verify(CLI::App& app);
void register_bench(CLI::App& app);
void register_perplexity(CLI::App& app);
void register_synth(CLI::App& app);
void register_quantize(CLI::App& app);

// The whole program: reads the command line, runs the command, prints an error as one line
// "qnext: ..." on standard error. Returns the exit status.
int run_command_line(int argument_count, const char* const* arguments);

}  // namespace qnext::app
