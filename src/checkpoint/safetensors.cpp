#include "checkpoint/safetensors.h"

#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace qnext {

namespace {

constexpr uint64_t maximum_header_bytes = 100'000'000;  // the limit of the published format
constexpr size_t maximum_rank = 16;
constexpr DType stored_dtypes[] = {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3,
                                   DType::i32, DType::i64, DType::u8,   DType::boolean};

std::optional<DType> dtype_from_name(std::string_view name) {
  for (DType dtype : stored_dtypes)
    if (dtype_name(dtype) == name) return dtype;
  return std::nullopt;
}

// Reads the fields of one tensor; `what` and the name prefix every error.
class EntryReader {
 public:
  EntryReader(std::string_view what, std::string_view name, simdjson::dom::element entry)
      : what_(what), name_(name) {
    if (entry.get(object_)) bad("its entry is not an object");
  }

  StoredTensor read(std::span<const std::byte> data, size_t data_offset) const {
    StoredTensor tensor;
    tensor.name = name_;
    tensor.dtype = dtype();
    tensor.shape = shape();
    const auto [begin, end] = offsets();
    if (end < begin) bad("its data ends at {}, before its begin {}", end, begin);
    if (end > data.size())
      bad("its data ends at {}, but the file holds {} bytes of data; the file is cut short", end,
          data.size());
    tensor.bytes = end - begin;
    tensor.offset = data_offset + begin;
    tensor.data = data.data() + begin;
    check_size(tensor);
    return tensor;
  }

 private:
  template <typename... Arguments>
  [[noreturn]] void bad(fmt::format_string<Arguments...> format, Arguments&&... arguments) const {
    fail("{}: tensor {}: {}", what_, printable(name_),
         fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  DType dtype() const {
    std::string_view text;
    if (object_["dtype"].get(text)) bad("it has no dtype");
    const std::optional<DType> found = dtype_from_name(text);
    if (!found)
      bad("its dtype {} is not supported (F32, F16, BF16, F8_E4M3, I32, I64, U8, BOOL are)",
          printable(text));
    return *found;
  }

  std::vector<int64_t> shape() const {
    simdjson::dom::array array;
    if (object_["shape"].get(array)) bad("it has no shape");
    std::vector<int64_t> out;
    for (simdjson::dom::element item : array) {
      int64_t dimension;
      if (item.get(dimension) || dimension < 0)
        bad("dimension {} of its shape is {}, not a size", out.size(),
            printable(std::string(simdjson::minify(item))));
      if (out.size() == maximum_rank) bad("it has more than {} dimensions", maximum_rank);
      out.push_back(dimension);
    }
    return out;
  }

  std::pair<uint64_t, uint64_t> offsets() const {
    simdjson::dom::array array;
    uint64_t value[2];
    if (object_["data_offsets"].get(array)) bad("it has no data_offsets");
    size_t count = 0;
    for (simdjson::dom::element item : array) {
      if (count == 2 || item.get(value[count])) bad("its data_offsets are not two offsets");
      ++count;
    }
    if (count != 2) bad("its data_offsets are not two offsets");
    return {value[0], value[1]};
  }

  void check_size(const StoredTensor& tensor) const {
    size_t need = dtype_bytes(tensor.dtype, 1);
    bool overflow = false;
    for (int64_t dimension : tensor.shape)
      overflow |= __builtin_mul_overflow(need, static_cast<size_t>(dimension), &need);
    if (overflow) bad("its shape {} is too large", shape_text(tensor.shape));
    if (need != tensor.bytes)
      bad("{} {} needs {} bytes, but its data_offsets span {}", dtype_name(tensor.dtype),
          shape_text(tensor.shape), need, tensor.bytes);
  }

  std::string_view what_;
  std::string_view name_;
  simdjson::dom::object object_;
};

uint64_t header_length(std::span<const std::byte> file, std::string_view what) {
  if (file.size() < 8)
    fail("{}: {} bytes are too few for a safetensors file; it is cut short", what, file.size());
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  if (length > maximum_header_bytes)
    fail("{}: its header would be {} bytes long; this is not a safetensors file", what, length);
  if (length > file.size() - 8)
    fail("{}: its header is {} bytes long, but only {} bytes follow; the file is cut short", what,
         length, file.size() - 8);
  return length;
}

void read_metadata(SafetensorsHeader& header, std::string_view what, simdjson::dom::element value) {
  simdjson::dom::object object;
  if (value.get(object)) fail("{}: its __metadata__ is not an object", what);
  for (auto [key, item] : object) {
    std::string_view text;
    if (item.get(text)) fail("{}: its __metadata__ \"{}\" is not a string", what, printable(key));
    header.metadata.insert_or_assign(std::string(key), std::string(text));
  }
}

// The format promises that the tensors tile the data exactly.
void check_tiling(const std::vector<StoredTensor>& tensors, std::string_view what,
                  size_t data_offset, size_t file_bytes) {
  std::vector<const StoredTensor*> order;
  order.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return std::pair(a->offset, a->bytes) < std::pair(b->offset, b->bytes);
  });
  size_t end = data_offset;
  for (const StoredTensor* tensor : order) {
    if (tensor->offset < end)
      fail("{}: tensor {}: its data overlaps that of another tensor", what,
           printable(tensor->name));
    if (tensor->offset > end)
      fail("{}: tensor {}: {} bytes before its data belong to no tensor", what,
           printable(tensor->name), tensor->offset - end);
    end += tensor->bytes;
  }
  if (end != file_bytes)
    fail("{}: the last {} bytes of the file belong to no tensor", what, file_bytes - end);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view what) {
  const uint64_t length = header_length(file, what);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (auto error = parser.parse(text.data(), text.size()).get(root); error)
    fail("{}: its header is not valid JSON: {}", what, simdjson::error_message(error));
  simdjson::dom::object object;
  if (root.get(object)) fail("{}: its header is not a JSON object", what);

  SafetensorsHeader header;
  const size_t data_offset = 8 + length;
  for (auto [name, entry] : object) {
    if (name == "__metadata__")
      read_metadata(header, what, entry);
    else
      header.tensors.push_back(
          EntryReader(what, name, entry).read(file.subspan(data_offset), data_offset));
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < header.tensors.size(); ++i)
    if (header.tensors[i - 1].name == header.tensors[i].name)
      fail("{}: tensor {}: its name appears twice", what, printable(header.tensors[i].name));
  check_tiling(header.tensors, what, data_offset, file.size());
  return header;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path),
      map_(path),
      header_(parse_safetensors_header(std::span(map_.data(), map_.size()), path)) {}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  return find_by_name(header_.tensors, name);
}

const StoredTensor& SafetensorsFile::get(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  fail("{}: it has no tensor {}", path_, printable(name));
}

}  // namespace qnext
