// The emulator's core: runs one launch, block after block, every thread of a block on its own stack.
//
// One thread runs at a time, until it waits (at a barrier, in a warp intrinsic) or is made to yield (before some
// global accesses and atomics). Who goes on is drawn from a seeded generator under a policy drawn per block, so
// that over a few seeds threads and warps run far ahead of, and far behind, each other: a program that lacks a
// barrier computes something else.
//
// Compiled once; kernels are compiled against interface.h and linked to it.

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "interface.h"
#include "memory.h"
#include "report.h"

namespace emulator {

Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

const char* const wait_names[] = {
    "nothing",           "__syncthreads",     "__syncthreads_count", "__syncthreads_and", "__syncthreads_or",
    "__syncwarp",        "__shfl_sync",       "__shfl_up_sync",      "__shfl_down_sync",  "__shfl_xor_sync",
    "__ballot_sync",     "__any_sync",        "__all_sync",          "__match_any_sync",  "__reduce_add_sync",
    "__reduce_max_sync", "__reduce_max_sync", "__reduce_min_sync",   "__reduce_min_sync", "__reduce_and_sync",
    "__reduce_or_sync",  "__reduce_xor_sync",
};
static_assert(sizeof wait_names / sizeof *wait_names == std::size_t(Wait::kinds), "one name for every wait");

struct Range {
    std::uint64_t begin, end;
    std::uint64_t writable;
};

// The one argument of approxtopk_emulator_launch; mirrored by `_LaunchRecord` in emulator.py.
struct LaunchRecord {
    void (*entry)(const void*);
    const void* params;
    const Range* ranges;
    std::uint64_t range_count;
    std::uint64_t grid, block, shared_bytes;
    std::uint64_t seed;
    std::uint64_t seconds;  // of processor time, after which the launch is given up
    std::uint64_t bytes_loaded, bytes_stored, switches;
    std::uint64_t message_bytes;
    char* message;
};

struct Fiber {
    Context context;
    unsigned long long value;  // what it brings to a rendezvous, then what it takes away
    unsigned source;           // the lane a shuffle reads
    Wait wait;
    int line;
};

// Lanes that wait for each other in a warp intrinsic. Groups with different masks may be open at once.
struct Rendezvous {
    unsigned mask, arrived;
    Wait kind;
    int line;
};

struct Warp {
    unsigned present, exited;
    unsigned open_count;
    Rendezvous open[32];
};

struct Barrier {
    unsigned arrived, votes, result, first;
    Wait kind;
    int line;
};

// Who may run. Slow threads run only when no other can.
struct Queue {
    unsigned warps;
    unsigned lanes[32];
};

// How one block is scheduled. The random part of a choice is `random & mask`, so mask 0 means strict priorities.
struct Policy {
    unsigned warp_mask, warp_first, lane_mask, lane_first;
    unsigned yield_chance;  // in 256
    unsigned slow[32];      // lanes of every warp
};

Stacks stacks;
SharedMemory shared;
LaunchRecord* launch;
Text message;
Context main_context;

Fiber fibers[Stacks::limit];
Warp warps[32];
unsigned block_threads, warp_count, exited_count, first_exited;
Barrier barrier;
Queue fast, slow;
Policy policy;
Fiber* running;
unsigned atomics_until_yield;
std::uint64_t last_range;
std::uint64_t random_state;

std::uint64_t next_random() {  // splitmix64
    std::uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// ---- Failing ------------------------------------------------------------------------------------------------

// Gives the launch up: the threads' stacks are dropped as they are.
[[noreturn]] void abandon() {
    switch_context(running->context, main_context, true);
    __builtin_unreachable();
}

void name_thread(const Fiber& fiber) { message.add("block %u, thread %u", blockIdx.x, unsigned(&fiber - fibers)); }

__attribute__((format(printf, 1, 2))) [[noreturn]] void fail(const char* format, ...) {
    name_thread(*running);
    message.add(": ");
    std::va_list arguments;
    va_start(arguments, format);
    message.add_list(format, arguments);
    va_end(arguments);
    abandon();
}

void describe_rendezvous(unsigned warp, const Rendezvous& group) {
    message.add("threads ");
    message.add_numbers(group.arrived, warp * 32);
    message.add(" wait at %s (line %d, mask 0x%08x) for threads ", wait_names[int(group.kind)], group.line, group.mask);
    message.add_numbers(group.mask & ~group.arrived, warp * 32);
}

// Nobody can run and not everybody has finished: says who waits where.
[[noreturn]] void fail_stuck() {
    message.add("block %u: deadlock", blockIdx.x);
    const char* separator = ": ";
    for (unsigned w = 0; w < warp_count; ++w) {
        for (unsigned i = 0; i < warps[w].open_count; ++i) {
            message.add("%s", separator);
            describe_rendezvous(w, warps[w].open[i]);
            separator = "; ";
        }
        unsigned at_barrier = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
            const Wait wait = fibers[w * 32 + lane].wait;
            at_barrier |= unsigned(wait >= Wait::syncthreads && wait <= Wait::syncthreads_or) << lane;
        }
        at_barrier &= warps[w].present;
        if (at_barrier) {
            message.add("%sthreads ", separator);
            message.add_numbers(at_barrier, w * 32);
            message.add(" wait at %s (line %d)", wait_names[int(barrier.kind)], barrier.line);
            separator = "; ";
        }
    }
    if (exited_count) message.add("; %u threads have exited", exited_count);
    abandon();
}

// ---- Scheduling ---------------------------------------------------------------------------------------------

unsigned choose(unsigned bits, unsigned from) {
    const unsigned rotated = bits >> from | bits << (-from & 31);
    return (unsigned(__builtin_ctz(rotated)) + from) & 31;
}

void make_ready(unsigned warp, unsigned lanes) {
    const unsigned late = lanes & policy.slow[warp], early = lanes & ~policy.slow[warp];
    fast.lanes[warp] |= early;
    fast.warps |= unsigned(early != 0) << warp;
    slow.lanes[warp] |= late;
    slow.warps |= unsigned(late != 0) << warp;
}

Fiber* take(Queue& queue, unsigned warp_from, unsigned lane_from) {
    const unsigned warp = choose(queue.warps, warp_from & 31);
    const unsigned lane = choose(queue.lanes[warp], lane_from & 31);
    queue.lanes[warp] &= ~(1u << lane);
    if (!queue.lanes[warp]) queue.warps &= ~(1u << warp);
    return &fibers[warp * 32 + lane];
}

Fiber* take_by_policy() {
    Queue& queue = fast.warps ? fast : slow;
    if (!queue.warps) fail_stuck();
    const auto random = unsigned(next_random());
    return take(queue, (random & policy.warp_mask) + policy.warp_first,
                (random >> 8 & policy.lane_mask) + policy.lane_first);
}

// Whoever is ready, whatever the policy: a thread that spins would win under strict priorities again and again.
Fiber* take_any() {
    const auto random = unsigned(next_random());
    Queue& queue = fast.warps && (!slow.warps || random >> 16 & 1) ? fast : slow;
    return take(queue, random, random >> 8);
}

// Goes on with `next`; returns when the caller, who is waiting or ready itself, is chosen again.
void run(Fiber* next, bool dies = false) {
    Fiber* const self = running;
    if (next == self) return;
    ++launch->switches;
    running = next;
    threadIdx.x = unsigned(next - fibers);
    switch_context(self->context, next->context, dies);
}

void exit_thread() {
    const unsigned thread = threadIdx.x, bit = 1u << (thread & 31);
    Warp& warp = warps[thread >> 5];
    warp.exited |= bit;
    if (!exited_count++) first_exited = thread;
    for (unsigned i = 0; i < warp.open_count; ++i) {
        if (!(warp.open[i].mask & bit)) continue;
        name_thread(*running);
        message.add(" exited, but ");
        describe_rendezvous(thread >> 5, warp.open[i]);
        abandon();
    }
    if (barrier.arrived)
        fail("exited, but thread %u waits for the whole block at %s (line %d)", barrier.first,
             wait_names[int(barrier.kind)], barrier.line);
    if (exited_count == block_threads) {
        switch_context(running->context, main_context, true);
    } else {
        run(take_by_policy(), true);
    }
    __builtin_unreachable();
}

void fiber_main() {
    entered(main_context.bottom ? nullptr : &main_context);
    launch->entry(launch->params);
    exit_thread();
}

void draw_policy() {
    const std::uint64_t random = next_random();
    // Strict priorities between warps let one finish a phase before another starts it; between lanes likewise.
    policy.warp_mask = random & 1 ? 31 : 0;
    policy.lane_mask = random & 2 ? 31 : 0;
    policy.warp_first = random >> 8 & 31;
    policy.lane_first = random >> 13 & 31;
    const unsigned chances[] = {0, 0, 4, 32};
    policy.yield_chance = chances[random >> 2 & 3];
    for (unsigned& lanes : policy.slow) lanes = 0;
    const unsigned thread = unsigned(random >> 32) % block_threads;
    switch (random >> 4 & 3) {
        case 0: break;
        case 1: policy.slow[thread >> 5] = 1u << (thread & 31); break;
        case 2: policy.slow[thread >> 5] = ~0u; break;
        default:
            for (unsigned& lanes : policy.slow) lanes = unsigned(next_random());
    }
}

void run_block(std::uint64_t index) {
    blockIdx = {unsigned(index), 0, 0};
    shared.fill_with_junk(next_random());
    draw_policy();
    barrier = {};
    fast = {};
    slow = {};
    exited_count = 0;
    atomics_until_yield = 1024;
    for (unsigned w = 0; w < warp_count; ++w) {
        const unsigned lanes = block_threads - w * 32;
        const unsigned present = lanes < 32 ? (1u << lanes) - 1 : ~0u;
        warps[w].present = present;
        warps[w].exited = 0;
        warps[w].open_count = 0;
        make_ready(w, present);
    }
    for (unsigned i = 0; i < block_threads; ++i) {
        // Stacks lie a multiple of the page apart; without the shift their tops would fight for the same cache sets.
        prepare(fibers[i].context, fiber_main, i % 48 * 64);
        fibers[i].wait = Wait::none;
    }
    running = take_by_policy();
    threadIdx = {unsigned(running - fibers), 0, 0};
    main_context.bottom = nullptr;
    switch_context(main_context, running->context);
    if (message.length) return;
    std::ptrdiff_t offset;
    if (shared.is_damaged(offset))
        message.add("block %u: wrote outside its %zu bytes of shared memory, at offset %td", blockIdx.x, shared.size(),
                    offset);
}

// A bijection of [0, 2^bits), kept inside [0, grid) by walking on: blocks in a random order without a list.
struct BlockOrder {
    std::uint64_t grid, mask, multiplier, addend;
    unsigned shift;

