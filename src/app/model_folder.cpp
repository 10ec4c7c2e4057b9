#include "app/model_folder.h"

#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace qnext::app {
namespace {

namespace fs = std::filesystem;

std::string bundled_model_folder() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path installed =
      program.parent_path() / ".." / "share" / "qnext" / "models" / "tiny-shakespeare";
  const fs::path source = fs::path(QNEXT_SOURCE_DIR) / "models" / "tiny-shakespeare";
  for (const fs::path& folder : {installed, source}) {
    if (fs::exists(folder / "config.json", ignored)) return folder.lexically_normal();
  }
  fail("the bundled model is neither in {} nor in {}; name a model with --model FOLDER",
       installed.lexically_normal().string(), source.string());
}

}  // namespace

std::string find_model_folder(const std::string& given) {
  if (given.empty()) return bundled_model_folder();
  std::error_code ignored;
  if (!fs::exists(given, ignored)) {
    fail("there is no folder {}; --model names a downloaded Hugging Face checkpoint", given);
  }
  if (!fs::is_directory(given, ignored))
    fail("{} is not a folder; --model names the folder that holds config.json", given);
  return given;
}

}  // namespace qnext::app
