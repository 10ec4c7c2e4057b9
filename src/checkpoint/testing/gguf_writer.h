// For tests: GGUF files as bytes, good ones and, by patching what is written, bad ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/gguf_metadata.h"
#include "tensor/dtype.h"

namespace qnext::testing {

// Values as the file holds them.
class GgufBytes {
 public:
  template <typename Type>
  GgufBytes& number(Type value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& text(std::string_view value) {
    number(uint64_t{value.size()});
    out_.append(value);
    return *this;
  }
  GgufBytes& append(std::string_view bytes) {
    out_.append(bytes);
    return *this;
  }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

inline uint32_t gguf_number(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0;
    case DType::f16:
      return 1;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q5_0:
      return 6;
    case DType::q5_1:
      return 7;
    case DType::q8_0:
      return 8;
    case DType::q2_k:
      return 10;
    case DType::q3_k:
      return 11;
    case DType::q4_k:
      return 12;
    case DType::q5_k:
      return 13;
    case DType::q6_k:
      return 14;
    case DType::iq4_nl:
      return 20;
    case DType::iq4_xs:
      return 23;
    case DType::bf16:
      return 30;
    default:
      QNEXT_CHECK(false, "GGUF has no {}", dtype_name(dtype));
  }
  return 0;
}

class GgufWriter {
 public:
  // The bytes of a value, after the key and the number of its type.
  void add(std::string_view key, GgufType type, std::string_view value) {
    metadata_.text(key).number(static_cast<uint32_t>(type)).append(value);
    ++metadata_count_;
  }
  void add(std::string_view key, uint32_t value) {
    add(key, GgufType::u32, GgufBytes().number(value).bytes());
  }
  void add(std::string_view key, float value) {
    add(key, GgufType::f32, GgufBytes().number(value).bytes());
  }
  void add(std::string_view key, bool value) {
    add(key, GgufType::boolean, GgufBytes().number(uint8_t{value}).bytes());
  }
  void add(std::string_view key, std::string_view value) {
    add(key, GgufType::string, GgufBytes().text(value).bytes());
  }
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, const std::vector<std::string>& texts) {
    GgufBytes value = array_head(GgufType::string, texts.size());
    for (const std::string& text : texts) value.text(text);
    add(key, GgufType::array, value.bytes());
  }
  void add(std::string_view key, const std::vector<int32_t>& integers) {
    GgufBytes value = array_head(GgufType::i32, integers.size());
    for (const int32_t integer : integers) value.number(integer);
    add(key, GgufType::array, value.bytes());
  }
  static GgufBytes array_head(GgufType type, size_t count) {
    return GgufBytes().number(static_cast<uint32_t>(type)).number(uint64_t{count});
  }

  // Row-major, as everywhere in qnext; the file turns shapes round.
  void add_tensor(std::string_view name, DType dtype, const std::vector<int64_t>& shape,
                  std::string_view data) {
    add_raw_tensor(name, gguf_number(dtype), {shape.rbegin(), shape.rend()}, data_.size());
    data_ += data;
    data_.resize((data_.size() + 31) / 32 * 32);
  }
  // Only the entry of the table.
  void add_raw_tensor(std::string_view name, uint32_t type, const std::vector<int64_t>& sizes,
                      uint64_t offset) {
    table_.text(name).number(static_cast<uint32_t>(sizes.size()));
    for (const int64_t size : sizes) table_.number(size);
    table_.number(type).number(offset);
    ++tensor_count_;
  }

  std::string bytes() const {
    std::string out = GgufBytes()
                          .append("GGUF")
                          .number(uint32_t{3})
                          .number(tensor_count_)
                          .number(metadata_count_)
                          .append(metadata_.bytes())
                          .append(table_.bytes())
                          .bytes();
    out.resize((out.size() + 31) / 32 * 32);
    return out + data_;
  }

 private:
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
  GgufBytes metadata_;
  GgufBytes table_;
  std::string data_;
};

}  // namespace qnext::testing
