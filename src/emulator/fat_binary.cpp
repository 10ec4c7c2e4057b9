// A fat binary is a header and entries behind it, each a header of its own and a payload. NVIDIA
// does not document their layout; this is as much of it as nvcc 13 writes and this file needs.
#include "emulator/fat_binary.h"

#include <fatbinary_section.h>
#include <zstd.h>

#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace qnext::emulator {
namespace {

constexpr uint32_t file_magic = 0xba55ed50;

struct FileHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t entry_bytes;  // all of them
};
static_assert(sizeof(FileHeader) == 16);

struct EntryHeader {
  uint16_t kind;
  uint16_t version;
  uint32_t header_bytes;
  uint64_t payload_bytes;     // with padding
  uint32_t compressed_bytes;  // without; 0: not compressed
  uint32_t unused[5];
  uint64_t flags;
  uint64_t unused_too;
  uint64_t uncompressed_bytes;
};
static_assert(sizeof(EntryHeader) == 64);

constexpr uint16_t kind_ptx = 1;
constexpr uint64_t flag_lz4 = 0x2000, flag_zstd = 0x8000, flag_other = 0x1000;

// Far above what a .cu file gives: a length beyond it is a damaged header.
constexpr uint64_t most_text = uint64_t{1} << 30;

template <typename Header>
Header read(std::span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof header) fail("a fat binary ends within a header");
  std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

std::string uncompress(std::span<const std::byte> payload, uint64_t bytes) {
  if (bytes > most_text) fail("a fat binary's PTX would have {} bytes", bytes);
  std::string text(bytes, '\0');
  const size_t got = ZSTD_decompress(text.data(), text.size(), payload.data(), payload.size());
  if (ZSTD_isError(got)) fail("a fat binary's PTX: zstd: {}", ZSTD_getErrorName(got));
  if (got != bytes) fail("a fat binary's PTX has {} bytes in place of {}", got, bytes);
  return text;
}

std::string text_of(const EntryHeader& header, std::span<const std::byte> payload) {
  std::string text;
  if (header.flags & flag_zstd) {
    if (header.compressed_bytes > payload.size()) fail("a fat binary ends within its PTX");
    text = uncompress(payload.first(header.compressed_bytes), header.uncompressed_bytes);
  } else if (header.flags & flag_lz4) {
    fail("a fat binary's PTX is compressed with LZ4; only zstd is known here");
  } else if ((header.flags & flag_other) || header.compressed_bytes != 0) {
    fail("a fat binary's PTX is compressed, but not with zstd");
  } else {
    text.assign(reinterpret_cast<const char*>(payload.data()), payload.size());
  }
  text.resize(text.find_last_not_of('\0') + 1);
  return text;
}

}  // namespace

std::string ptx_in(std::span<const std::byte> fat_binary) {
  const auto file = read<FileHeader>(fat_binary);
  if (file.magic != file_magic) fail("a fat binary begins with {:#x}", file.magic);
  if (file.header_bytes < sizeof file || file.header_bytes > fat_binary.size() ||
      file.entry_bytes > fat_binary.size() - file.header_bytes)
    fail("a fat binary is shorter than it says");
  std::span<const std::byte> rest = fat_binary.subspan(file.header_bytes, file.entry_bytes);
  while (!rest.empty()) {
    const auto header = read<EntryHeader>(rest);
    if (header.header_bytes < sizeof header || header.header_bytes > rest.size() ||
        header.payload_bytes > rest.size() - header.header_bytes)
      fail("a fat binary ends within an entry");
    const auto payload = rest.subspan(header.header_bytes, header.payload_bytes);
    if (header.kind == kind_ptx) return text_of(header, payload);
    rest = rest.subspan(header.header_bytes + header.payload_bytes);
  }
  fail("a fat binary has no PTX: compile with code=compute_90a beside code=sm_90a");
}

std::string ptx_of(const void* wrapper) {
  __fatBinC_Wrapper_t control;
  std::memcpy(&control, wrapper, sizeof control);
  if (control.magic != FATBINC_MAGIC) fail("no fat binary: its wrapper has another mark");
  if (control.version != FATBINC_VERSION)
    fail("a fat binary of version {} (relocatable device code) is not known here", control.version);
  const auto* begin = reinterpret_cast<const std::byte*>(control.data);
  const auto header = read<FileHeader>({begin, sizeof(FileHeader)});
  return ptx_in({begin, header.header_bytes + header.entry_bytes});
}

}  // namespace qnext::emulator
