#include "app/fingerprint.h"

#include <algorithm>
#include <string_view>

namespace qnext::app {
namespace {

// FNV-1a (Fowler, Noll and Vo 1991).
class Hash {
 public:
  void add(std::string_view bytes) {
    for (const char byte : bytes)
      value_ = (value_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
    value_ = (value_ ^ bytes.size()) * 0x100000001b3u;
  }
  void add(int64_t number) {
    add(std::string_view(reinterpret_cast<const char*>(&number), sizeof number));
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

// Reading a little of every tensor would page in a gigabyte of a large model.
constexpr size_t sampled_tensors = 256;
constexpr size_t sampled_bytes = 64;

void add_model(Hash& hash, const Checkpoint& checkpoint) {
  const std::vector<StoredTensor>& tensors = checkpoint.tensors();
  const size_t stride = tensors.size() / sampled_tensors + 1;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& tensor = tensors[i];
    hash.add(tensor.name);
    hash.add(static_cast<int64_t>(tensor.dtype));
    for (const int64_t size : tensor.shape) hash.add(size);
    if (i % stride != 0 || !tensor.data) continue;
    hash.add(std::string_view(reinterpret_cast<const char*>(tensor.data),
                              std::min(tensor.bytes, sampled_bytes)));
  }
}

}  // namespace

uint64_t fingerprint(const ModelFiles& files, const MachineOptions& options,
                     const backend::Capabilities& capabilities) {
  Hash hash;
  hash.add(QNEXT_VERSION);
  hash.add(files.source.config_bytes());
  add_model(hash, files.checkpoint);
  for (const std::string& option : {options.quantize, options.kv_type, options.state_type,
                                    options.activations, options.backend_path, capabilities.device})
    hash.add(option);
  hash.add(static_cast<int64_t>(capabilities.page_bytes));
  hash.add(static_cast<int64_t>(capabilities.slot_bytes));
  return hash.value();
}

}  // namespace qnext::app
