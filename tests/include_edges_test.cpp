// The house of docs/architecture.md, checked: a folder of src includes only what stands below it,
// and files stay readable in one sitting. Reads the #include lines, compiles nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

// A folder includes itself and what comes before it.
constexpr std::array<std::string_view, 13> house = {
    "base",    "emulator", "tensor", "checkpoint", "text",        "ops", "model",
    "backend", "engine",   "server", "train",      "distributed", "app"};

constexpr size_t longest_file = 800;

std::optional<size_t> floor_of(std::string_view path) {
  const std::string_view folder = path.substr(0, path.find('/'));
  const auto found = std::find(house.begin(), house.end(), folder);
  if (found == house.end()) return std::nullopt;
  return static_cast<size_t>(found - house.begin());
}

bool is_under(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/';
}

// Why `file` may not include `included` (both relative to src); empty where it may.
std::string forbidden(std::string_view file, std::string_view included) {
  const auto from = floor_of(file);
  const auto to = floor_of(included);
  if (!from) return "the file is in no folder of the house";
  if (!to) return "name included files from src, as in \"base/error.h\"";
  if (*to > *from) return "that folder stands above this one";
  const std::string_view folder = house[*from];
  if (house[*to] == "emulator" && folder != "emulator")
    return "programs are linked with the emulator and do not know it";
  if (folder == "engine" && is_under(included, "backend") && included != "backend/step.h")
    return "of backend, engine sees step.h only";
  if (folder == "server" && *to != *from && !is_under(included, "base") &&
      !is_under(included, "text") && !is_under(included, "engine"))
    return "server sees base, text and engine only";
  for (const std::string_view concrete : {"backend/cpu", "backend/cuda"}) {
    if (is_under(included, concrete) && !is_under(file, concrete) && folder != "app")
      return "only app names a concrete backend";
  }
  return {};
}

struct SourceFile {
  std::string path;  // relative to src
  std::vector<std::string> lines;
};

std::vector<SourceFile> read_sources() {
  const fs::path root = fs::path(QNEXT_SOURCE_DIR) / "src";
  std::vector<SourceFile> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cpp" && extension != ".cu" && extension != ".cuh")
      continue;
    SourceFile file{fs::relative(entry.path(), root), {}};
    std::ifstream stream(entry.path());
    for (std::string line; std::getline(stream, line);) file.lines.push_back(std::move(line));
    files.push_back(std::move(file));
  }
  return files;
}

// The X of #include "X"; empty on other lines.
std::string included_by(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  if (!line.starts_with("#")) return {};
  line.remove_prefix(1);
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  if (!line.starts_with("include")) return {};
  const size_t open = line.find('"');
  const size_t close = line.rfind('"');
  if (open == std::string_view::npos || close <= open) return {};
  return std::string(line.substr(open + 1, close - open - 1));
}

TEST(IncludeEdges, NoFileIncludesAFolderThatItMayNotSee) {
  const auto files = read_sources();
  ASSERT_GT(files.size(), 10u);
  size_t edges = 0;
  for (const SourceFile& file : files) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string included = included_by(file.lines[i]);
      if (included.empty()) continue;
      ++edges;
      const std::string reason = forbidden(file.path, included);
      EXPECT_TRUE(reason.empty()) << "src/" << file.path << ":" << i + 1 << " includes " << included
                                  << ": " << reason;
    }
  }
  EXPECT_GT(edges, files.size() / 2) << "too few #include lines found: is the reader broken?";
}

// Above 800 lines a file says within its first ten why: "Long because ...", or that it is written
// by a program.
TEST(IncludeEdges, FilesStayReadableInOneSitting) {
  for (const SourceFile& file : read_sources()) {
    if (file.lines.size() <= longest_file) continue;
    bool explained = false;
    for (size_t i = 0; i < 10; ++i) {
      explained = explained || file.lines[i].find("Long because") != std::string::npos ||
                  file.lines[i].find("Written by tools/") != std::string::npos;
    }
    EXPECT_TRUE(explained) << "src/" << file.path << " has " << file.lines.size()
                           << " lines: split it, or say \"Long because ...\" at its top";
  }
}

TEST(IncludeEdges, TheRulesForbidWhatTheHouseForbids) {
  EXPECT_EQ(forbidden("model/config.cpp", "base/json.h"), "");
  EXPECT_EQ(forbidden("engine/scheduler.cpp", "backend/step.h"), "");
  EXPECT_EQ(forbidden("app/generate.cpp", "backend/cpu/cpu_backend.h"), "");
  EXPECT_EQ(forbidden("backend/cpu/driver.cpp", "backend/cpu/weights.h"), "");
  EXPECT_NE(forbidden("base/json.cpp", "tensor/dtype.h"), "");
  EXPECT_NE(forbidden("ops/rope/rope.cpp", "model/config.h"), "");
  EXPECT_NE(forbidden("engine/scheduler.cpp", "backend/cpu/cpu_backend.h"), "");
  EXPECT_NE(forbidden("engine/scheduler.cpp", "backend/other.h"), "");
  EXPECT_NE(forbidden("backend/cpu/driver.cpp", "backend/cuda/driver.h"), "");
  EXPECT_NE(forbidden("backend/cuda/driver.cpp", "backend/cpu/driver.h"), "");
  EXPECT_EQ(forbidden("emulator/machine.cpp", "base/error.h"), "");
  EXPECT_NE(forbidden("emulator/machine.cpp", "ops/rope/rope.h"), "");
  EXPECT_NE(forbidden("ops/rope/rope.cpp", "emulator/machine.h"), "");
  EXPECT_NE(forbidden("server/http.cpp", "model/config.h"), "");
  EXPECT_NE(forbidden("model/config.cpp", "config.h"), "");
  EXPECT_EQ(included_by("#include \"base/error.h\"  // why"), "base/error.h");
  EXPECT_EQ(included_by("  #  include \"base/error.h\""), "base/error.h");
  EXPECT_EQ(included_by("#include <vector>"), "");
}

}  // namespace
