#include "app/nearest.h"

#include <gtest/gtest.h>

namespace qnext::app {
namespace {

const std::vector<std::string> commands = {"generate", "chat",   "tokenize", "render",
                                           "inspect",  "verify", "bench",    "synth"};

TEST(Nearest, FindsSlipsOfTheHand) {
  EXPECT_EQ(nearest("genrate", commands), "generate");
  EXPECT_EQ(nearest("generaet", commands), "generate");
  EXPECT_EQ(nearest("caht", commands), "chat");
  EXPECT_EQ(nearest("tokenise", commands), "tokenize");
  EXPECT_EQ(nearest("benchs", commands), "bench");
}

TEST(Nearest, SaysNothingWhereNothingIsNear) {
  EXPECT_EQ(nearest("xyz", commands), "");
  EXPECT_EQ(nearest("", commands), "");
  EXPECT_EQ(nearest("serve-the-model", commands), "");
  EXPECT_EQ(nearest(std::string(100000, 'x'), commands), "");
}

}  // namespace
}  // namespace qnext::app
