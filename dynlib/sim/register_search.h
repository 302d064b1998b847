// The search behind the linearizability checker: whether operations on one register have a legal
// order. CheckLinearizable is the way in.
//
// Every operation is a step: an optional demand on the register, an optional new value. The search
// keeps the steps not yet ordered in a list of their invocations and returns; what may come next is
// what was invoked before the first return in the list. Steps that cannot do harm are ordered as
// soon as they may be, without branching, and a value is not overwritten while someone still has to
// see it and nobody can write it again; so for histories whose values differ the search hardly
// branches.
//
// Threads: one at a time.
#ifndef DYNLIB_SIM_REGISTER_SEARCH_H_
#define DYNLIB_SIM_REGISTER_SEARCH_H_

#include <cstddef>
#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

namespace dynlib::sim {

struct RegisterStep {
  enum class Demand : uint8_t { kNone, kEquals, kDiffers };
  static constexpr int kNoWrite = -1;

  Demand demand = Demand::kNone;
  int demanded = 0;                // Value that the register must, or must not, hold.
  int written = kNoWrite;          // Value that it holds afterwards.
  bool required = true;            // Must be in the order; otherwise it may be left out.
  uint64_t invoked = 0;            // Positions in the order of events, all different.
  uint64_t returned = UINT64_MAX;  // Used when required.
};

class RegisterSearch {
 public:
  enum class Answer : uint8_t { kLegal, kIllegal, kUndecided };

  // Values are 0 to value_count - 1; the register holds 0 at first. Every optional step writes.
  RegisterSearch(std::vector<RegisterStep> steps, int value_count);

  // At most once. Gives up after visiting that many configurations.
  Answer Run(uint64_t visits_max);
  uint64_t visits() const { return visits_; }

 private:
  // A pair of random numbers for each step; a set of steps is their exclusive or. Two sets of one
  // search are confused with probability below 2^-80, and then only a violation could be reported
  // wrongly.
  using SetHash = std::pair<uint64_t, uint64_t>;

  struct FirstOfPair {
    size_t operator()(const SetHash& hash) const { return hash.first; }
  };

  // A choice that can be taken back.
  struct Choice {
    size_t step = 0;
    int value_before = 0;
    size_t absorbed_before = 0;
  };

  size_t First() const { return next_[0]; }
  bool IsInvocation(size_t node) const { return node != 0 && node % 2 == 1; }
  static size_t InvocationNode(size_t step) { return 2 * step + 1; }
  static size_t StepOf(size_t node) { return (node - 1) / 2; }

  void BuildList();
  void Unlink(size_t node);
  void Relink(size_t node);
  void Count(const RegisterStep& step, int delta);
  void Lift(size_t step);
  void Unlift(size_t step);

  bool DemandMet(const RegisterStep& step) const;
  bool IsHarmless(const RegisterStep& step) const;
  void Absorb();
  bool WouldBeSeen(size_t step) const;
  bool MayChoose(size_t step) const;
  size_t NextChoice(size_t node) const;
  void Choose(size_t step);
  size_t TakeBack();
  bool VisitNew();

  std::vector<RegisterStep> steps_;
  // Doubly linked: node 0 is both ends; 2i+1 is step i's invocation, 2i+2 its return.
  std::vector<size_t> next_;
  std::vector<size_t> previous_;
  std::vector<SetHash> hashes_;

  // Steps not yet ordered, by value.
  std::vector<int> must_see_;  // Required, demanding this value.
  std::vector<int> may_see_;   // Demanding this value.
  std::vector<int> writers_;   // Writing this value, not being there already.
  int differing_ = 0;          // Demanding another value than some.
  size_t required_left_ = 0;

  int value_ = 0;
  SetHash set_ = {0, 0};
  std::vector<size_t> absorbed_;
  std::vector<Choice> choices_;
  std::unordered_set<SetHash, FirstOfPair> visited_;  // Never iterated.
  uint64_t visits_ = 0;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_REGISTER_SEARCH_H_
