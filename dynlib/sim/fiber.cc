#include "dynlib/sim/fiber.h"

#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstdint>
#include <utility>

#include "dynlib/base/check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DYNLIB_SIM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define DYNLIB_SIM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define DYNLIB_SIM_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define DYNLIB_SIM_TSAN 1
#endif

#if defined(DYNLIB_SIM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(DYNLIB_SIM_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace dynlib::sim {
namespace {

#if defined(DYNLIB_SIM_ASAN) || defined(DYNLIB_SIM_TSAN)
constexpr size_t kStackBytes = 1 << 20;
#else
constexpr size_t kStackBytes = 256 << 10;
#endif

}  // namespace

#if defined(__x86_64__)

// Saves what the calling convention says a function keeps, changes stacks, restores. No system
// call, where swapcontext makes two to keep signal masks that never change here.
extern "C" void DynlibSimSwitch(void** save_stack, void* to_stack);
// Where a new stack begins: calls r13(r12).
extern "C" void DynlibSimEntry();
asm(R"(
.text
.globl DynlibSimSwitch
.hidden DynlibSimSwitch
.type DynlibSimSwitch,@function
DynlibSimSwitch:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  subq $8, %rsp
  stmxcsr (%rsp)
  fnstcw 4(%rsp)
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  ldmxcsr (%rsp)
  fldcw 4(%rsp)
  addq $8, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
.size DynlibSimSwitch,.-DynlibSimSwitch
.globl DynlibSimEntry
.hidden DynlibSimEntry
.type DynlibSimEntry,@function
DynlibSimEntry:
  .cfi_startproc
  .cfi_undefined %rip
  movq %r12, %rdi
  callq *%r13
  ud2
  .cfi_endproc
.size DynlibSimEntry,.-DynlibSimEntry
)");

namespace {

class Context {
 public:
  // The context of entry(argument), which never returns, on a stack of its own.
  void Make(char* stack, size_t bytes, void (*entry)(void*), void* argument) {
    // As DynlibSimSwitch leaves a stack: control words, six registers (r15 first), then where to
    // return to; above it 16 bytes to spare, so that DynlibSimEntry's call is aligned.
    auto* top = reinterpret_cast<uint64_t*>(stack + bytes - 64);
    *--top = 0;
    *--top = 0;
    *--top = reinterpret_cast<uint64_t>(&DynlibSimEntry);
    *--top = 0;                                     // rbp
    *--top = 0;                                     // rbx
    *--top = reinterpret_cast<uint64_t>(argument);  // r12
    *--top = reinterpret_cast<uint64_t>(entry);     // r13
    *--top = 0;                                     // r14
    *--top = 0;                                     // r15
    uint32_t words[2] = {0, 0};
    asm volatile("stmxcsr %0\n fnstcw %1" : "=m"(words[0]), "=m"(words[1]));
    *--top = words[0] | (uint64_t{words[1]} << 32);
    stack_ = top;
  }
  static void Switch(Context& from, Context& to) { DynlibSimSwitch(&from.stack_, to.stack_); }

 private:
  void* stack_ = nullptr;
};

}  // namespace

#else

namespace {

class Context {
 public:
  void Make(char* stack, size_t bytes, void (*entry)(void*), void* argument) {
    entry_ = entry;
    argument_ = argument;
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    // makecontext passes integers alone.
    const uint64_t self = reinterpret_cast<uintptr_t>(this);
    makecontext(&context_, reinterpret_cast<void (*)()>(&Context::Enter), 2,
                static_cast<uint32_t>(self >> 32), static_cast<uint32_t>(self));
  }
  static void Switch(Context& from, Context& to) { swapcontext(&from.context_, &to.context_); }

 private:
  static void Enter(uint32_t high, uint32_t low) {
    auto* self = reinterpret_cast<Context*>(uint64_t{high} << 32 | low);
    self->entry_(self->argument_);
  }

  ucontext_t context_;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
};

}  // namespace

#endif

class Fiber {
 public:
  Fiber() {
    const size_t page = sysconf(_SC_PAGESIZE);
    mapping_bytes_ = kStackBytes + page;
    void* mapping = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    DYNLIB_CHECK(mapping != MAP_FAILED);
    mapping_ = static_cast<char*>(mapping);
    DYNLIB_CHECK(mprotect(mapping_, page, PROT_NONE) == 0);
    stack_ = mapping_ + page;
    context_.Make(stack_, kStackBytes, &Fiber::Main, this);
#if defined(DYNLIB_SIM_TSAN)
    tsan_fiber_ = __tsan_create_fiber(0);
#endif
  }

  ~Fiber() {
#if defined(DYNLIB_SIM_TSAN)
    __tsan_destroy_fiber(tsan_fiber_);
#endif
#if defined(DYNLIB_SIM_ASAN)
    // Its frames never return; whoever maps this memory next must not meet their red zones.
    __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
    munmap(mapping_, mapping_bytes_);
  }

  void SetFunction(absl::AnyInvocable<void()> function) { function_ = std::move(function); }
  bool idle() const { return function_ == nullptr; }

  void SwitchIn() {
#if defined(DYNLIB_SIM_TSAN)
    tsan_caller_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_fiber_, 0);
#endif
#if defined(DYNLIB_SIM_ASAN)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, stack_, kStackBytes);
#endif
    Context::Switch(caller_, context_);
#if defined(DYNLIB_SIM_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  void SwitchOut() {
#if defined(DYNLIB_SIM_TSAN)
    __tsan_switch_to_fiber(tsan_caller_, 0);
#endif
#if defined(DYNLIB_SIM_ASAN)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, asan_caller_stack_, asan_caller_bytes_);
#endif
    Context::Switch(context_, caller_);
#if defined(DYNLIB_SIM_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, &asan_caller_stack_, &asan_caller_bytes_);
#endif
  }

 private:
  static void Main(void* fiber) {
    auto* self = static_cast<Fiber*>(fiber);
#if defined(DYNLIB_SIM_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &self->asan_caller_stack_, &self->asan_caller_bytes_);
#endif
    while (true) {
      self->function_();
      self->function_ = nullptr;
      self->SwitchOut();
    }
  }

  char* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  char* stack_ = nullptr;
  Context context_;
  Context caller_;
  absl::AnyInvocable<void()> function_;
#if defined(DYNLIB_SIM_ASAN)
  const void* asan_caller_stack_ = nullptr;
  size_t asan_caller_bytes_ = 0;
#endif
#if defined(DYNLIB_SIM_TSAN)
  void* tsan_fiber_ = nullptr;
  void* tsan_caller_ = nullptr;
#endif
};

FiberPool::FiberPool() = default;

FiberPool::~FiberPool() { DYNLIB_CHECK(live() == 0); }

Fiber* FiberPool::New(absl::AnyInvocable<void()> function) {
  DYNLIB_CHECK(function != nullptr);
  if (idle_.empty()) {
    all_.push_back(std::make_unique<Fiber>());
    idle_.push_back(all_.back().get());
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  fiber->SetFunction(std::move(function));
  return fiber;
}

bool FiberPool::Resume(Fiber* fiber) {
  DYNLIB_CHECK(current_ == nullptr);
  current_ = fiber;
  fiber->SwitchIn();
  current_ = nullptr;
  if (!fiber->idle()) return false;
  idle_.push_back(fiber);
  return true;
}

void FiberPool::Yield() {
  DYNLIB_CHECK(current_ != nullptr);
  current_->SwitchOut();
}

}  // namespace dynlib::sim
