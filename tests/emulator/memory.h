// The memory the emulator owns: stacks for the threads, one block's shared memory between canaries.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "context.h"

namespace emulator {

constexpr std::size_t page = 4096;

inline char* map(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return static_cast<char*>(memory);
}

// One stack per thread of a block, each above a guard page; mapped when first needed, kept for good.
class Stacks {
  public:
    static constexpr unsigned limit = 1024;
#ifdef __SANITIZE_ADDRESS__
    static constexpr std::size_t usable = 256 * 1024;  // redzones make frames several times as large
#else
    static constexpr std::size_t usable = 64 * 1024;
#endif
    static constexpr std::size_t stride = usable + page;

    void reserve(unsigned count) {
        if (!base_) base_ = map(limit * stride);
        for (; ready_ < count; ++ready_) mprotect(base_ + ready_ * stride, page, PROT_NONE);
    }

    void place(Context& context, unsigned thread) const {
        context.bottom = base_ + thread * stride + page;
        context.size = usable;
    }

    bool in_guard_page(unsigned thread, const void* address) const {
        return std::uintptr_t(address) - std::uintptr_t(base_ + thread * stride) < page;
    }

    // Threads abandoned in the middle leave the sanitizer's marks on their stacks.
    void unpoison() const {
#ifdef __SANITIZE_ADDRESS__
        for (unsigned i = 0; i < ready_; ++i) __asan_unpoison_memory_region(base_ + i * stride + page, usable);
#endif
    }

  private:
    char* base_ = nullptr;
    unsigned ready_ = 0;
};

// One block's dynamic shared memory: exactly the bytes asked for, refilled with junk for every block,
// between canaries, and with memory that faults close behind and some way before it.
class SharedMemory {
  public:
    static constexpr std::size_t alignment = 128, canary = 1024, limit = 256 * 1024;

    unsigned char* start() const { return start_; }
    std::size_t size() const { return size_; }

    void resize(std::size_t size) {
        size_ = size;
#ifdef __SANITIZE_ADDRESS__
        // The heap's own redzones begin at the very next byte, so the sanitizer sees every overflow itself.
        std::free(start_);
        if (posix_memalign(reinterpret_cast<void**>(&start_), alignment, size)) std::abort();
#else
        if (!region_) {
            auto* const whole = reinterpret_cast<unsigned char*>(map(region_bytes + 2 * guard));
            mprotect(whole, guard, PROT_NONE);
            mprotect(whole + guard + region_bytes, guard, PROT_NONE);
            region_ = whole + guard;
        }
        unsigned char* const end = region_ + region_bytes;
        start_ = end - ((size + canary + alignment - 1) & ~(alignment - 1));
        fill_canary(start_ - canary, start_);
        fill_canary(start_ + size, end);
#endif
    }

    // What a block finds in its shared memory is different every time.
    void fill_with_junk(std::uint64_t random) {
        if (!size_) return;
        if (!junk_) make_junk();
        const std::uint64_t* const junk = junk_ + random % (limit / 8);
        const std::size_t words = size_ / 8;
        for (std::size_t i = 0; i < words; ++i) reinterpret_cast<std::uint64_t*>(start_)[i] = junk[i] ^ random;
        const std::uint64_t last = junk[words] ^ random;
        std::memcpy(start_ + words * 8, &last, size_ % 8);
    }

    // Whether a byte around the shared memory was overwritten, and the offset of the first one found.
    bool is_damaged(std::ptrdiff_t& offset) const {
#ifndef __SANITIZE_ADDRESS__
        const unsigned char* const end = region_ + region_bytes;
        for (const unsigned char* p = start_ - canary; p < end; ++p) {
            if (p == start_) p += size_;
            offset = p - start_;
            if (*p != canary_byte(p)) return true;
        }
#else
        (void)offset;
#endif
        return false;
    }

    // Whether `address` is in the shared memory or so near to it that it can only be meant to be.
    bool is_near(const void* address) const {
        return size_ && std::uintptr_t(address) - std::uintptr_t(start_ - canary) < size_ + 2 * canary;
    }

    bool contains(const void* address, std::size_t bytes) const {
        const std::uintptr_t offset = std::uintptr_t(address) - std::uintptr_t(start_);
        return offset <= size_ && bytes <= size_ - offset;
    }

  private:
    static constexpr std::size_t region_bytes = limit + 4 * page, guard = std::size_t(16) << 20;

    static unsigned char canary_byte(const unsigned char* p) { return 0xa5 ^ std::uintptr_t(p) * 29; }

    static void fill_canary(unsigned char* first, unsigned char* last) {
        for (; first < last; ++first) *first = canary_byte(first);
    }

    void make_junk() {
        junk_ = reinterpret_cast<std::uint64_t*>(map(2 * limit));
        std::uint64_t state = 0x9e3779b97f4a7c15u;
        for (std::size_t i = 0; i < 2 * limit / 8; ++i) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            junk_[i] = state;
        }
    }

    unsigned char* region_ = nullptr;
    unsigned char* start_ = nullptr;
    std::uint64_t* junk_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace emulator
