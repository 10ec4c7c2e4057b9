// Any bytes as a model in a GGUF file: an Error, or sizes, a tokenizer, templates and tensors that
// can be read as what they claim to be.
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "checkpoint/finite.h"
#include "model/gguf_config.h"
#include "model/gguf_weights.h"
#include "text/gguf_tokenizer.h"

namespace {

// A file in memory with these bytes.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    QNEXT_CHECK(::write(descriptor_, data, size) == static_cast<ssize_t>(size));
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  int descriptor_;
};

template <typename Read>
void attempt(Read&& read) {
  try {
    read();
  } catch (const qnext::Error&) {
  }
}

void read_model(const qnext::GgufFiles& files) {
  using namespace qnext;
  const Config config = read_gguf_config(files);
  // The list of weights is long where the config says so; keep the fuzzer fast.
  if (config.experts * static_cast<int64_t>(config.layers.size()) > 2000) return;
  const Checkpoint checkpoint = gguf_checkpoint(files, config);
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const auto count = static_cast<size_t>(tensor.elements());
    QNEXT_CHECK(widened(tensor).size() == count);
    attempt([&] { check_finite(tensor); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qnext;
  const MemoryFile file(data, size);
  attempt([&] {
    const GgufFiles files(file.path());
    attempt([&] { read_model(files); });
    attempt([&] { read_gguf_generation_config(files); });
    attempt([&] { load_gguf_chat_template(files.metadata()); });
    attempt([&] {
      const Tokenizer tokenizer = load_gguf_tokenizer(files.metadata());
      tokenizer.decode(tokenizer.encode("To be <|im_end|> or not"));
    });
  });
  return 0;
}
