// For tests: GGUF files as bytes, good ones and, by patching what is written, bad ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_writer.h"

namespace qnext::testing {

class GgufWriter : public GgufPairs {
 public:
  // Row-major, as everywhere in qnext; the file turns shapes round.
  void add_tensor(std::string_view name, DType dtype, const std::vector<int64_t>& shape,
                  std::string_view data) {
    add_raw_tensor(name, gguf_type_number(dtype), {shape.rbegin(), shape.rend()}, data_.size());
    data_ += data;
    data_.resize((data_.size() + 31) / 32 * 32);
  }
  // Only the entry of the table.
  void add_raw_tensor(std::string_view name, uint32_t type, const std::vector<int64_t>& sizes,
                      uint64_t offset) {
    append_gguf_tensor(table_, name, type, sizes, offset);
    ++tensor_count_;
  }

  std::string bytes() const { return gguf_head(*this, table_, tensor_count_) + data_; }

 private:
  uint64_t tensor_count_ = 0;
  GgufBytes table_;
  std::string data_;
};

}  // namespace qnext::testing
