#include "checkpoint/gguf_writer.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/gguf_types.h"

namespace qnext {

namespace {

size_t aligned(size_t bytes) {
  return (bytes + gguf_alignment - 1) / gguf_alignment * gguf_alignment;
}

std::string head_of(const std::string& path, const GgufPairs& metadata,
                    const std::vector<TensorDeclaration>& tensors) {
  constexpr size_t longest_name = 63;
  constexpr size_t maximum_rank = 4;
  GgufBytes table;
  size_t offset = 0;
  for (const TensorDeclaration& tensor : tensors) {
    if (tensor.name.size() > longest_name)
      fail("cannot write {}: the name of tensor {} is longer than {} bytes", path, tensor.name,
           longest_name);
    if (tensor.shape.empty() || tensor.shape.size() > maximum_rank)
      fail("cannot write {}: tensor {} has {} dimensions; GGUF has 1 to {}", path, tensor.name,
           tensor.shape.size(), maximum_rank);
    append_gguf_tensor(table, tensor.name, gguf_type_number(tensor.dtype),
                       {tensor.shape.rbegin(), tensor.shape.rend()}, offset);
    offset += aligned(tensor.bytes());
  }
  return gguf_head(metadata, table, tensors.size());
}

}  // namespace

void GgufPairs::add(std::string_view key, GgufType type, std::string_view value) {
  pairs_.text(key).number(static_cast<uint32_t>(type)).append(value);
  ++count_;
}

void GgufPairs::add(std::string_view key, uint32_t value) {
  add(key, GgufType::u32, GgufBytes().number(value).bytes());
}

void GgufPairs::add(std::string_view key, float value) {
  add(key, GgufType::f32, GgufBytes().number(value).bytes());
}

void GgufPairs::add(std::string_view key, bool value) {
  add(key, GgufType::boolean, GgufBytes().number(uint8_t{value}).bytes());
}

void GgufPairs::add(std::string_view key, std::string_view value) {
  add(key, GgufType::string, GgufBytes().text(value).bytes());
}

void GgufPairs::add(std::string_view key, const std::vector<std::string>& texts) {
  GgufBytes value = array_head(GgufType::string, texts.size());
  for (const std::string& text : texts) value.text(text);
  add(key, GgufType::array, value.bytes());
}

void GgufPairs::add(std::string_view key, const std::vector<int32_t>& integers) {
  GgufBytes value = array_head(GgufType::i32, integers.size());
  for (const int32_t integer : integers) value.number(integer);
  add(key, GgufType::array, value.bytes());
}

void GgufPairs::add(std::string_view key, const std::vector<bool>& booleans) {
  GgufBytes value = array_head(GgufType::boolean, booleans.size());
  for (const bool boolean : booleans) value.number(uint8_t{boolean});
  add(key, GgufType::array, value.bytes());
}

GgufBytes GgufPairs::array_head(GgufType type, size_t count) {
  return GgufBytes().number(static_cast<uint32_t>(type)).number(uint64_t{count});
}

void append_gguf_tensor(GgufBytes& table, std::string_view name, uint32_t type,
                        const std::vector<int64_t>& sizes, uint64_t offset) {
  table.text(name).number(static_cast<uint32_t>(sizes.size()));
  for (const int64_t size : sizes) table.number(size);
  table.number(type).number(offset);
}

std::string gguf_head(const GgufPairs& metadata, const GgufBytes& table, uint64_t tensors) {
  std::string head = GgufBytes()
                         .append("GGUF")
                         .number(uint32_t{3})
                         .number(tensors)
                         .number(metadata.count())
                         .append(metadata.bytes())
                         .append(table.bytes())
                         .bytes();
  head.resize(aligned(head.size()));
  return head;
}

uint32_t gguf_type_number(DType dtype) {
  const auto* found = std::ranges::find(gguf_tensor_types, dtype, &GgufTensorType::dtype);
  if (found == std::end(gguf_tensor_types)) fail("GGUF has no type {}", dtype_name(dtype));
  return found->number;
}

GgufWriter::GgufWriter(const std::string& path, const GgufPairs& metadata,
                       const std::vector<TensorDeclaration>& tensors)
    : file_(path, head_of(path, metadata, tensors), tensors, gguf_alignment) {}

}  // namespace qnext
