"""Upstream Abseil labels over the system's Abseil."""

def system_targets(names):
    """Declares one cc_library for each upstream label; all of them link the same system libraries."""
    for name in names:
        native.cc_library(
            name = name,
            visibility = ["//visibility:public"],
            deps = ["//:system"],
        )
