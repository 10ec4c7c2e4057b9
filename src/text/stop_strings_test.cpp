#include "text/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace qnext {
namespace {

using Strings = std::vector<std::string>;

TEST(StopStrings, PassesEverythingWithoutStrings) {
  StopStrings stop(Strings{});
  EXPECT_EQ(stop.push("all"), "all");
  EXPECT_EQ(stop.finish(), "");
}

TEST(StopStrings, HoldsBackWhatMayBeginOne) {
  StopStrings stop(Strings{"###", "\nUser:"});
  EXPECT_EQ(stop.push("one #"), "one ");
  EXPECT_EQ(stop.push("# two\nUs"), "## two");
  EXPECT_EQ(stop.push("\n"), "\nUs");
  EXPECT_EQ(stop.push("User"), "");
  EXPECT_EQ(stop.met(), std::nullopt);
  EXPECT_EQ(stop.push(": three"), "");
  EXPECT_EQ(stop.met(), 1u);
  EXPECT_EQ(stop.push("four"), "");
  EXPECT_EQ(stop.finish(), "");
}

TEST(StopStrings, GivesBackWhatItHeldAtTheEnd) {
  StopStrings stop(Strings{"abcd"});
  EXPECT_EQ(stop.push("xabc"), "x");
  EXPECT_EQ(stop.finish(), "abc");
  EXPECT_EQ(stop.push("d"), "d");  // a new stream
}

TEST(StopStrings, PrefersTheFirstCompletedThenTheLongest) {
  StopStrings inner(Strings{"abcd", "bc"});
  EXPECT_EQ(inner.push("xabcd"), "xa");
  EXPECT_EQ(inner.met(), 1u);
  StopStrings longest(Strings{"c", "abc", "bc"});
  EXPECT_EQ(longest.push("xabc"), "x");
  EXPECT_EQ(longest.met(), 1u);
}

TEST(StopStrings, RefusesEmptyStrings) {
  EXPECT_THROW(StopStrings(Strings{"a", ""}), Error);
}

TEST(StopStrings, KeepsCharactersWhole) {
  StopStrings stop(Strings{"\u00E8"});
  EXPECT_EQ(stop.push("caf\u00E9"), "caf\u00E9");
  EXPECT_EQ(stop.push("\u00E8x"), "");
  EXPECT_EQ(stop.met(), 0u);
}

// The plain way: after each byte look whether some string ends the text.
struct Plain {
  std::string before;
  std::optional<size_t> met;
};
Plain search(const Strings& strings, std::string_view text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<size_t> best;
    for (size_t i = 0; i < strings.size(); ++i)
      if (text.substr(0, end).ends_with(strings[i]) &&
          (!best || strings[i].size() > strings[*best].size()))
        best = i;
    if (best) return {std::string(text.substr(0, end - strings[*best].size())), best};
  }
  return {std::string(text), std::nullopt};
}

TEST(StopStrings, AgreesWithThePlainSearchHoweverCut) {
  std::mt19937_64 random(1);
  const auto word = [&](size_t longest) {
    std::string text;
    for (size_t n = random() % longest; n > 0; --n) text += "ab"[random() % 2];
    return text;
  };
  for (int i = 0; i < 50000; ++i) {
    Strings strings;
    for (size_t n = random() % 4; n > 0; --n) strings.push_back(word(5) + "a");
    const std::string text = word(24);
    const Plain expected = search(strings, text);
    StopStrings stop(strings);
    std::string out;
    for (size_t done = 0; done < text.size();) {
      const size_t n = 1 + random() % 4;
      out += stop.push(std::string_view(text).substr(done, n));
      ASSERT_TRUE(expected.before.starts_with(out)) << text;
      done += n;
    }
    ASSERT_EQ(stop.met(), expected.met) << text;
    out += stop.finish();
    ASSERT_EQ(out, expected.before) << text;
  }
}

}  // namespace
}  // namespace qnext
