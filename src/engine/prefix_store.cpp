#include "engine/prefix_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"

namespace qnext::engine {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "files hold numbers as memory does");

constexpr char magic[8] = {'q', 'n', 'e', 'x', 't', 'p', 'f', '1'};
constexpr const char* extension = ".prefix";

// At the start of a file; int32 tokens follow, filled up to 8 bytes, then pages, then the state.
struct Head {
  char magic[8];
  uint64_t fingerprint;
  int64_t tokens;
  int64_t from;
  int64_t mtp_next;
  uint64_t checksum;  // of the file, with this one 0
};

// The finaliser of SplitMix64 (Steele et al. 2014).
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

uint64_t extend(uint64_t hash, int32_t token) {
  return mix(hash * 31 + static_cast<uint32_t>(token) + 0x9e3779b97f4a7c15u);
}

// Four lanes, so that it runs at the memory's speed. Against torn files, not against an attacker.
uint64_t checksum_of(std::span<const std::byte> bytes) {
  uint64_t lanes[4] = {1, 2, 3, 4};
  size_t at = 0;
  for (; at + sizeof lanes <= bytes.size(); at += sizeof lanes)
    for (size_t i = 0; i < 4; ++i) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + at + 8 * i, sizeof word);
      lanes[i] = std::rotl((lanes[i] ^ word) * 0x9e3779b97f4a7c15u, 29);
    }
  uint64_t sum = mix(bytes.size());
  for (; at < bytes.size(); ++at) sum = mix(sum ^ std::to_integer<uint64_t>(bytes[at]));
  for (const uint64_t lane : lanes) sum = mix(sum ^ lane);
  return sum;
}

// As the file has it: the checksum's own place counts as 0.
uint64_t checksum_of_file(Head head, std::span<const std::byte> behind_head) {
  head.checksum = 0;
  return mix(checksum_of(std::as_bytes(std::span(&head, 1)))) ^ checksum_of(behind_head);
}

// Calls act(count, hash) for each prefix of whole pages.
template <typename Act>
void each_prefix(std::span<const int32_t> tokens, int64_t page_tokens, const Act& act) {
  uint64_t hash = 0;
  for (int64_t count = 1; count <= std::ssize(tokens); ++count) {
    hash = extend(hash, tokens[static_cast<size_t>(count - 1)]);
    if (count % page_tokens == 0) act(count, hash);
  }
}

size_t token_bytes(int64_t tokens) {
  return (static_cast<size_t>(tokens) * sizeof(int32_t) + 7) / 8 * 8;
}

}  // namespace

std::span<std::byte> PrefixStore::Draft::page(int64_t index) {
  auto* bytes = reinterpret_cast<std::byte*>(image_.data());
  return {bytes + pages_at_ + static_cast<size_t>(index) * page_bytes_, page_bytes_};
}

std::span<std::byte> PrefixStore::Draft::state() {
  auto* bytes = reinterpret_cast<std::byte*>(image_.data());
  return {bytes + state_at_, image_.size() - state_at_};
}

PrefixStore::PrefixStore(const Limits& limits)
    : limits_(limits),
      folder_((fs::path(limits.folder) / fmt::format("{:016x}", limits.fingerprint)).string()) {
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem) fail("cannot make the cache's folder {}: {}", folder_, problem.message());
  read_folder();
  writer_ = std::thread([this] { write_all(); });
  reader_ = std::thread([this] { read_all(); });
}

PrefixStore::~PrefixStore() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  writer_.join();
  reader_.join();
}

std::string PrefixStore::path_of(uint64_t hash) const {
  return fmt::format("{}/{:016x}{}", folder_, hash, extension);
}

uint64_t PrefixStore::hash_of(std::span<const int32_t> tokens) const {
  uint64_t hash = 0;
  for (const int32_t token : tokens) hash = extend(hash, token);
  return hash;
}

size_t PrefixStore::image_bytes(int64_t tokens, int64_t from) const {
  return sizeof(Head) + token_bytes(tokens) +
         static_cast<size_t>((tokens - from) / limits_.page_tokens) * limits_.page_bytes +
         limits_.state_bytes;
}

// --- what is there ------------------------------------------------------------------------------

void PrefixStore::read_folder() {
  std::vector<std::pair<fs::file_time_type, std::string>> files;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    // What is not whole keeps the name that it was written under.
    if (entry.path().extension() != extension)
      fs::remove(entry.path(), ignored);
    else
      files.emplace_back(entry.last_write_time(ignored), entry.path().string());
  }
  std::ranges::sort(files);
  for (const auto& [time, path] : files) add_file(path);
  for (const auto& [time, path] : files)
    touch(std::strtoull(fs::path(path).stem().c_str(), nullptr, 16));
  keep_budget();
}

