#include "backend/cuda/shown_rows.h"

#include <algorithm>

namespace qnext::backend::cuda {

void ShownRows::add(const PassPlan& plan, Observed what, int layer, int64_t width,
                    std::span<const float> values) {
  auto item = std::ranges::find_if(
      items_, [&](const Item& one) { return one.what == what && one.layer == layer; });
  if (item == items_.end()) item = items_.insert(items_.end(), {what, layer, width, {}});
  for (const PassSequence& s : plan.sequences) {
    const auto count = static_cast<size_t>(s.rows.rows * width);
    const auto to = static_cast<size_t>(s.driver_row * width);
    item->values.resize(std::max(item->values.size(), to + count));
    std::ranges::copy(values.subspan(static_cast<size_t>(s.rows.first_row * width), count),
                      item->values.begin() + static_cast<int64_t>(to));
  }
}

void ShownRows::deliver(int64_t rows, Observer& observer) {
  for (const Item& item : items_)
    observer.observe(item.what, item.layer, rows, item.width, item.values.data());
  items_.clear();
}

}  // namespace qnext::backend::cuda
