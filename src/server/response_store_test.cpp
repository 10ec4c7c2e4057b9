// What the store keeps, and what goes first.
#include "server/response_store.h"

#include <gtest/gtest.h>

namespace qnext::server {
namespace {

const std::string text(1000, 'x');

TEST(ResponseStore, KeepsWhatWasUsedLast) {
  ResponseStore store({.responses = 3});
  for (const char* id : {"a", "b", "c"}) store.add(id, text, "[]", nullptr);
  EXPECT_TRUE(store.find("a"));
  store.add("d", text, "[]", nullptr);
  EXPECT_FALSE(store.find("b"));
  for (const char* id : {"a", "c", "d"}) EXPECT_TRUE(store.find(id)) << id;
  EXPECT_TRUE(store.erase("c"));
  EXPECT_FALSE(store.erase("c"));
  EXPECT_EQ(store.size(), 2u);
}

TEST(ResponseStore, StaysWithinItsBytes) {
  ResponseStore store({.bytes = 10000});
  for (int i = 0; i < 100; ++i) {
    store.add(std::to_string(i), text, "[]", nullptr);
    EXPECT_LE(store.bytes(), 10000u);
  }
  EXPECT_GE(store.size(), 8u);
  EXPECT_TRUE(store.find("99"));
  store.add("huge", std::string(20000, 'x'), "[]", nullptr);
  EXPECT_EQ(store.size(), 0u);
  EXPECT_EQ(store.bytes(), 0u);
}

TEST(ResponseStore, AConversationIsAChain) {
  ResponseStore store;
  store.add("first", "1", "[]", nullptr);
  store.add("second", "2", "[]", store.find("first"));
  EXPECT_TRUE(store.erase("first"));
  EXPECT_EQ(store.find("second")->previous()->response(), "1");
  EXPECT_GT(store.bytes(), sizeof(StoredResponse));
  EXPECT_TRUE(store.erase("second"));
  EXPECT_EQ(store.bytes(), 0u);
}

// Also where its turns are more than the stack could take one inside the other.
TEST(ResponseStore, ALongConversationGoesAtOnce) {
  ResponseStore store;
  for (int i = 0; i < 200'000; ++i) {
    const std::string last = std::to_string(i - 1);
    store.add(std::to_string(i), {}, {}, store.find(last));
    store.erase(last);
  }
  EXPECT_EQ(store.size(), 1u);
  EXPECT_GT(store.bytes(), 200'000 * sizeof(StoredResponse) - 1);
  store.erase("199999");
  EXPECT_EQ(store.bytes(), 0u);
}

TEST(ResponseStore, TheNewestTurnOfTheOldestConversationGoesFirst) {
  ResponseStore store({.responses = 4});
  store.add("a1", text, "[]", nullptr);
  store.add("a2", text, "[]", store.find("a1"));
  store.add("b1", text, "[]", nullptr);
  store.add("b2", text, "[]", store.find("b1"));
  store.add("c1", text, "[]", nullptr);
  EXPECT_FALSE(store.find("a2"));
  for (const char* id : {"a1", "b1", "b2", "c1"}) EXPECT_TRUE(store.find(id)) << id;
}

}  // namespace
}  // namespace qnext::server
