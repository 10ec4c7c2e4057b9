#include "model/random_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/thread_pool.h"
#include "checkpoint/safetensors_writer.h"
#include "model/random_weights.h"

namespace qnext {

namespace {

namespace fs = std::filesystem;

constexpr size_t buffer_bytes = size_t{16} << 20;  // written at once
constexpr int64_t values_per_task = 1 << 16;       // a multiple of four

struct Tensor {
  TensorDeclaration declaration;
  Distribution distribution;
  bool is_scale = false;  // of the FP8 matrix before it
};

std::vector<Tensor> list_tensors(const Config& config, const RandomCheckpointOptions& options) {
  const bool fp8 = options.dtype == DType::f8_e4m3;
  std::vector<Tensor> tensors;
  for (const WeightSpec& spec : weight_schema(config)) {
    if (spec.optional && !(spec.mtp && options.with_mtp)) continue;
    const Distribution distribution = weight_distribution(config, spec);
    const bool convert = fp8 && stored_in_fp8(spec.role);
    const DType dtype = fp8 && !convert ? DType::bf16 : options.dtype;
    tensors.push_back({{spec.name, dtype, spec.shape}, distribution});
    if (convert)
      tensors.push_back({{fp8_scale_name(spec.name), DType::bf16, fp8_scale_shape(spec.shape)},
                         distribution,
                         true});
  }
  return tensors;
}

// Shard boundaries: tensors [begins[i], begins[i + 1]) go to shard i. A matrix and its scales stay
// together.
std::vector<size_t> split_shards(const std::vector<Tensor>& tensors, uint64_t shard_bytes) {
  std::vector<size_t> begins{0};
  uint64_t filled = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t bytes = tensors[i].declaration.bytes();
    if (filled > 0 && filled + bytes > shard_bytes && !tensors[i].is_scale) {
      begins.push_back(i);
      filled = 0;
    }
    filled += bytes;
  }
  begins.push_back(tensors.size());
  return begins;
}

std::string shard_name(size_t shard, size_t shards) {
  if (shards == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
}

class Filler {
 public:
  Filler(uint64_t seed, int threads)
      : seed_(seed), pool_(threads), buffer_(std::make_unique<std::byte[]>(buffer_bytes)) {}

  void write(SafetensorsWriter& writer, const Tensor& tensor) {
    const TensorDeclaration& declaration = tensor.declaration;
    const UniformStream stream(seed_, declaration.name);
    const size_t value_bytes = dtype_bytes(declaration.dtype, 1);
    const size_t total = declaration.bytes() / value_bytes;
    const size_t step = buffer_bytes / value_bytes;
    for (size_t first = 0; first < total; first += step) {
      const size_t count = std::min(step, total - first);
      pool_.parallel_for(static_cast<int64_t>(count), values_per_task,
                         [&](int64_t begin, int64_t end) {
                           fill(tensor, stream, first, static_cast<size_t>(begin),
                                static_cast<size_t>(end - begin));
                         });
      writer.write(declaration.name, std::span(buffer_.get(), count * value_bytes));
    }
  }

 private:
  void fill(const Tensor& tensor, const UniformStream& stream, size_t first, size_t begin,
            size_t count) {
    const DType dtype = tensor.declaration.dtype;
    std::byte* out = buffer_.get() + dtype_bytes(dtype, begin);
    if (tensor.is_scale)
      fill_random_f8_scales(stream, tensor.distribution, first + begin,
                            std::span(reinterpret_cast<uint16_t*>(out), count));
    else if (dtype == DType::f8_e4m3)
      fill_random_f8(stream, first + begin, count, reinterpret_cast<uint8_t*>(out));
    else
      fill_random(stream, tensor.distribution, dtype, first + begin, count, out);
  }

  uint64_t seed_;
  ThreadPool pool_;
  std::unique_ptr<std::byte[]> buffer_;
};

const char* torch_name(DType dtype) {
  return dtype == DType::f32 ? "float32" : dtype == DType::f16 ? "float16" : "bfloat16";
}

void describe_storage(json::Object& config, const std::vector<Tensor>& tensors, DType dtype) {
  config.set("torch_dtype", torch_name(dtype));
  config.set("quantization_config", nullptr);
  if (dtype != DType::f8_e4m3) return;
  json::Array kept;  // modules, that is names without ".weight"
  constexpr std::string_view suffix = ".weight";
  for (const Tensor& tensor : tensors) {
    const std::string& name = tensor.declaration.name;
    if (tensor.declaration.dtype != DType::f8_e4m3 && name.ends_with(suffix))
      kept.push_back(name.substr(0, name.size() - suffix.size()));
  }
  config.set("quantization_config", json::Object{
                                        {"activation_scheme", "dynamic"},
                                        {"fmt", "e4m3"},
                                        {"modules_to_not_convert", std::move(kept)},
                                        {"quant_method", "fp8"},
                                        {"weight_block_size", json::Array{128, 128}},
                                    });
}

void check_folder(const fs::path& folder, uint64_t total) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("cannot create {}: {}", folder.string(), error.message());
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"})
    if (fs::exists(folder / name, error))
      fail("{} already holds a checkpoint ({}); give another folder", folder.string(), name);
  const fs::space_info space = fs::space(folder, error);
  if (!error && space.available < total)
    fail("{}: the weights need {} MB, but only {} MB are free", folder.string(), total / 1'000'000,
         space.available / 1'000'000);
}

// Removes the files of an unfinished checkpoint.
class Cleanup {
 public:
  ~Cleanup() {
    std::error_code ignored;
    for (const fs::path& path : paths_) fs::remove(path, ignored);
  }
  void add(fs::path path) { paths_.push_back(std::move(path)); }
  void keep() { paths_.clear(); }

