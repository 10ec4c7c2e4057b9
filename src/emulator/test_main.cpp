// Of tests that run on the emulated GPU, in place of gtest_main: --check_races looks for races in
// shared memory, of which the first is a fault, --list_races for all, --seed N has warps take turns
// and copies arrive in another order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "emulator/runtime.h"

using namespace qnext::emulator;

int main(int count, char** arguments) {
  testing::InitGoogleMock(&count, arguments);  // takes its own
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--check_races") {
      check_races(RaceCheck::fails);
    } else if (argument == "--list_races") {
      check_races(RaceCheck::lists);
    } else if (argument == "--seed" && i + 1 < count) {
      set_seed(static_cast<uint32_t>(std::strtoul(arguments[++i], nullptr, 10)));
    } else {
      std::fprintf(stderr, "%s is not known: --check_races, --list_races and --seed N are\n",
                   arguments[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
