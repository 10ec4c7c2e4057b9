// One line of JSON for each request.
#pragma once

#include <cstdio>
#include <mutex>
#include <string>

#include "base/json.h"

namespace qnext::server {

// Safe to write to from many threads.
class AccessLog {
 public:
  // A file to append to; "-" is standard error. Throws Error where it cannot be opened.
  explicit AccessLog(const std::string& path);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  // A line that cannot be written is lost: requests go on.
  void write(const json::Object& line);

 private:
  std::mutex mutex_;
  std::FILE* file_;
};

// "2026-11-22T05:43:41.123Z", now.
std::string timestamp();

}  // namespace qnext::server
