#include "text/grammar/string_formats.h"

#include <algorithm>
#include <array>
#include <map>

namespace qnext::grammar {
namespace {

// Days are right for their month, and 29 February only where a leap year has one.
const std::string common_days =
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))";
// Divisible by four and, where it ends a century, by four hundred.
const std::string leap_years =
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
// Python knows no year 0000.
const std::string years = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})";
const std::string date = "(?:" + years + "-" + common_days + "|" + leap_years + "-02-29)";
const std::string hour_minute = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
const std::string time_of_day =
    hour_minute + ":[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-]" + hour_minute + ")";
const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const std::string ipv4 = octet + "(?:\\." + octet + "){3}";
const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const std::string hostname = label + "(?:\\." + label + "){0,3}";
const std::string ipv6_group = "(?:0|[1-9a-f][0-9a-f]{0,3})";
const std::string ipv6 = ipv6_group + "(?::" + ipv6_group + "){7}|::(?:" + ipv6_group +
                         "(?::" + ipv6_group + "){0,5})?|" + ipv6_group + "::(?:" + ipv6_group +
                         "(?::" + ipv6_group + "){0,4})?";
const std::string mail_atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,16}";
const std::string path_character = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
const std::string uri =
    "[A-Za-z][A-Za-z0-9+.-]{0,31}://(?:[A-Za-z0-9._~-]{1,253})(?::[0-9]{1,5})?"
    "(?:/" +
    path_character + "*)*(?:\\?(?:" + path_character +
    "|[/?])*)?"
    "(?:#(?:" +
    path_character + "|[/?])*)?";
// At least one part; weeks stand alone.
const std::string duration_time =
    "T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S)";
const std::string duration =
    "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?|[0-9]{1,9}M(?:[0-9]{1,9}D)?"
    "|[0-9]{1,9}D)(?:" +
    duration_time + ")?|" + duration_time + ")";

}  // namespace

std::optional<std::string> format_expression(std::string_view format) {
  static const std::map<std::string_view, std::string> expressions{
      {"date", date},
      {"time", time_of_day},
      {"date-time", date + "T" + time_of_day},
      {"duration", duration},
      {"email", mail_atom + "(?:\\." + mail_atom + "){0,3}@" + hostname},
      {"hostname", hostname},
      {"ipv4", ipv4},
      {"ipv6", ipv6},
      {"uri", uri},
      {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
  };
  const auto found = expressions.find(format);
  if (found == expressions.end()) return std::nullopt;
  return found->second;
}

bool is_format(std::string_view format) {
  constexpr std::array<std::string_view, 19> known = {
      "date",         "time",          "date-time",
      "duration",     "email",         "idn-email",
      "hostname",     "idn-hostname",  "ipv4",
      "ipv6",         "uri",           "uri-reference",
      "iri",          "iri-reference", "uuid",
      "uri-template", "json-pointer",  "relative-json-pointer",
      "regex"};
  return std::find(known.begin(), known.end(), format) != known.end();
}

}  // namespace qnext::grammar
