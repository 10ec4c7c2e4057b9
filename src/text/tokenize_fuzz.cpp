// Arbitrary text into a small tokenizer: decoding gives the normalised text back, streaming gives
// what decoding gives, and only text that is not UTF-8 is refused.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "text/detokenizer.h"
#include "text/normalize.h"
#include "text/tokenizer.h"
#include "text/tokenizer_test_data.h"

namespace {

using qnext::test::with;

qnext::Tokenizer make(std::string_view expression) {
  return qnext::Tokenizer::from_json(
      qnext::json::write(with(qnext::test::small_tokenizer(), "pre_tokenizer",
                              qnext::test::pre_tokenizer(expression))),
      "small");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const qnext::Tokenizer tokenizers[] = {make(qnext::test::qwen3_expression),
                                                make(qnext::test::qwen35_expression)};
  if (size == 0) return 0;
  const qnext::Tokenizer& tokenizer = tokenizers[data[0] & 1];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (qnext::utf8::first_invalid(text)) {
    try {
      tokenizer.encode(text);
      QNEXT_CHECK(false, "accepted");
    } catch (const qnext::Error&) {
    }
    return 0;
  }
  // Normal text, because what lies between added tokens is normalised piece by piece.
  std::string storage;
  const std::string_view normal = qnext::unicode::nfc(text, storage);
  const std::vector<int32_t> ids = tokenizer.encode(normal, data[0] & 2);
  QNEXT_CHECK(tokenizer.decode(ids) == normal);
  qnext::Detokenizer stream(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  QNEXT_CHECK(streamed == tokenizer.decode(ids));
  return 0;
}
