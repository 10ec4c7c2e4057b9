// The chat page: files of the folder page/, which are part of the program.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qnext::server {

struct EmbeddedFile {
  std::string_view name;  // "chat.js"
  const unsigned char* bytes;
  size_t size;
};

// Written by cmake/embed_files.cmake.
std::span<const EmbeddedFile> embedded_files();

struct PageFile {
  std::string_view content_type;
  std::string_view bytes;
};

// What "/" and the paths below "/page/" serve; null bytes where there is no such file.
PageFile find_page_file(std::string_view path);

// What browsers are told with every file of the page: to run and fetch nothing but what this server
// sends, to run nothing that stands in markup, and to show the page in no frame.
const std::vector<std::pair<std::string, std::string>>& page_headers();

}  // namespace qnext::server
