#include "checkpoint/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "checkpoint/gguf.h"
#include "checkpoint/temporary_folder.h"

namespace qnext {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<std::byte> bytes_of(size_t count, int value) {
  return std::vector<std::byte>(count, static_cast<std::byte>(value));
}
size_t files_in(const TemporaryFolder& folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder / ""))
    ++count;
  return count;
}

TEST(GgufWriter, WritesWhatTheReaderReads) {
  const TemporaryFolder folder;
  GgufPairs metadata;
  metadata.add("integer", 7u);
  metadata.add("number", 0.5f);
  metadata.add("boolean", true);
  metadata.add("text", "a\nb");
  metadata.add("texts", std::vector<std::string>{"x", "", "yz"});
  metadata.add("integers", std::vector<int32_t>{-1, 2});
  metadata.add("booleans", std::vector<bool>{true, false});
  // Sizes that are no multiples of the alignment, one of nothing, one in pieces.
  const std::vector<TensorDeclaration> tensors = {{"f32", DType::f32, {3}},
                                                  {"none", DType::f32, {0, 4}},
                                                  {"q4_k", DType::q4_k, {2, 3, 256}},
                                                  {"q8_0", DType::q8_0, {1, 32}}};
  GgufWriter writer(folder / "x.gguf", metadata, tensors);
  writer.write("f32", bytes_of(12, 1));
  for (int row = 0; row < 6; ++row) writer.write("q4_k", bytes_of(144, row));
  writer.write("q8_0", bytes_of(34, 9));
  EXPECT_FALSE(std::filesystem::exists(folder / "x.gguf"));
  writer.finish();
  EXPECT_EQ(files_in(folder), 1u);

  const GgufFiles files(folder / "x.gguf");
  const GgufMetadata& read = files.metadata();
  EXPECT_EQ(read.integer("integer"), 7);
  EXPECT_EQ(read.number("number"), 0.5);
  EXPECT_EQ(read.find_boolean("boolean"), true);
  EXPECT_EQ(read.string("text"), "a\nb");
  EXPECT_THAT(read.strings("texts"), ElementsAre("x", "", "yz"));
  EXPECT_THAT(*read.find_integers("integers"), ElementsAre(-1, 2));
  EXPECT_THAT(*read.find_integers("booleans"), ElementsAre(1, 0));
  ASSERT_EQ(files.tensors().size(), 4u);
  for (const TensorDeclaration& tensor : tensors) {
    const StoredTensor* found = files.find(tensor.name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->dtype, tensor.dtype);
    EXPECT_EQ(found->shape, tensor.shape);
  }
  EXPECT_EQ(std::memcmp(files.find("q8_0")->data, bytes_of(34, 9).data(), 34), 0);
  for (int row = 0; row < 6; ++row)
    EXPECT_EQ(std::memcmp(files.find("q4_k")->data + 144 * row, bytes_of(144, row).data(), 144), 0);
}

TEST(GgufWriter, LeavesNothingBehindUnlessFinished) {
  const TemporaryFolder folder;
  {
    GgufWriter writer(folder / "x.gguf", {}, {{"t", DType::f32, {4}}});
    writer.write("t", bytes_of(8, 1));
    EXPECT_EQ(files_in(folder), 1u);
  }
  EXPECT_EQ(files_in(folder), 0u);
}

TEST(GgufWriter, SaysWhatItCannotWrite) {
  const TemporaryFolder folder;
  const auto expect_error = [&](const std::string& path, TensorDeclaration tensor,
                                const std::string& part) {
    EXPECT_THAT([&] { GgufWriter(path, {}, {tensor}); }, ThrowsMessage<Error>(HasSubstr(part)));
  };
  const std::string path = folder / "x.gguf";
  expect_error(path, {std::string(64, 'n'), DType::f32, {1}}, "is longer than 63 bytes");
  expect_error(path, {"t", DType::f32, {1, 1, 1, 1, 1}}, "tensor t has 5 dimensions");
  expect_error(path, {"t", DType::f8_e4m3, {1}}, "GGUF has no type F8_E4M3");
  expect_error(folder / "absent/x.gguf", {"t", DType::f32, {1}}, "No such file or directory");
  EXPECT_EQ(files_in(folder), 0u);
}

TEST(GgufWriter, AFullDiskIsOneError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  // The temporary file is a link to the device, which takes no byte.
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  std::filesystem::create_symlink("/dev/full", fmt::format("{}.{}.tmp", path, getpid()));
  EXPECT_THAT(
      [&] {
        GgufWriter(path, {}, {{"t", DType::f32, {1}}});
      },
      ThrowsMessage<Error>(::testing::StrEq("cannot write " + path + ": No space left on device")));
  EXPECT_EQ(files_in(folder), 0u);
}

}  // namespace
}  // namespace qnext
