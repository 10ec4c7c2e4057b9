#include "checkpoint/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>

#include "base/error.h"
#include "checkpoint/gguf_reader.h"
#include "checkpoint/gguf_types.h"

namespace qnext {

namespace {

namespace fs = std::filesystem;

constexpr uint32_t magic = 0x46554747;  // "GGUF"
constexpr size_t longest_key = 65535;   // of the published format
constexpr size_t longest_name = 1024;   // it says 64; some writers do not keep to it
constexpr uint32_t maximum_rank = 4;
constexpr int64_t default_alignment = 32;
constexpr int64_t maximum_alignment = 1 << 20;

DType dtype_of(const GgufReader& reader, uint32_t number, const std::string& place) {
  const auto* found = std::ranges::find(gguf_tensor_types, number, &GgufTensorType::number);
  if (found == std::end(gguf_tensor_types)) reader.bad("{} has the unknown type {}", place, number);
  if (found->dtype) return *found->dtype;
  std::string known;
  for (const GgufTensorType& type : gguf_tensor_types)
    if (type.dtype) known += (known.empty() ? "" : ", ") + std::string(type.name);
  reader.bad("{} is {}, which is not supported ({} are)", place, found->name, known);
}

void read_prologue(GgufReader& reader) {
  const std::string_view place = "its head";
  if (reader.left() < sizeof magic || reader.number<uint32_t>(place) != magic)
    reader.bad("this is not a GGUF file: it does not begin with \"GGUF\"");
  const auto version = reader.number<uint32_t>(place);
  if (version != 0 && (version & 0xFFFF) == 0)
    reader.bad("it is written big-endian, which is not supported");
  if (version != 2 && version != 3)
    reader.bad("it has version {} of the format; 2 and 3 are supported", version);
}

void read_metadata(GgufReader& reader, uint64_t count, GgufMetadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = reader.string(longest_key, fmt::format("metadata key {}", i));
    if (key.empty()) reader.bad("metadata key {} is empty", i);
    const std::string place = "metadata " + printable(key);
    const auto type = reader.number<uint32_t>(place);
    if (!metadata.add(key, reader.value(type, place))) reader.bad("{} appears twice", place);
  }
}

size_t alignment_of(const GgufReader& reader, const GgufMetadata& metadata) {
  const int64_t alignment = metadata.find_integer("general.alignment").value_or(default_alignment);
  if (alignment < 1 || alignment > maximum_alignment ||
      !std::has_single_bit(static_cast<uint64_t>(alignment)))
    reader.bad("metadata general.alignment = {} is not a power of two up to {}", alignment,
               maximum_alignment);
  return static_cast<size_t>(alignment);
}

// All but where it lies in the file; its offset counts from the start of all data.
StoredTensor read_tensor(GgufReader& reader, uint64_t index) {
  StoredTensor tensor;
  const std::string_view name = reader.string(longest_name, fmt::format("tensor {}", index));
  if (name.empty()) reader.bad("tensor {} has no name", index);
  tensor.name = name;
  const std::string place = "tensor " + printable(name);
  const auto rank = reader.number<uint32_t>(place);
  if (rank < 1 || rank > maximum_rank)
    reader.bad("{} has {} dimensions; 1 to {} are supported", place, rank, maximum_rank);
  std::array<uint64_t, maximum_rank> sizes{};
  for (uint32_t i = 0; i < rank; ++i) sizes[i] = reader.number<uint64_t>(place);
  tensor.dtype = dtype_of(reader, reader.number<uint32_t>(place), place);
  tensor.offset = reader.number<uint64_t>(place);

  const BlockLayout& layout = block_layout(tensor.dtype);
  if (sizes[0] % layout.values != 0)
    reader.bad("{} is {} with rows of {} values, which are no whole blocks of {}", place,
               dtype_name(tensor.dtype), sizes[0], layout.values);
  // Elements and bytes both stay below 2^63.
  int64_t elements = 1;
  bool overflow = false;
  for (uint32_t i = rank; i-- > 0;) {
    overflow |= sizes[i] > INT64_MAX;
    tensor.shape.push_back(static_cast<int64_t>(sizes[i]));
    overflow |= __builtin_mul_overflow(elements, tensor.shape.back(), &elements);
  }
  int64_t bytes = 0;
  overflow |= __builtin_mul_overflow(elements / static_cast<int64_t>(layout.values),
                                     static_cast<int64_t>(layout.bytes), &bytes);
  if (overflow) reader.bad("{} has a shape that is too large", place);
  tensor.bytes = static_cast<size_t>(bytes);
  return tensor;
}

void place_tensors(const GgufReader& reader, std::span<const std::byte> file, size_t alignment,
                   std::vector<StoredTensor>& tensors) {
  const size_t start = (reader.position() + alignment - 1) / alignment * alignment;
  const size_t room = start < file.size() ? file.size() - start : 0;
  for (StoredTensor& tensor : tensors) {
    const std::string place = "tensor " + printable(tensor.name);
    if (tensor.offset % alignment != 0)
      reader.bad("{} begins at {}, which is no multiple of the alignment {}", place, tensor.offset,
                 alignment);
    if (tensor.offset > room || tensor.bytes > room - tensor.offset)
      reader.bad(
          "{} takes {} bytes from {} on, but the file holds {} bytes of data; it is cut short",
          place, tensor.bytes, tensor.offset, room);
    tensor.offset += start;
    tensor.data = file.data() + tensor.offset;
  }
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors) order.push_back(&tensor);
  std::ranges::sort(order, [](const StoredTensor* a, const StoredTensor* b) {
    return std::pair(a->offset, a->bytes) < std::pair(b->offset, b->bytes);
  });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset)
      reader.bad("tensor {} overlaps tensor {}", printable(order[i]->name),
                 printable(order[i - 1]->name));
}