// By its head; read() checks the rest.
void PrefixStore::add_file(const std::string& path) {
  try {
    const MemoryMap map(path);
    Head head{};
    if (map.size() >= sizeof head) std::memcpy(&head, map.data(), sizeof head);
    const bool ours =
        std::memcmp(head.magic, magic, sizeof magic) == 0 &&
        head.fingerprint == limits_.fingerprint && head.from >= 0 && head.from < head.tokens &&
        head.tokens < int64_t{1} << 40 && head.from % limits_.page_tokens == 0 &&
        head.tokens % limits_.page_tokens == 0 && map.size() == image_bytes(head.tokens, head.from);
    if (ours) {
      std::vector<int32_t> tokens(static_cast<size_t>(head.tokens));
      std::memcpy(tokens.data(), map.data() + sizeof head, tokens.size() * sizeof(int32_t));
      const uint64_t hash = hash_of(tokens);
      if (path == path_of(hash)) {
        const uint64_t parent = hash_of(std::span(tokens).first(static_cast<size_t>(head.from)));
        segments_[hash] = {head.from, head.tokens, static_cast<int32_t>(head.mtp_next),
                           hash,      parent,      map.size(),
                           0};
        bytes_ += map.size();
        return;
      }
    }
  } catch (const Error&) {
    // Gone, or not to be read: as good as not there.
  }
  std::error_code ignored;
  fs::remove(path, ignored);
}

size_t PrefixStore::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

std::vector<PrefixStore::Segment> PrefixStore::find(std::span<const int32_t> prompt,
                                                    int64_t longer_than, int64_t known_pages) {
  const std::lock_guard lock(mutex_);
  std::map<int64_t, Segment*> on_path;  // by tokens
  const auto all_but_a_row = prompt.first(prompt.empty() ? 0 : prompt.size() - 1);
  each_prefix(all_but_a_row, limits_.page_tokens, [&](int64_t count, uint64_t hash) {
    const auto found = segments_.find(hash);
    if (found != segments_.end() && found->second.tokens == count) on_path[count] = &found->second;
  });
  for (auto deepest = on_path.rbegin(); deepest != on_path.rend(); ++deepest) {
    if (deepest->first <= longer_than) break;
    std::vector<Segment> chain;
    const Segment* next = deepest->second;
    while (next) {
      chain.push_back(*next);
      if (next->from <= known_pages) break;
      const auto above = on_path.find(next->from);
      next = above == on_path.end() ? nullptr : above->second;
    }
    if (!next) continue;  // a file on the way is missing
    std::ranges::reverse(chain);
    touch(chain.back().hash);
    return chain;
  }
  return {};
}

// A prefix is used no less lately than those that build on it.
void PrefixStore::touch(uint64_t hash) {
  for (auto found = segments_.find(hash); found != segments_.end();
       found = segments_.find(found->second.parent)) {
    found->second.used = ++uses_;
    if (found->second.from == 0) return;
  }
}

int64_t PrefixStore::stored(std::span<const int32_t> tokens) const {
  const std::lock_guard lock(mutex_);
  int64_t longest = 0;
  each_prefix(tokens, limits_.page_tokens, [&](int64_t count, uint64_t hash) {
    const bool waits = std::ranges::any_of(
        waiting_, [hash](const Draft& draft) { return draft.segment_.hash == hash; });
    if (waits || segments_.contains(hash)) longest = count;
  });
  return longest;
}

std::optional<PrefixStore::Contents> PrefixStore::read(const Segment& segment,
                                                       std::span<const int32_t> prompt) {
  const std::string path = path_of(segment.hash);
  try {
    Contents contents{.map = MemoryMap(path), .pages = {}, .state = {}};
    const std::span file(contents.map.data(), contents.map.size());
    Head head{};
    if (file.size() == image_bytes(segment.tokens, segment.from)) {
      std::memcpy(&head, file.data(), sizeof head);
      const auto wanted = std::as_bytes(prompt.first(static_cast<size_t>(segment.tokens)));
      if (std::memcmp(file.data() + sizeof head, wanted.data(), wanted.size()) == 0 &&
          head.checksum == checksum_of_file(head, file.subspan(sizeof head))) {
        contents.state = file.last(limits_.state_bytes);
        const size_t pages_at = sizeof head + token_bytes(segment.tokens);
        contents.pages = file.subspan(pages_at, file.size() - pages_at - limits_.state_bytes);
        return contents;
      }
    }
  } catch (const Error&) {
    // Somebody removed it.
  }
  const std::lock_guard lock(mutex_);
  forget(segment.hash);
  return std::nullopt;
}

bool PrefixStore::Load::done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

void PrefixStore::Load::wait(std::chrono::milliseconds most) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, most, [this] { return done_; });
}

std::optional<PrefixStore::Contents> PrefixStore::Load::take(const Segment& segment) {
  const std::lock_guard lock(mutex_);
  auto found = contents_.extract(segment.hash);
  if (found.empty()) return std::nullopt;
  return std::move(found.mapped());
}