    explicit BlockOrder(std::uint64_t blocks) : grid(blocks) {
        const unsigned bits = blocks > 1 ? 64 - unsigned(__builtin_clzll(blocks - 1)) : 1;
        mask = (std::uint64_t(1) << bits) - 1;
        shift = (bits + 1) / 2;
        multiplier = next_random() | 1;
        addend = next_random();
    }

    std::uint64_t operator()(std::uint64_t i) const {
        do {
            i = (i * multiplier + addend) & mask;
            i ^= i >> shift;
            i = (i * 0xd1342543de82ef95u) & mask;
            i ^= i >> shift;
        } while (i >= grid);
        return i;
    }
};

// ---- Faults -------------------------------------------------------------------------------------------------

#ifndef __SANITIZE_ADDRESS__
const int fault_signals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction previous_actions[3];
pthread_t launcher;
volatile bool inside;  // a block is running, on `launcher`

bool is_ours() { return inside && pthread_equal(pthread_self(), launcher); }

// A bad address or a stack overflow in a kernel fails the launch; a fault of anybody else is handed back.
void on_fault(int signal, siginfo_t* info, void*) {
    if (!is_ours()) {
        for (int i = 0; i < 3; ++i)
            if (fault_signals[i] == signal) sigaction(signal, &previous_actions[i], nullptr);
        return;
    }
    if (signal == SIGFPE) fail("integer division by zero");
    if (stacks.in_guard_page(threadIdx.x, info->si_addr)) fail("stack overflow (%zu bytes a thread)", Stacks::usable);
    fail("invalid memory access at %p", info->si_addr);
}

// The timer may strike between blocks or while another failure is being reported: then it is ignored.
void on_timer(int) {
    if (is_ours() && !message.length)
        fail("the launch has taken more than %llu s of processor time", (unsigned long long)launch->seconds);
}

// For the length of a launch, turns faults and endless loops of its threads into errors.
class Watch {
  public:
    Watch() {
        static char handler_stack[64 * 1024];  // the handlers leave it by switching, so it is free again at once
        stack_t own = {};
        own.ss_sp = handler_stack;
        own.ss_size = sizeof handler_stack;
        sigaltstack(&own, &previous_stack_);
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < 3; ++i) sigaction(fault_signals[i], &action, &previous_actions[i]);
        start_timer();
        launcher = pthread_self();
        inside = true;
    }
    ~Watch() {
        inside = false;
        timer_delete(timer_);
        for (int i = 0; i < 3; ++i) sigaction(fault_signals[i], &previous_actions[i], nullptr);
        sigaltstack(&previous_stack_, nullptr);
    }

