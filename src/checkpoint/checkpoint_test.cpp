#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/temporary_folder.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// A file with one U8 tensor per name, each holding its name's first letter.
void write_tensors(const std::string& path, const std::vector<std::string>& names) {
  std::vector<TensorDeclaration> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::u8, {1}});
  SafetensorsWriter writer(path, tensors);
  for (const std::string& name : names)
    writer.write(name, std::as_bytes(std::span(name.data(), 1)));
  writer.finish();
}

void write_index(const TemporaryFolder& folder, const std::string& weight_map) {
  write_file(folder / "model.safetensors.index.json", "{\"weight_map\": " + weight_map + "}");
}

void expect_error(const std::string& path, const std::string& part) {
  EXPECT_THAT([&] { Checkpoint checkpoint(path); },
              ThrowsMessage<Error>(AllOf(HasSubstr(path), HasSubstr(part))));
}

char value_of(const Checkpoint& checkpoint, const std::string& name) {
  return static_cast<char>(*checkpoint.get(name).data);
}

TEST(Checkpoint, OpensOneFileDirectlyOrInAFolder) {
  TemporaryFolder folder;
  write_tensors(folder / "model.safetensors", {"b", "a"});
  for (const std::string& path : {folder.path(), folder / "model.safetensors"}) {
    const Checkpoint checkpoint(path);
    ASSERT_EQ(checkpoint.tensors().size(), 2u);
    EXPECT_EQ(checkpoint.tensors()[0].name, "a");
    EXPECT_EQ(value_of(checkpoint, "b"), 'b');
    EXPECT_EQ(checkpoint.find("c"), nullptr);
    EXPECT_THAT([&] { checkpoint.get("c"); }, ThrowsMessage<Error>(HasSubstr("no tensor c")));
  }
}

TEST(Checkpoint, GathersShards) {
  TemporaryFolder folder;
  write_tensors(folder / "one.safetensors", {"c", "a"});
  write_tensors(folder / "two.safetensors", {"b", "extra"});
  write_index(folder,
              R"({"c": "one.safetensors", "b": "two.safetensors", "a": "one.safetensors"})");
  const Checkpoint checkpoint(folder.path());
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.maps().size(), 2u);
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_EQ(value_of(checkpoint, name), name[0]);
    const StoredTensor& tensor = checkpoint.get(name);
    EXPECT_EQ(checkpoint.maps()[tensor.file]->data() + tensor.offset, tensor.data);
    checkpoint.will_need(tensor);
    checkpoint.dont_need(tensor);
    EXPECT_EQ(value_of(checkpoint, name), name[0]);
  }
  EXPECT_EQ(checkpoint.find("extra"), nullptr);
}

TEST(Checkpoint, SaysWhatItLookedFor) {
  TemporaryFolder folder;
  expect_error(folder.path(), "neither model.safetensors nor model.safetensors.index.json");
  expect_error(folder / "absent", "no such file or folder");
}

TEST(Checkpoint, NamesMissingShardsAndTensors) {
  TemporaryFolder folder;
  write_tensors(folder / "one.safetensors", {"a"});
  write_index(folder, R"({"a": "one.safetensors", "b": "two.safetensors"})");
  expect_error(folder.path(), "the shard two.safetensors is missing from " + folder.path());
  write_index(folder, R"({"a": "one.safetensors", "b": "one.safetensors"})");
  expect_error(folder.path(),
               "tensor b is listed in shard one.safetensors, which does not have it");
}

TEST(Checkpoint, RefusesBadIndexes) {
  TemporaryFolder folder;
  write_index(folder, "[]");
  expect_error(folder.path(), "it has no object \"weight_map\"");
  write_index(folder, R"({"a": 3})");
  expect_error(folder.path(), "tensor a: its shard is an integer, not a file name");
  write_file(folder / "model.safetensors.index.json", "{");
  expect_error(folder.path(), "not valid JSON");
}

TEST(Checkpoint, RefusesShardsOutsideTheFolder) {
  TemporaryFolder outside;
  write_tensors(outside / "x.safetensors", {"a"});
  TemporaryFolder folder;
  const std::string name = std::filesystem::path(outside.path()).filename().string();
  for (const std::string& shard : {"../" + name + "/x.safetensors", outside / "x.safetensors",
                                   std::string("sub/../../x.safetensors"), std::string(),
                                   std::string("x.safetensors\\u0000y")}) {
    write_index(folder, "{\"a\": \"" + shard + "\"}");
    expect_error(folder.path(), "is not a file in this folder");
  }
}

TEST(Checkpoint, FaultsOfAShardNameTheShard) {
  TemporaryFolder folder;
  write_tensors(folder / "one.safetensors", {"a"});
  std::filesystem::resize_file(folder / "one.safetensors",
                               std::filesystem::file_size(folder / "one.safetensors") - 1);
  write_index(folder, R"({"a": "one.safetensors"})");
  expect_error(folder.path(),
               "one.safetensors: tensor a: its data ends at 1, but the file holds 0");
}

}  // namespace
}  // namespace qnext
