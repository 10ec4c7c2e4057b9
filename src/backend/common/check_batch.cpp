#include "backend/common/check_batch.h"

#include "base/error.h"

namespace qnext::backend {

void check_batch(const Batch& batch, const Config& config, const Capabilities& capabilities,
                 const Reservation& reserved) {
  int64_t rows = 0;
  for (const SequenceStep& s : batch.sequences) {
    const auto count = static_cast<int64_t>(s.tokens.size());
    rows += count;
    QNEXT_CHECK(count > 0 && s.first_position >= 0);
    QNEXT_CHECK(s.state_out.size() == s.tokens.size());
    QNEXT_CHECK(s.state_in < reserved.slots);
    QNEXT_CHECK(static_cast<int64_t>(s.pages.size()) * capabilities.page_tokens >=
                s.first_position + count + s.propose);
    QNEXT_CHECK(!s.draw || (s.sampling && s.counts));
    QNEXT_CHECK(s.drafts == 0 || (s.draw && s.drafts < count));
    QNEXT_CHECK(!s.mtp || capabilities.has_mtp);
    QNEXT_CHECK(s.propose == 0 || (s.mtp && s.draw));
    for (int32_t token : s.tokens)
      QNEXT_CHECK(token >= 0 && token < config.vocabulary_size, "token {}", token);
    for (int32_t page : s.pages) QNEXT_CHECK(page >= 0 && page < reserved.pages, "page {}", page);
    for (int32_t out : s.state_out) QNEXT_CHECK(out < reserved.slots, "slot {}", out);
  }
  QNEXT_CHECK(rows > 0 && rows <= reserved.rows, "{} rows", rows);
}

}  // namespace qnext::backend
