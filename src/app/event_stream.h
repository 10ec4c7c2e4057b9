// Server-sent events, put together from the bytes of a body as they come.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qnext::app {

class EventStream {
 public:
  // The data of each event that these bytes complete. Several data lines of one event are joined by
  // line ends; comments and other fields are left out.
  std::vector<std::string> push(std::string_view bytes);

 private:
  void take_line(std::vector<std::string>& events);

  std::string line_;  // that has no end yet
  std::string data_;
  bool has_data_ = false;
};

}  // namespace qnext::app
