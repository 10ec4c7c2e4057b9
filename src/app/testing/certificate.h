// For tests: a certificate for 127.0.0.1 that vouches for itself.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstdio>
#include <memory>
#include <string>

namespace qnext::app {

// Writes both as PEM files.
inline void write_certificate(const std::string& certificate, const std::string& key) {
  using File = std::unique_ptr<FILE, int (*)(FILE*)>;
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> pair(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> made(X509_new(), X509_free);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), 86400);
  X509_set_pubkey(made.get(), pair.get());
  X509_NAME* name = X509_get_subject_name(made.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("127.0.0.1"), -1, -1, 0);
  X509_set_issuer_name(made.get(), name);
  X509_sign(made.get(), pair.get(), EVP_sha256());
  const File first(std::fopen(certificate.c_str(), "w"), std::fclose);
  PEM_write_X509(first.get(), made.get());
  const File second(std::fopen(key.c_str(), "w"), std::fclose);
  PEM_write_PrivateKey(second.get(), pair.get(), nullptr, nullptr, 0, nullptr, nullptr);
}

}  // namespace qnext::app
