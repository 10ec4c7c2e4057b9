#include "app/layer_pattern.h"

#include <gtest/gtest.h>

namespace qnext::app {
namespace {

constexpr LayerKind delta{Mixer::gated_delta_net, Mlp::sparse};
constexpr LayerKind attention{Mixer::full_attention, Mlp::sparse};
constexpr LayerKind dense_delta{Mixer::gated_delta_net, Mlp::dense};

TEST(LayerPattern, FindsTheRepeatedGroup) {
  std::vector<LayerKind> layers;
  for (int i = 0; i < 12; ++i) layers.insert(layers.end(), {delta, delta, delta, attention});
  EXPECT_EQ(layer_pattern(layers), "12 times (3 Gated DeltaNet, 1 attention)");
}

TEST(LayerPattern, ListsRunsWhereNothingRepeats) {
  EXPECT_EQ(layer_pattern({delta, delta, delta, attention}), "3 Gated DeltaNet, 1 attention");
  EXPECT_EQ(layer_pattern({dense_delta, delta, attention, delta}),
            "1 Gated DeltaNet with dense MLP, 1 Gated DeltaNet, 1 attention, 1 Gated DeltaNet");
  EXPECT_EQ(layer_pattern({delta, delta}), "2 Gated DeltaNet");
  EXPECT_EQ(layer_pattern({delta}), "1 Gated DeltaNet");
}

}  // namespace
}  // namespace qnext::app