  private:
    void start_timer() {
        const int signal = SIGRTMAX - 1;
        struct sigaction action = {};
        action.sa_handler = on_timer;
        action.sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESTART;
        sigaction(signal, &action, nullptr);  // for good: the signal may still come after the timer is gone
        struct sigevent event = {};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event._sigev_un._tid = int(syscall(SYS_gettid));
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_);
        const itimerspec times = {{1, 0}, {time_t(launch->seconds), 0}};
        timer_settime(timer_, 0, &times, nullptr);
    }

    stack_t previous_stack_;
    timer_t timer_;
};
#else
struct Watch {  // the sanitizer reports faults itself
    Watch() {}
};
#endif

// ---- Memory checks ------------------------------------------------------------------------------------------

void check_aligned(const char* what, const void* address, unsigned long bytes) {
    unsigned long alignment = bytes & -bytes;
    if (alignment > 16) alignment = 16;  // the widest access there is
    if (std::uintptr_t(address) & (alignment - 1))
        fail("%s of %lu bytes at %p is not aligned to its size", what, bytes, address);
}

[[noreturn]] void fail_outside(const char* what, std::uint64_t address, unsigned long bytes) {
    std::uint64_t nearest = 0, distance = ~std::uint64_t(0);
    for (std::uint64_t i = 0; i < launch->range_count; ++i) {
        const Range& r = launch->ranges[i];
        const std::uint64_t d = address < r.begin ? r.begin - address : address < r.end ? 0 : address - r.end;
        if (d < distance) distance = d, nearest = i;
    }
    const Range& r = launch->ranges[nearest];
    fail(
        "%s of %lu bytes at 0x%llx is outside every registered range; the nearest is number %llu, %llu bytes from "
        "0x%llx (the access starts at its byte %lld)",
        what, bytes, (unsigned long long)address, (unsigned long long)nearest, (unsigned long long)(r.end - r.begin),
        (unsigned long long)r.begin, (long long)(address - r.begin));
}