// Sorts, and throws where a name appears twice.
void sort_by_name(std::vector<StoredTensor>& tensors, std::string_view what) {
  std::ranges::sort(tensors, {}, &StoredTensor::name);
  const auto twice = std::ranges::adjacent_find(tensors, {}, &StoredTensor::name);
  if (twice != tensors.end())
    fail("{}: tensor {}: its name appears twice", what, printable(twice->name));
}

std::string part_ending(int64_t number, int64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

}  // namespace

GgufHeader parse_gguf_header(std::span<const std::byte> file, std::string_view what) {
  GgufReader reader(file, what);
  read_prologue(reader);
  const auto tensor_count = reader.number<uint64_t>("its head");
  const auto metadata_count = reader.number<uint64_t>("its head");
  GgufHeader header;
  header.metadata = GgufMetadata(std::string(what));
  read_metadata(reader, metadata_count, header.metadata);
  for (uint64_t i = 0; i < tensor_count; ++i) header.tensors.push_back(read_tensor(reader, i));
  place_tensors(reader, file, alignment_of(reader, header.metadata), header.tensors);
  sort_by_name(header.tensors, what);
  return header;
}

GgufFiles::GgufFiles(const std::string& path) : path_(path) {
  GgufHeader first = open(path);
  metadata_ = std::move(first.metadata);
  tensors_ = std::move(first.tensors);
  const int64_t count = metadata_.find_integer("split.count").value_or(1);
  if (count <= 1) return;

  constexpr int64_t most_parts = 99999;
  const int64_t number = metadata_.integer("split.no");
  if (count > most_parts) fail("{}: metadata split.count = {} is out of range", path, count);
  if (number != 0) fail("{}: this is part {} of {}; give the first", path, number + 1, count);
  const std::string ending = part_ending(0, count);
  if (!path.ends_with(ending))
    fail("{}: this is part 1 of {}, so its name must end in {}", path, count, ending);
  const std::string stem = path.substr(0, path.size() - ending.size());
  for (int64_t part = 1; part < count; ++part)
    open_part(stem + part_ending(part, count), part, count);
  sort_by_name(tensors_, path);
  const auto expected = metadata_.find_integer("split.tensors.count");
  if (expected && *expected != static_cast<int64_t>(tensors_.size()))
    fail("{}: its parts have {} tensors, but metadata split.tensors.count = {}", path,
         tensors_.size(), *expected);
}

GgufHeader GgufFiles::open(const std::string& path) {
  const auto& map = maps_.emplace_back(std::make_shared<const MemoryMap>(path));
  return parse_gguf_header(std::span(map->data(), map->size()), path);
}

void GgufFiles::open_part(const std::string& path, int64_t number, int64_t count) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail("{}: part {} is missing: {}", path_, number + 1, path);
  GgufHeader part = open(path);
  const int64_t its_number = part.metadata.integer("split.no");
  const int64_t its_count = part.metadata.integer("split.count");
  if (its_number != number || its_count != count)
    fail("{}: this is part {} of {}, not {} of {}", path, its_number + 1, its_count, number + 1,
         count);
  for (StoredTensor& tensor : part.tensors) {
    tensor.file = maps_.size() - 1;
    tensors_.push_back(std::move(tensor));
  }
}

const StoredTensor* GgufFiles::find(std::string_view name) const {
  return find_by_name(tensors_, name);
}

}  // namespace qnext
