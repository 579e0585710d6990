// A bounded piece of text: error messages are built on a thread's small stack, without the heap.
#pragma once

#include <cstdarg>
#include <cstdio>

namespace emulator {

struct Text {
    char* buffer;
    unsigned capacity;
    unsigned length = 0;

    void add_list(const char* format, std::va_list arguments) {
        if (length + 1 >= capacity) return;
        const int wanted = std::vsnprintf(buffer + length, capacity - length, format, arguments);
        if (wanted > 0) length += unsigned(wanted) < capacity - length ? unsigned(wanted) : capacity - length - 1;
    }

    __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
        std::va_list arguments;
        va_start(arguments, format);
        add_list(format, arguments);
        va_end(arguments);
    }

    // Adds the set bits of `bits` as numbers from `base` up: "3, 5-9".
    void add_numbers(unsigned bits, unsigned base) {
        const char* separator = "";
        for (unsigned first = 0; first < 32; ++first) {
            if (!(bits >> first & 1)) continue;
            unsigned last = first;
            while (last < 31 && bits >> (last + 1) & 1) ++last;
            add(first == last ? "%s%u" : "%s%u-%u", separator, base + first, base + last);
            separator = ", ";
            first = last;
        }
    }
};

}  // namespace emulator
