// For tests: `qnext serve` as a process.
#pragma once

#include <chrono>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "app/testing/commands.h"

namespace qnext::app {

// `qnext serve` of the bundled model on a free port, stopped with the test.
class Serving : public Commands {
 protected:
  void serve(std::vector<std::string> more) {
    std::vector<std::string> arguments = {QNEXT_PROGRAM, "serve", "--port", "0", "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const std::string out = path("serve-out");
    const std::string err = path("serve-err");
    write_file(out, "");
    child_ = fork();
    if (child_ == 0) {
      dup2(open(out.c_str(), O_WRONLY), 1);
      dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      execv(pointers[0], pointers.data());
      _exit(127);
    }
    for (int i = 0; i < 600 && port_ == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      const std::string line = read_file(out);
      if (!line.ends_with('\n')) continue;
      EXPECT_THAT(line, ::testing::MatchesRegex("tiny-shakespeare at https?://127.0.0.1:[0-9]+\n"));
      port_ = static_cast<uint16_t>(std::stoi(line.substr(line.rfind(':') + 1)));
    }
    ASSERT_NE(port_, 0) << read_file(err);
  }
  ~Serving() override {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  int stop(int signal) {
    kill(child_, signal);
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  pid_t child_ = -1;
  uint16_t port_ = 0;
};

}  // namespace qnext::app
