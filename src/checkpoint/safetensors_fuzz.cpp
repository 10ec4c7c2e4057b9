// Any bytes as a safetensors file: an Error or tensors that lie inside it.
#include "base/error.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto check = [](std::span<const std::byte> bytes) {
    try {
      const qnext::SafetensorsHeader header = qnext::parse_safetensors_header(bytes, "fuzz");
      size_t total = 0;
      for (const qnext::StoredTensor& tensor : header.tensors) {
        QNEXT_CHECK(tensor.data >= bytes.data());
        QNEXT_CHECK(tensor.data + tensor.bytes <= bytes.data() + bytes.size());
        QNEXT_CHECK(find_by_name(header.tensors, tensor.name) == &tensor);
        total += tensor.bytes;
      }
      QNEXT_CHECK(total < bytes.size());
    } catch (const qnext::Error&) {
    }
  };
  check(file);
  // The same bytes as header and data with a proper length, which random bytes seldom have: the
  // first byte says how many bytes of data follow the header.
  if (size == 0 || size - 1 < data[0]) return 0;
  const size_t header_bytes = size - 1 - data[0];
  std::string framed(8, '\0');
  for (size_t i = 0; i < 8; ++i) framed[i] = static_cast<char>(header_bytes >> (8 * i));
  framed.append(reinterpret_cast<const char*>(data) + 1, size - 1);
  check(std::as_bytes(std::span(framed)));
  return 0;
}
