#include "app/layer_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace qnext::app {
namespace {

std::string layer_name(LayerKind kind) {
  std::string name = kind.mixer == Mixer::full_attention ? "attention" : "Gated DeltaNet";
  if (kind.mlp == Mlp::dense) name += " with dense MLP";
  return name;
}

// "3 Gated DeltaNet, 1 attention"
std::string runs(const std::vector<LayerKind>& layers, size_t count) {
  std::string text;
  for (size_t begin = 0; begin < count;) {
    size_t end = begin;
    while (end < count && layers[end] == layers[begin]) ++end;
    text +=
        fmt::format("{}{} {}", text.empty() ? "" : ", ", end - begin, layer_name(layers[begin]));
    begin = end;
  }
  return text;
}

}  // namespace

std::string layer_pattern(const std::vector<LayerKind>& layers) {
  const size_t count = layers.size();
  for (size_t period = 1; period <= count / 2; ++period) {
    if (count % period != 0) continue;
    bool repeats = true;
    for (size_t i = period; i < count && repeats; ++i) repeats = layers[i] == layers[i - period];
    // One kind of layer throughout needs no "times".
    if (repeats && period > 1)
      return fmt::format("{} times ({})", count / period, runs(layers, period));
    if (repeats) break;
  }
  return runs(layers, count);
}

}  // namespace qnext::app
