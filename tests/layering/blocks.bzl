"""The parts whose dependencies are watched. A new block needs one line here; tests/structure demands it."""

# Every block that exists. None may depend on another, nor on what joins or tests them.
BLOCKS = [
    "admission",
    "cache",
    "partition_map",
    "replication",
    "scrub",
    "store",
]
