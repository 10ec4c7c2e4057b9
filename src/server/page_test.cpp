// The chat page as it is served; tests/page_browser.py tries it in a browser.
#include "server/page.h"

#include <gmock/gmock.h>

#include "server/testing/fake_server.h"

namespace qnext::server {
namespace {

using testing::Client;
using testing::ClientResponse;
using ::testing::HasSubstr;
using ::testing::Not;

class Pages : public testing::FakeServer {};

TEST_F(Pages, NeedNoKeyAndRunNothingOfOthers) {
  start({.api_key = "secret"});
  Client client(port());
  const ClientResponse page = client.get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  const std::string policy = page.headers.at("content-security-policy");
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
  EXPECT_THAT(policy, HasSubstr("script-src 'self';"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  EXPECT_EQ(page.headers.at("x-content-type-options"), "nosniff");
  // No inline code, and nothing from elsewhere.
  EXPECT_THAT(page.body, Not(HasSubstr("onclick")));
  EXPECT_THAT(page.body, Not(HasSubstr("style=")));
  EXPECT_THAT(page.body, Not(HasSubstr("//")));
  EXPECT_EQ(client.get("/v1/models").status, 401);
  EXPECT_EQ(client.get("/metrics").status, 401);
}

TEST_F(Pages, HaveAllFilesThatTheyName) {
  start({});
  Client client(port());
  size_t named = 0;
  for (const EmbeddedFile& file : embedded_files()) {
    const std::string text(reinterpret_cast<const char*>(file.bytes), file.size);
    EXPECT_FALSE(text.empty()) << file.name;
    const std::string prefix = "\"/page/";
    for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
      const std::string path = text.substr(at + 1, text.find('"', at + 1) - at - 1);
      EXPECT_EQ(client.get(path).status, 200) << path << " in " << file.name;
      ++named;
    }
  }
  EXPECT_GT(named, 10u);
  EXPECT_EQ(client.get("/page/chat.js").headers.at("content-type"),
            "text/javascript; charset=utf-8");
}

TEST_F(Pages, AreNoOtherFiles) {
  start({});
  Client client(port());
  for (const char* path : {"/page/", "/page/none.js", "/page/../api.h", "/page//chat.js",
                           "/chat.js", "/page/index.html/", "/other"})
    EXPECT_EQ(client.get(path).status, 404) << path;
  EXPECT_EQ(client.post("/", "{}").status, 405);
}

}  // namespace
}  // namespace qnext::server