void check_range(const char* what, const void* pointer, unsigned long bytes, bool writes) {
    if (!launch->range_count) return;
    const auto address = std::uint64_t(pointer);
    const auto inside_of = [&](const Range& r) {
        return address >= r.begin && address < r.end && bytes <= r.end - address;
    };
    if (!inside_of(launch->ranges[last_range])) {
        std::uint64_t i = 0;
        while (i < launch->range_count && !inside_of(launch->ranges[i])) ++i;
        if (i == launch->range_count) fail_outside(what, address, bytes);
        last_range = i;
    }
    if (writes && !launch->ranges[last_range].writable)
        fail("%s of %lu bytes at %p is in range number %llu, which is read-only", what, bytes, pointer,
             (unsigned long long)last_range);
}

void yield_sometimes() {
    if (policy.yield_chance && next_random() >> 56 < policy.yield_chance) yield();
}

// ---- What a rendezvous computes -----------------------------------------------------------------------------

unsigned long long combine(Wait kind, unsigned long long a, unsigned long long b) {
    switch (kind) {
        case Wait::reduce_add: return a + b;
        case Wait::reduce_max: return a < b ? b : a;
        case Wait::reduce_max_signed: return (long long)a < (long long)b ? b : a;
        case Wait::reduce_min: return b < a ? b : a;
        case Wait::reduce_min_signed: return (long long)b < (long long)a ? b : a;
        case Wait::all:
        case Wait::reduce_and: return a & b;
        case Wait::any:
        case Wait::reduce_or: return a | b;
        default: return a ^ b;
    }
}

