#include "app/conversation.h"

#include <gtest/gtest.h>

namespace qnext::app {
namespace {

TEST(Conversation, WithoutATemplateIsATranscript) {
  Conversation conversation(std::nullopt);
  conversation.add_user("ROMEO:");
  EXPECT_EQ(conversation.prompt(), "ROMEO:\n");
  conversation.add_answer("But soft, what light");
  conversation.add_user("JULIET:");
  EXPECT_EQ(conversation.prompt(), "ROMEO:\nBut soft, what light\nJULIET:\n");
}

TEST(Conversation, TakesBackTurns) {
  Conversation conversation(std::nullopt);
  EXPECT_FALSE(conversation.drop_answer());
  conversation.set_system("A play.\n");
  conversation.add_user("ROMEO:");
  EXPECT_FALSE(conversation.drop_answer());
  conversation.add_answer("Ay me!");
  EXPECT_TRUE(conversation.drop_answer());
  EXPECT_EQ(conversation.prompt(), "A play.\nROMEO:\n");
  conversation.drop_user();
  EXPECT_TRUE(conversation.empty());
  EXPECT_EQ(conversation.prompt(), "A play.\n");
  conversation.add_user("x");
  conversation.clear();
  EXPECT_EQ(conversation.prompt(), "A play.\n");
}

}  // namespace
}  // namespace qnext::app
