// Any bytes as a GGUF file: an Error, or tensors that lie inside it and metadata that can be looked
// up as anything.
#include "base/error.h"
#include "checkpoint/finite.h"
#include "checkpoint/gguf.h"

namespace {

void look_up(const qnext::GgufMetadata& metadata, std::string_view key) {
  const auto attempt = [](auto&& read) {
    try {
      read();
    } catch (const qnext::Error&) {
    }
  };
  attempt([&] { metadata.find_integer(key); });
  attempt([&] { metadata.find_number(key); });
  attempt([&] { metadata.find_boolean(key); });
  attempt([&] { metadata.find_string(key); });
  attempt([&] { metadata.find_strings(key); });
  attempt([&] { metadata.find_integers(key); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  try {
    const qnext::GgufHeader header = qnext::parse_gguf_header(file, "fuzz");
    size_t total = 0;
    for (const qnext::StoredTensor& tensor : header.tensors) {
      QNEXT_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
      QNEXT_CHECK(tensor.data == file.data() + tensor.offset);
      QNEXT_CHECK(find_by_name(header.tensors, tensor.name) == &tensor);
      QNEXT_CHECK(dtype_bytes(tensor.dtype, static_cast<size_t>(tensor.elements())) ==
                  tensor.bytes);
      total += tensor.bytes;
      qnext::first_non_finite(tensor.dtype, tensor.data, static_cast<size_t>(tensor.elements()));
      widened(tensor);
    }
    QNEXT_CHECK(total < size);
    for (const auto& [key, value] : header.metadata.entries()) {
      QNEXT_CHECK(!kind_of(value).empty());
      look_up(header.metadata, key);
    }
  } catch (const qnext::Error&) {
  }
  return 0;
}
