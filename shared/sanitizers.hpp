// LLM_ASAN, LLM_TSAN: 1 when this is compiled under AddressSanitizer, ThreadSanitizer, else 0. gcc defines a macro
// for each, clang answers __has_feature.
#pragma once

#if defined(__has_feature)
#define LLM_HAS_FEATURE(name) __has_feature(name)
#else
#define LLM_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || LLM_HAS_FEATURE(address_sanitizer)
#define LLM_ASAN 1
#else
#define LLM_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || LLM_HAS_FEATURE(thread_sanitizer)
#define LLM_TSAN 1
#else
#define LLM_TSAN 0
#endif

#undef LLM_HAS_FEATURE
