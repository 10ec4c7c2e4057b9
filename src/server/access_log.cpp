#include "server/access_log.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "base/error.h"

namespace qnext::server {

AccessLog::AccessLog(const std::string& path)
    : file_(path == "-" ? stderr : std::fopen(path.c_str(), "ae")) {
  if (!file_) fail("{} cannot be opened for writing: {}", path, std::strerror(errno));
}

AccessLog::~AccessLog() {
  if (file_ != stderr) std::fclose(file_);
}

void AccessLog::write(const json::Object& line) {
  const std::string text = json::write(line) + "\n";
  const std::lock_guard lock(mutex_);
  std::fwrite(text.data(), 1, text.size(), file_);
  std::fflush(file_);
}

std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03}Z", text, since.count() % 1000);
}

}  // namespace qnext::server
