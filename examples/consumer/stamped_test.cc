#include "stamped.h"

#include "gtest/gtest.h"

namespace {

TEST(Stamped, ComesBack) { EXPECT_EQ(Unstamp(Stamp("a message")), "a message"); }

TEST(Stamped, DamageAtAnyByteIsSeen) {
  const std::string stamped = Stamp("a message");
  for (size_t i = 0; i < stamped.size(); ++i) {
    std::string damaged = stamped;
    damaged[i] ^= 1;
    EXPECT_EQ(Unstamp(damaged), std::nullopt) << "byte " << i;
  }
}

}  // namespace
