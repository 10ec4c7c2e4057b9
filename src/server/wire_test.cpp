#include "server/wire.h"

#include <gtest/gtest.h>

namespace qnext::server {
namespace {

TEST(Wire, AHeadSaysHowItsBodyEnds) {
  const Reply reply{.status = 404, .headers = {{"retry-after", "1"}}};
  EXPECT_EQ(head_text(reply, {.request_id = "id", .content_length = 12}),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nX-Request-Id: id\r\n"
            "retry-after: 1\r\nContent-Length: 12\r\n\r\n");
  EXPECT_EQ(head_text({}, {.request_id = "id"}),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: id\r\n"
            "Transfer-Encoding: chunked\r\n\r\n");
}

// RFC 9112, 9.3: 1.1 stays unless it says otherwise, 1.0 ends unless it says otherwise.
TEST(Wire, AHeadSaysWhetherTheConnectionStays) {
  const auto connection = [](unsigned version, bool keep_alive) {
    const std::string head = head_text({}, {version, keep_alive, "id", {}, 0});
    const size_t at = head.find("Connection: ");
    return at == std::string::npos ? "" : head.substr(at + 12, head.find('\r', at) - at - 12);
  };
  EXPECT_EQ(connection(11, true), "");
  EXPECT_EQ(connection(11, false), "close");
  EXPECT_EQ(connection(10, true), "keep-alive");
  EXPECT_EQ(connection(10, false), "");
}

TEST(Wire, OldClientsAndEmptyRepliesGetNoChunks) {
  EXPECT_EQ(head_text({}, {.version = 10, .keep_alive = false}).find("chunked"), std::string::npos);
  EXPECT_EQ(head_text({.status = 204}, {}).find("chunked"), std::string::npos);
  EXPECT_EQ(head_text({.status = 204}, {.content_length = 0}).find("Length"), std::string::npos);
}

TEST(Wire, ChunksTellTheirLengthAndTheLastOneTheEnd) {
  EXPECT_EQ(chunk_text("twenty-six bytes of text..", false),
            "1a\r\ntwenty-six bytes of text..\r\n");
  EXPECT_EQ(chunk_text("ab", true), "2\r\nab\r\n0\r\n\r\n");
  EXPECT_EQ(chunk_text("", true), "0\r\n\r\n");
  EXPECT_EQ(chunk_text("", false), "");
}

}  // namespace
}  // namespace qnext::server