std::shared_ptr<PrefixStore::Load> PrefixStore::load(std::vector<Segment> segments,
                                                     std::span<const int32_t> prompt) {
  auto load = std::make_shared<Load>();
  load->prompt_.assign(prompt.begin(), prompt.end());
  load->segments_ = std::move(segments);
  {
    const std::lock_guard lock(mutex_);
    loads_.push_back(load);
  }
  changed_.notify_all();
  return load;
}

// Up to the first that cannot be read.
std::map<uint64_t, PrefixStore::Contents> PrefixStore::read_files(const Load& load) {
  std::map<uint64_t, Contents> all;
  for (const Segment& segment : load.segments_) {
    if (limits_.reading) limits_.reading();
    std::optional<Contents> contents = read(segment, load.prompt_);
    if (!contents) break;
    all.emplace(segment.hash, std::move(*contents));
  }
  return all;
}

void PrefixStore::read_all() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !loads_.empty(); });
    if (loads_.empty()) return;
    const std::shared_ptr<Load> load = std::move(loads_.front());
    loads_.pop_front();
    const bool is_wanted = !ending_ && load.use_count() > 1;
    lock.unlock();
    std::map<uint64_t, Contents> all;
    if (is_wanted) all = read_files(*load);
    {
      const std::lock_guard own(load->mutex_);
      load->contents_ = std::move(all);
      load->done_ = true;
    }
    load->changed_.notify_all();
    lock.lock();
  }
}

// --- what is to come ----------------------------------------------------------------------------

PrefixStore::Draft PrefixStore::draft(std::span<const int32_t> tokens, int64_t from,
                                      int32_t mtp_next) const {
  const int64_t count = std::ssize(tokens);
  QNEXT_CHECK(from < count && from % limits_.page_tokens == 0 && count % limits_.page_tokens == 0);
  Draft draft;
  const uint64_t parent = hash_of(tokens.first(static_cast<size_t>(from)));
  draft.segment_ = {from, count, mtp_next, hash_of(tokens), parent, image_bytes(count, from), 0};
  draft.image_.resize(draft.segment_.bytes);
  std::memcpy(draft.image_.data() + sizeof(Head), tokens.data(), tokens.size_bytes());
  draft.pages_at_ = sizeof(Head) + token_bytes(count);
  draft.page_bytes_ = limits_.page_bytes;
  draft.state_at_ = draft.image_.size() - limits_.state_bytes;
  return draft;
}

bool PrefixStore::put(Draft draft, bool wait) {
  const size_t size = draft.segment_.bytes;
  std::unique_lock lock(mutex_);
  const auto fits = [&] {
    return waiting_.empty() || waiting_bytes_ + size <= limits_.waiting_bytes;
  };
  if (size > limits_.bytes) return false;
  if (wait) changed_.wait(lock, fits);
  if (!fits()) return false;
  waiting_bytes_ += size;
  waiting_.push_back(std::move(draft));
  lock.unlock();
  changed_.notify_all();
  return true;
}

void PrefixStore::write_all() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    Draft& draft = waiting_.front();  // others are added behind it only
    lock.unlock();
    bool written = true;
    try {
      Head head{.magic = {},
                .fingerprint = limits_.fingerprint,
                .tokens = draft.segment_.tokens,
                .from = draft.segment_.from,
                .mtp_next = draft.segment_.mtp_next,
                .checksum = 0};
      std::memcpy(head.magic, magic, sizeof magic);
      head.checksum =
          checksum_of_file(head, std::as_bytes(std::span(draft.image_).subspan(sizeof head)));
      std::memcpy(draft.image_.data(), &head, sizeof head);
      write_file(path_of(draft.segment_.hash), draft.image_);
    } catch (const Error&) {
      written = false;  // a full disk, say: the prefix will be computed again
    }
    lock.lock();
    if (written) {
      Segment& segment = segments_[draft.segment_.hash];
      bytes_ -= segment.bytes;
      segment = draft.segment_;
      bytes_ += segment.bytes;
      touch(segment.hash);
    }
    waiting_bytes_ -= draft.segment_.bytes;
    waiting_.pop_front();
    keep_budget();
    changed_.notify_all();
  }
}

void PrefixStore::forget(uint64_t hash) {
  const auto found = segments_.find(hash);
  if (found == segments_.end()) return;
  bytes_ -= found->second.bytes;
  segments_.erase(found);
  std::error_code ignored;
  fs::remove(path_of(hash), ignored);
}

// touch() sees to it that whatever builds on a prefix goes before it.
void PrefixStore::keep_budget() {
  while (bytes_ > limits_.bytes) {
    const auto least = std::ranges::min_element(
        segments_, {}, [](const auto& entry) { return entry.second.used; });
    forget(least->first);
  }
}

}  // namespace qnext::engine
