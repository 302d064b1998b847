// Max-min fair shares of one capacity among demands (Bertsekas and Gallager, "Data Networks",
// 6.5.2): nobody gets more than asked, and what small demands leave is divided equally among the
// rest. So whatever a client claims, the level is the most that it can get.
//
//   FairShares shares = DivideFairly(demands, /*capacity=*/1000);
//   double mine = shares.Of(demand);
#ifndef DYNLIB_ADMISSION_FAIR_SHARE_H_
#define DYNLIB_ADMISSION_FAIR_SHARE_H_

#include <vector>

namespace dynlib::admission {

// Shares as a function of the demand, so that one that changed a little needs no new division.
struct FairShares {
  bool scarce = false;
  // Scarce: the most that anybody gets.
  double level = 0;
  // Not scarce: what everybody gets beyond the demand, half of the spare capacity divided equally
  // and half by demand. So a demand that rises is served until the next division.
  double spare_each = 0;
  double spare_factor = 0;

  double Of(double demand) const {
    if (scarce) return demand < level ? demand : level;
    return demand + spare_each + demand * spare_factor;
  }
};

// Demands finite and >= 0; `demands` is reordered. Without demands, everybody may have all.
FairShares DivideFairly(std::vector<double>& demands, double capacity);

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_FAIR_SHARE_H_