template <class Visit>
void for_each_lane(unsigned mask, Visit visit) {
    for (; mask; mask &= mask - 1) visit(unsigned(__builtin_ctz(mask)));
}

void complete(Fiber* lanes, const Rendezvous& group) {
    unsigned long long values[32];
    for_each_lane(group.mask, [&](unsigned lane) {
        values[lane] = lanes[lane].value;
        lanes[lane].wait = Wait::none;
    });
    switch (group.kind) {
        case Wait::syncwarp: break;
        case Wait::shfl:
        case Wait::shfl_up:
        case Wait::shfl_down:
        case Wait::shfl_xor:
            for_each_lane(group.mask, [&](unsigned lane) { lanes[lane].value = values[lanes[lane].source]; });
            break;
        case Wait::ballot: {
            unsigned long long ballot = 0;
            for_each_lane(group.mask, [&](unsigned lane) { ballot |= values[lane] << lane; });
            for_each_lane(group.mask, [&](unsigned lane) { lanes[lane].value = ballot; });
            break;
        }
        case Wait::match_any:
            for_each_lane(group.mask, [&](unsigned lane) {
                unsigned peers = 0;
                for_each_lane(group.mask,
                              [&](unsigned peer) { peers |= unsigned(values[peer] == values[lane]) << peer; });
                lanes[lane].value = peers;
            });
            break;
        default: {
            unsigned long long result = values[__builtin_ctz(group.mask)];
            for_each_lane(group.mask & (group.mask - 1),
                          [&](unsigned lane) { result = combine(group.kind, result, values[lane]); });
            for_each_lane(group.mask, [&](unsigned lane) { lanes[lane].value = result; });
        }
    }
}

}  // namespace

// ---- What kernels call --------------------------------------------------------------------------------------

unsigned wait_for_block(Wait kind, bool predicate, int line) {
    const char* const name = wait_names[int(kind)];
    if (exited_count)
        fail("waits for the whole block at %s (line %d), but thread %u has exited", name, line, first_exited);
    if (!barrier.arrived) {
        barrier.kind = kind;
        barrier.line = line;
        barrier.first = threadIdx.x;
        barrier.votes = 0;
    } else if (barrier.kind != kind || barrier.line != line) {
        fail("divergent barrier: waits at %s (line %d) while thread %u waits at %s (line %d)", name, line,
             barrier.first, wait_names[int(barrier.kind)], barrier.line);
    }
    barrier.votes += predicate;
    if (++barrier.arrived == block_threads) {
        barrier.arrived = 0;
        barrier.result = barrier.votes;
        for (unsigned i = 0; i < block_threads; ++i) fibers[i].wait = Wait::none;
        for (unsigned w = 0; w < warp_count; ++w) make_ready(w, warps[w].present);
    } else {
        running->wait = kind;
        running->line = line;
    }
    run(take_by_policy());
    return barrier.result;  // kept until the next barrier completes, which needs this thread
}

