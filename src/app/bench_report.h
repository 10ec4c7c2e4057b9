// The report of qnext bench, as a table and as JSON.
#pragma once

#include <string>

#include "app/bench.h"

namespace qnext::app {

// What the report names besides its measurements.
struct BenchSetting {
  backend::Capabilities capabilities;
  std::string weights;  // "as stored", "in q4_0"
  double load_seconds = 0;
  int repeat = 0;
  bool speculation = false;
  bool profile = false;  // was asked for
};

std::string bench_text(const BenchSetting& setting, const BenchReport& report);
std::string bench_json(const BenchSetting& setting, const BenchReport& report);

}  // namespace qnext::app