 private:
  std::vector<fs::path> paths_;
};

}  // namespace

void write_random_checkpoint(const std::string& folder, json::Value config,
                             const RandomCheckpointOptions& options) {
  const DType dtype = options.dtype;
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16 && dtype != DType::f8_e4m3)
    fail("cannot make random weights of {}; F32, F16, BF16 and F8_E4M3 are possible",
         dtype_name(dtype));
  const std::vector<Tensor> tensors = list_tensors(parse_config(config), options);
  describe_storage(config.as_object(), tensors, dtype);
  uint64_t total = 0;
  for (const Tensor& tensor : tensors) total += tensor.declaration.bytes();
  check_folder(folder, total);

  const std::vector<size_t> begins = split_shards(tensors, options.shard_bytes);
  const size_t shards = begins.size() - 1;
  Filler filler(options.seed, options.threads);
  Cleanup cleanup;
  json::Object weight_map;
  uint64_t done = 0;
  for (size_t shard = 0; shard < shards; ++shard) {
    const std::string name = shard_name(shard, shards);
    std::vector<TensorDeclaration> declarations;
    for (size_t i = begins[shard]; i < begins[shard + 1]; ++i) {
      declarations.push_back(tensors[i].declaration);
      weight_map.set(tensors[i].declaration.name, name);
    }
    SafetensorsWriter writer((fs::path(folder) / name).string(), declarations, {{"format", "pt"}});
    for (size_t i = begins[shard]; i < begins[shard + 1]; ++i) {
      filler.write(writer, tensors[i]);
      done += tensors[i].declaration.bytes();
      if (options.progress) options.progress(done, total);
    }
    writer.finish();
    cleanup.add(fs::path(folder) / name);
  }
  // Last, so that a folder whose writing was cut off is not taken for a checkpoint.
  write_file(folder + "/config.json", json::write(config, 2) + "\n");
  if (shards > 1) {
    const json::Value index =
        json::Object{{"metadata", json::Object{{"total_size", static_cast<int64_t>(total)}}},
                     {"weight_map", std::move(weight_map)}};
    write_file(folder + "/model.safetensors.index.json", json::write(index, 2) + "\n");
  }
  cleanup.keep();
}

}  // namespace qnext