unsigned long long wait_for_warp(Wait kind, unsigned mask, unsigned long long value, unsigned source, int line) {
    const char* const name = wait_names[int(kind)];
    const unsigned thread = threadIdx.x, index = thread >> 5, bit = 1u << (thread & 31);
    Warp& warp = warps[index];
    if (!(mask & bit))
        fail("%s (line %d): the mask 0x%08x does not name the calling lane %u", name, line, mask, thread & 31);
    if (mask & ~warp.present)
        fail("%s (line %d): the mask 0x%08x names lanes that the block of %u threads does not have", name, line, mask,
             block_threads);
    if (mask & warp.exited)
        fail("%s (line %d): the mask 0x%08x names lane %d, which has exited", name, line, mask,
             __builtin_ctz(mask & warp.exited));
    if (!(mask >> source & 1) && kind >= Wait::shfl && kind <= Wait::shfl_xor)
        fail("%s (line %d) reads from lane %u, which the mask 0x%08x does not name", name, line, source, mask);

    Rendezvous* group = nullptr;
    for (unsigned i = 0; i < warp.open_count; ++i) {
        Rendezvous& open = warp.open[i];
        if (open.mask == mask && open.kind == kind && open.line == line) {
            group = &open;
        } else if (open.mask & bit && open.arrived & mask) {
            // Each waits for the other, in different places.
            name_thread(*running);
            message.add(": divergent warp: waits at %s (line %d, mask 0x%08x), but ", name, line, mask);
            describe_rendezvous(index, open);
            abandon();
        }
    }
    if (!group) {
        group = &warp.open[warp.open_count++];
        *group = {mask, 0, kind, line};
    }
    Fiber& self = *running;
    self.value = value;
    self.source = source;
    group->arrived |= bit;
    if (group->arrived == mask) {
        complete(&fibers[thread & ~31u], *group);
        *group = warp.open[--warp.open_count];
        make_ready(index, mask);
    } else {
        self.wait = kind;
        self.line = line;
    }
    run(take_by_policy());
    return self.value;
}

unsigned char* dynamic_shared() { return shared.start(); }

void count_load(const void* address, unsigned long bytes) {
    launch->bytes_loaded += bytes;
    check_aligned("load", address, bytes);
    check_range("load", address, bytes, false);
    yield_sometimes();
}

void count_store(const void* address, unsigned long bytes) {
    launch->bytes_stored += bytes;
    check_aligned("store", address, bytes);
    check_range("store", address, bytes, true);
    yield_sometimes();
}

void before_atomic(const void* address, unsigned long bytes) {
    check_aligned("atomic", address, bytes);
    if (!shared.is_near(address)) {
        check_range("atomic", address, bytes, true);
    } else if (!shared.contains(address, bytes)) {
        fail("atomic of %lu bytes at offset %td, outside the %zu bytes of shared memory", bytes,
             static_cast<const unsigned char*>(address) - shared.start(), shared.size());
    }
    yield_sometimes();
    // A thread that spins on an atomic must not keep the others from running.
    if (!--atomics_until_yield) {
        atomics_until_yield = 1024;
        yield();
    }
}

void yield() {
    make_ready(threadIdx.x >> 5, 1u << (threadIdx.x & 31));
    run(take_any());
}

void broken_assumption(const char* condition, int line) {
    fail("__builtin_assume(%s) does not hold (line %d)", condition, line);
}

}  // namespace emulator

// Runs one launch; returns 0, or 1 with the reason in `message`. Not to be called by two threads at once.
extern "C" int approxtopk_emulator_launch(emulator::LaunchRecord* record) {
    using namespace emulator;
    launch = record;
    message = {record->message, unsigned(record->message_bytes)};
    random_state = record->seed;
    last_range = 0;
    block_threads = unsigned(record->block);
    warp_count = (block_threads + 31) / 32;
    blockDim = {block_threads, 1, 1};
    gridDim = {unsigned(record->grid), 1, 1};
    stacks.reserve(block_threads);
    for (unsigned i = 0; i < block_threads; ++i) stacks.place(fibers[i].context, i);
    shared.resize(record->shared_bytes);
    const BlockOrder order(record->grid);
    const Watch watch;
    for (std::uint64_t i = 0; i < record->grid && !message.length; ++i) run_block(order(i));
    if (message.length) stacks.unpoison();
    return message.length != 0;
}
