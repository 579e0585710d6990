// Switching stacks: the least a processor needs to leave one thread of a block and go on with another.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT 1
#endif

#ifdef EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace emulator {

struct Context {
#ifdef EMULATOR_UCONTEXT
    ucontext_t saved;
#else
    void* stack_pointer;
#endif
    // Where the stack lies; the address sanitizer has to be told at every switch.
    const void* bottom;
    std::size_t size;
    void* fake_stack;
};

#ifndef EMULATOR_UCONTEXT
// Saves the registers that a called function must preserve, and resumes where `to` was saved.
// The jump at the end is no `ret`: the processor predicts returns by a stack that does not know of ours.
extern "C" void approxtopk_emulator_switch(void** from, void* to);
asm(R"(
    .text
    .type approxtopk_emulator_switch, @function
approxtopk_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
    .size approxtopk_emulator_switch, . - approxtopk_emulator_switch
)");
#endif

// Makes `context` start in `start` (which never returns) at the top of its stack, `skip` bytes below the end.
inline void prepare(Context& context, void (*start)(), std::size_t skip) {
#ifdef EMULATOR_UCONTEXT
    getcontext(&context.saved);
    context.saved.uc_stack.ss_sp = const_cast<void*>(context.bottom);
    context.saved.uc_stack.ss_size = context.size - skip;
    context.saved.uc_link = nullptr;
    makecontext(&context.saved, start, 0);
#else
    auto* top = reinterpret_cast<std::uintptr_t*>(std::uintptr_t(context.bottom) + context.size - skip);
    // Six saved registers, the address to jump to, and a zero where a caller's return address would be:
    // the stack is then aligned as at the entry of any function.
    top[-1] = 0;
    top[-2] = reinterpret_cast<std::uintptr_t>(start);
    context.stack_pointer = top - 8;
#endif
    context.fake_stack = nullptr;
}

// To be called first by a context that has just been entered for the first time.
inline void entered(Context* first_caller) {
#ifdef __SANITIZE_ADDRESS__
    if (first_caller) {
        __sanitizer_finish_switch_fiber(nullptr, &first_caller->bottom, &first_caller->size);
    } else {
        __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    }
#else
    (void)first_caller;
#endif
}

// Leaves `from`, goes on with `to`; returns when somebody switches back. `dies`: nobody ever will.
inline void switch_context(Context& from, Context& to, bool dies = false) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(dies ? nullptr : &from.fake_stack, to.bottom, to.size);
#else
    (void)dies;
#endif
#ifdef EMULATOR_UCONTEXT
    swapcontext(&from.saved, &to.saved);
#else
    approxtopk_emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

}  // namespace emulator
