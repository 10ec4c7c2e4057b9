#include "checkpoint/safetensors_writer.h"

#include <fmt/ranges.h>

#include <set>

#include "base/error.h"
#include "base/json.h"

namespace qnext {

namespace {

constexpr size_t data_alignment = 64;
constexpr size_t maximum_header_bytes = 100'000'000;

// The length of the header and its text. Written directly: a json::Value of a large header would
// hold every piece twice.
std::string head_of(const std::string& path, const std::vector<TensorDeclaration>& tensors,
                    const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    json::Object object;
    for (const auto& [key, value] : metadata) object.set(key, value);
    text += "\"__metadata__\":" + json::write(object) + ",";
  }
  size_t offset = 0;
  std::set<std::string_view> names;
  for (const TensorDeclaration& tensor : tensors) {
    QNEXT_CHECK(names.insert(tensor.name).second, "tensor {} is declared twice", tensor.name);
    QNEXT_CHECK(!is_block_quantized(tensor.dtype), "safetensors cannot hold {}",
                dtype_name(tensor.dtype));
    const size_t end = offset + tensor.bytes();
    json::append_string(text, tensor.name);
    text += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)",
                        dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.append((data_alignment - (8 + text.size()) % data_alignment) % data_alignment, ' ');
  if (text.size() > maximum_header_bytes)
    fail("cannot write {}: {} tensors need a header of {} bytes; spread them over more files", path,
         tensors.size(), text.size());
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path,
                                     const std::vector<TensorDeclaration>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path, head_of(path, tensors, metadata), tensors, 1) {}

}  // namespace qnext
