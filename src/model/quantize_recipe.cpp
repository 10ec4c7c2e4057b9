#include "model/quantize_recipe.h"

#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>

#include "base/error.h"

namespace qnext {

namespace {

struct Recipe {
  const char* name;
  DType type;
  DType output;      // embedding and lm_head
  DType short_rows;  // in place of `type` where rows are no whole blocks of it
  uint32_t file_type;
};

constexpr Recipe recipes[] = {
    // type                output        short rows    file_type
    {"f32", DType::f32, DType::f32, DType::f32, 0},
    {"f16", DType::f16, DType::f16, DType::f16, 1},
    {"bf16", DType::bf16, DType::bf16, DType::bf16, 32},
    {"q8_0", DType::q8_0, DType::q8_0, DType::bf16, 7},
    {"q6_k", DType::q6_k, DType::q8_0, DType::q8_0, 18},
    {"q5_k", DType::q5_k, DType::q6_k, DType::q5_1, 16},
    {"q5_1", DType::q5_1, DType::q6_k, DType::bf16, 9},
    {"q5_0", DType::q5_0, DType::q6_k, DType::bf16, 8},
    {"q4_k", DType::q4_k, DType::q6_k, DType::q5_0, 14},
    {"q4_1", DType::q4_1, DType::q6_k, DType::bf16, 3},
    {"q4_0", DType::q4_0, DType::q6_k, DType::bf16, 2},
    {"iq4_nl", DType::iq4_nl, DType::q6_k, DType::bf16, 25},
    {"iq4_xs", DType::iq4_xs, DType::q6_k, DType::iq4_nl, 30},
    {"q3_k", DType::q3_k, DType::q6_k, DType::iq4_nl, 11},
    {"q2_k", DType::q2_k, DType::q6_k, DType::iq4_nl, 10}};

const Recipe& recipe_of(DType type) {
  const auto* found = std::ranges::find(recipes, type, &Recipe::type);
  QNEXT_CHECK(found != std::end(recipes), "no recipe of {}", dtype_name(type));
  return *found;
}

bool is_matrix(const GgufTensor& tensor) {
  return tensor.shape.size() > 1 && tensor.spec.role != WeightRole::delta_conv1d;
}

bool is_kept(const GgufTensor& tensor) {
  return !is_matrix(tensor) || tensor.spec.role == WeightRole::router ||
         tensor.spec.role == WeightRole::delta_in_proj_ba;
}

DType for_rows(DType type, const GgufTensor& tensor) {
  while (static_cast<size_t>(tensor.shape.back()) % block_layout(type).values != 0)
    type = recipe_of(type).short_rows;
  return type;
}

}  // namespace

std::vector<std::string> quantize_type_names() {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes) names.emplace_back(recipe.name);
  return names;
}

DType quantize_type(const std::string& name) {
  for (const Recipe& recipe : recipes)
    if (recipe.name == name) return recipe.type;
  fail("there is no type \"{}\"; there are {}", name, fmt::join(quantize_type_names(), ", "));
}

uint32_t gguf_file_type(DType type) {
  return recipe_of(type).file_type;
}

std::vector<DType> quantize_recipe(const std::vector<GgufTensor>& tensors, DType type,
                                   const std::vector<TypeOverride>& overrides) {
  const Recipe& recipe = recipe_of(type);
  std::vector<bool> used(overrides.size());
  std::vector<DType> types;
  for (const GgufTensor& tensor : tensors) {
    const bool is_output =
        tensor.spec.role == WeightRole::embedding || tensor.spec.role == WeightRole::lm_head;
    DType chosen = is_kept(tensor) ? DType::f32 : is_output ? recipe.output : recipe.type;
    for (size_t i = 0; i < overrides.size() && is_matrix(tensor); ++i) {
      if (fnmatch(overrides[i].pattern.c_str(), tensor.name.c_str(), 0) != 0) continue;
      chosen = overrides[i].type;
      used[i] = true;
    }
    types.push_back(for_rows(chosen, tensor));
  }
  for (size_t i = 0; i < overrides.size(); ++i)
    if (!used[i])
      fail("no matrix of the file is called {}; names are those of the file, as {}",
           overrides[i].pattern, "blk.0.ffn_down_exps.weight");
  return types;
}

}  // namespace qnext
