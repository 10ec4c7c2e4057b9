#include "model/quantize.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <span>

#include "base/error.h"
#include "base/thread_pool.h"
#include "model/weight_rows.h"
#include "tensor/encode_row.h"

namespace qnext {

namespace {

namespace fs = std::filesystem;

// Values that are encoded between two writes.
constexpr int64_t chunk_values = 1 << 22;

// One row of the file: where its values come from, and how much each counts.
struct SourceRow {
  const WeightRows* weight = nullptr;
  int64_t row = 0;
  const float* importance = nullptr;
};

float changed(float value, GgufChange change) {
  switch (change) {
    case GgufChange::plus_one:
      return value + 1.0f;
    case GgufChange::minus_exp:
      return -std::exp(value);
    case GgufChange::none:
      break;
  }
  return value;
}

// The rows of one tensor, over the weights that hold them.
class TensorRows {
 public:
  TensorRows(const Checkpoint& checkpoint, const GgufTensor& tensor, const Importance* importance)
      : checkpoint_(checkpoint) {
    for (const GgufRows& rows : tensor.rows) {
      if (weights_.empty() || names_.back() != rows.weight) {
        checkpoint.will_need(checkpoint.get(rows.weight));
        weights_.push_back(std::make_unique<WeightRows>(checkpoint, rows.weight));
        names_.push_back(rows.weight);
      }
      const float* weights = find(importance, rows.weight, weights_.back()->columns());
      for (int64_t i = 0; i < rows.count; ++i)
        rows_.push_back({weights_.back().get(), rows.first + i, weights});
    }
  }
  ~TensorRows() {
    for (const std::string& name : names_) checkpoint_.dont_need(checkpoint_.get(name));
  }
  TensorRows(const TensorRows&) = delete;
  TensorRows& operator=(const TensorRows&) = delete;

  int64_t size() const { return std::ssize(rows_); }
  int64_t columns() const { return weights_.front()->columns(); }
  const SourceRow& operator[](int64_t row) const { return rows_[static_cast<size_t>(row)]; }

 private:
  static const float* find(const Importance* importance, const std::string& weight,
                           int64_t columns) {
    if (!importance) return nullptr;
    const auto found = importance->columns.find(weight);
    if (found == importance->columns.end()) return nullptr;
    if (std::ssize(found->second) != columns)
      fail("tensor {} has {} columns but importances of {}", weight, columns, found->second.size());
    return found->second.data();
  }

  const Checkpoint& checkpoint_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<WeightRows>> weights_;
  std::vector<SourceRow> rows_;
};

// Encodes rows side by side; the first fault ends it.
class ChunkEncoder {
 public:
  ChunkEncoder(ThreadPool& pool, const TensorRows& rows, GgufChange change, DType dtype,
               std::string what)
      : pool_(pool),
        rows_(rows),
        change_(change),
        dtype_(dtype),
        what_(std::move(what)),
        columns_(static_cast<size_t>(rows.columns())),
        row_bytes_(dtype_bytes(dtype, columns_)) {}

  // Rows [first, first + count) to bytes that stand until the next call; what they lose is added to
  // `tensor`, row by row in order.
  std::span<const std::byte> encode(int64_t first, int64_t count, QuantizedTensor& tensor) {
    bytes_.resize(static_cast<size_t>(count) * row_bytes_);
    losses_.assign(static_cast<size_t>(count), {});
    const int64_t grain = std::max<int64_t>(1, 16384 / rows_.columns());
    pool_.parallel_try(count, grain,
                       [&](int64_t begin, int64_t end) { encode_rows(first, begin, end); });
    for (const Loss& loss : losses_) {
      tensor.squared_error += loss.squared_error;
      tensor.squared_norm += loss.squared_norm;
    }
    return bytes_;
  }

 private:
  struct Loss {
    double squared_error = 0;
    double squared_norm = 0;
  };

  void encode_rows(int64_t first, int64_t begin, int64_t end) {
    std::vector<float> values(columns_), stored(columns_);
    std::vector<std::byte> scratch;
    for (int64_t i = begin; i < end; ++i) {
      const SourceRow& source = rows_[first + i];
      source.weight->read(source.row, values.data(), scratch);
      if (change_ != GgufChange::none)
        for (float& value : values) value = changed(value, change_);
      std::byte* out = bytes_.data() + static_cast<size_t>(i) * row_bytes_;
      try {
        encode_row(dtype_, values.data(), source.importance, columns_, out);
      } catch (const Error& error) {
        fail("{}: row {}: {}", what_, first + i, error.what());
      }
      convert_to_float(dtype_, out, stored.data(), columns_);
      Loss& loss = losses_[static_cast<size_t>(i)];
      for (size_t k = 0; k < columns_; ++k) {
        const double difference = double{stored[k]} - values[k];
        loss.squared_error += difference * difference;
        loss.squared_norm += double{values[k]} * values[k];
      }
    }
  }

  ThreadPool& pool_;
  const TensorRows& rows_;
  GgufChange change_;
  DType dtype_;
  std::string what_;  // the tensor, in errors
  size_t columns_;
  size_t row_bytes_;
  std::vector<std::byte> bytes_;
  std::vector<Loss> losses_;
};

// Better said now than in an hour. Nothing where the system does not know.
void check_room(const std::string& path, size_t bytes) {
  std::error_code unknown;
  const fs::path folder = fs::absolute(path).parent_path();
  const fs::space_info space = fs::space(folder, unknown);
  if (!unknown && space.available < bytes)
    fail("cannot write {}: it takes {} bytes, and {} has {} left", path, bytes, folder.string(),
         space.available);
}

}  // namespace

std::vector<QuantizedTensor> quantize(const Config& config, const Checkpoint& checkpoint,
                                      bool with_mtp, const GgufPairs& metadata,
                                      const std::string& path, const QuantizeOptions& options) {
  const std::vector<GgufTensor> layout = gguf_layout(config, with_mtp);
  const std::vector<DType> types = quantize_recipe(layout, options.type, options.overrides);
  std::vector<TensorDeclaration> declarations;
  size_t total = 0, done = 0;
  for (size_t i = 0; i < layout.size(); ++i) {
    declarations.push_back({layout[i].name, types[i], layout[i].shape});
    total += declarations.back().bytes();
  }
  check_room(path, total);
  ThreadPool pool(options.threads);
  GgufWriter writer(path, metadata, declarations);
  std::vector<QuantizedTensor> report;
  for (size_t i = 0; i < layout.size(); ++i) {
    const TensorRows rows(checkpoint, layout[i], options.importance);
    QuantizedTensor& tensor =
        report.emplace_back(QuantizedTensor{layout[i].name, layout[i].spec, types[i]});
    tensor.bytes = declarations[i].bytes();
    tensor.values = rows.size() * rows.columns();
    ChunkEncoder encoder(pool, rows, gguf_change(layout[i].spec.role), types[i],
                         fmt::format("{}: tensor {}", checkpoint.path(), layout[i].name));
    const int64_t chunk = std::max<int64_t>(1, chunk_values / rows.columns());
    for (int64_t first = 0; first < rows.size(); first += chunk) {
      const int64_t count = std::min(chunk, rows.size() - first);
      const std::span<const std::byte> bytes = encoder.encode(first, count, tensor);
      writer.write(tensor.name, bytes);
      done += bytes.size();
      if (options.progress) options.progress(done, total);
    }
  }
  writer.finish();
  return report;
}

}  // namespace qnext
