// Unicode normalisation form C (Unicode Standard Annex 15), with the data of unicode_tables.h.
#pragma once

#include <string>
#include <string_view>

namespace qnext::unicode {

// The NFC form of valid UTF-8: `text` itself where it is normal already, else a view of `storage`.
// Only the stretches around characters that can change are looked at closely; the rest is copied.
std::string_view nfc(std::string_view text, std::string& storage);

}  // namespace qnext::unicode
