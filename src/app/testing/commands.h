// For tests: the program as a user runs it, in a folder of the test's own.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace qnext::app {

inline const std::string bundled = QNEXT_SOURCE_DIR "/models/tiny-shakespeare";

struct Outcome {
  int status = -1;  // of the exit; 1000 + signal where one ended it
  std::string out;
  std::string err;
};

// A folder of one test, gone with it.
class Commands : public ::testing::Test {
 protected:
  Commands() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              (std::string("qnext-") + test->name() + "-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~Commands() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ / name; }

  Outcome run(std::vector<std::string> arguments, const std::string& input = "") const {
    write_file(path("stdin"), input);
    arguments.insert(arguments.begin(), QNEXT_PROGRAM);
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const std::string in = path("stdin");
    const std::string out = path("stdout");
    const std::string err = path("stderr");
    const pid_t child = fork();
    if (child == 0) {
      dup2(open(in.c_str(), O_RDONLY), 0);
      dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      execv(pointers[0], pointers.data());
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), read_file(out),
            read_file(err)};
  }

  // One line on standard error that holds `text`, nothing on standard output.
  void expect_error(const Outcome& outcome, const std::string& text, int status = 1) const {
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, ::testing::StartsWith("qnext: "));
    EXPECT_THAT(outcome.err, ::testing::HasSubstr(text));
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_EQ(outcome.err.back(), '\n');
  }

  // A copy of the bundled model to damage.
  std::string copy_model() const {
    const std::string model = path("model");
    std::filesystem::copy(bundled, model);
    std::filesystem::permissions(model, std::filesystem::perms::owner_all,
                                 std::filesystem::perm_options::add);
    for (const auto& entry : std::filesystem::directory_iterator(model))
      std::filesystem::permissions(entry, std::filesystem::perms::owner_write,
                                   std::filesystem::perm_options::add);
    return model;
  }

  static void change_config(const std::string& model, const std::string& key, json::Value value) {
    json::Value config = json::parse_file(model + "/config.json");
    config.as_object().set(key, std::move(value));
    write_file(model + "/config.json", json::write(config));
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace qnext::app
