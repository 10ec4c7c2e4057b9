#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace qnext {

namespace {

namespace fs = std::filesystem;

constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";

// A shard is a file inside the folder; an index from elsewhere must not reach other files.
// (A link in the folder may point anywhere: model caches are made of links.)
bool stays_inside(const std::string& name) {
  const fs::path path(name);
  if (name.empty() || path.is_absolute() || name.find('\0') != std::string::npos) return false;
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool by_name(const StoredTensor& a, const StoredTensor& b) {
  return a.name < b.name;
}

}  // namespace

Checkpoint::Checkpoint(const std::string& path) : path_(path) {
  std::string file = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const fs::path folder(path);
    file = (folder / single_name).string();
    if (!is_there(file)) {
      const fs::path index = folder / index_name;
      if (!is_there(index))
        fail("{}: found neither {} nor {} in this folder", path, single_name, index_name);
      open_shards(path, index.string());
      return;
    }
  } else if (!is_there(path)) {
    fail("{}: no such file or folder; give a folder with {} or {}, or a .safetensors file", path,
         single_name, index_name);
  }
  SafetensorsFile opened(file);
  tensors_ = opened.tensors();
  maps_.push_back(std::make_shared<const MemoryMap>(std::move(opened).take_map()));
}

Checkpoint::Checkpoint(std::string path, Maps maps, std::vector<StoredTensor> tensors,
                       std::deque<std::vector<float>> values)
    : path_(std::move(path)),
      maps_(std::move(maps)),
      tensors_(std::move(tensors)),
      values_(std::move(values)) {
  std::sort(tensors_.begin(), tensors_.end(), by_name);
}

void Checkpoint::open_shards(const std::string& folder, const std::string& index_path) {
  const json::Value index = json::parse_file(index_path);
  const json::Value* map = index.find("weight_map");
  if (!map || !map->is_object()) fail("{}: it has no object \"weight_map\"", index_path);

  std::map<std::string, size_t> shards;  // shard name to its place in `files`
  std::vector<SafetensorsFile> files;
  for (const auto& [tensor, shard] : map->as_object()) {
    if (!shard.is_string())
      fail("{}: tensor {}: its shard is {}, not a file name", index_path, printable(tensor),
           shard.kind_name());
    const std::string& name = shard.as_string();
    auto [place, is_new] = shards.try_emplace(name, files.size());
    if (is_new) {
      if (!stays_inside(name))
        fail("{}: tensor {}: its shard \"{}\" is not a file in this folder", index_path,
             printable(tensor), printable(name));
      const fs::path file = fs::path(folder) / name;
      if (!is_there(file))
        fail("{}: the shard {} is missing from {}; download it", index_path, printable(name),
             folder);
      files.emplace_back(file.string());
    }
    const StoredTensor* stored = files[place->second].find(tensor);
    if (!stored)
      fail("{}: tensor {} is listed in shard {}, which does not have it", index_path,
           printable(tensor), printable(name));
    tensors_.push_back(*stored);
    tensors_.back().file = place->second;
  }
  for (SafetensorsFile& file : files)
    maps_.push_back(std::make_shared<const MemoryMap>(std::move(file).take_map()));
  std::sort(tensors_.begin(), tensors_.end(), by_name);
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  return find_by_name(tensors_, name);
}

const StoredTensor& Checkpoint::get(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  fail("{}: it has no tensor {}", path_, printable(name));
}

namespace {

// Calls act(map index, offset, bytes) for every place where the tensor lies in a file.
template <typename Act>
void for_each_place(const StoredTensor& tensor, Act&& act) {
  if (tensor.file == StoredTensor::no_file) return;
  if (tensor.runs.empty()) return act(tensor.file, tensor.offset, tensor.bytes);
  for (const RowRun& run : tensor.runs)
    act(run.file, run.offset,
        dtype_bytes(run.dtype, static_cast<size_t>(run.rows * tensor.shape.back())));
}

}  // namespace

void Checkpoint::will_need(const StoredTensor& tensor) const {
  for_each_place(tensor, [&](size_t map, size_t offset, size_t bytes) {
    maps_[map]->will_need(offset, bytes);
  });
}

void Checkpoint::dont_need(const StoredTensor& tensor) const {
  for_each_place(tensor, [&](size_t map, size_t offset, size_t bytes) {
    maps_[map]->dont_need(offset, bytes);
  });
}

}  // namespace qnext
