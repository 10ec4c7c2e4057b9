// Arbitrary bytes as tokenizer.json: every input loads or throws Error.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/tokenizer_test_data.h"

// The input is a file of its own, or an edit of a good file: (two bytes place, one byte of length
// to cut, the rest to put there), which reaches deeper.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string good = qnext::test::small_tokenizer_json();
  std::string text(reinterpret_cast<const char*>(data), size);
  if (size >= 4 && data[0] % 8 != 0) {
    const size_t place = (size_t{data[1]} << 8 | data[2]) % good.size();
    // From the end: past the vocabulary's bytes, which fill the front of the model.
    std::string edited = good;
    edited.replace(good.size() - 1 - place, data[3], text, 4);
    text = std::move(edited);
  }
  try {
    const qnext::Tokenizer tokenizer = qnext::Tokenizer::from_json(text, "fuzz", "");
    const auto ids = tokenizer.encode("<s> the \u00E9 word's\n\n12<call> ");
    (void)tokenizer.decode(ids, true);
  } catch (const qnext::Error&) {
  }
  return 0;
}
