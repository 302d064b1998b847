"""The repositories that dynlib builds with, as local wrappers of the system's packages.

A workspace that depends on dynlib calls dynlib_system_deps with the path from its own root to dynlib's. One that
has the real repositories under the same names leaves the call out.
"""

def dynlib_system_deps(dynlib_path = ""):
    """Declares every repository that is not declared yet.

    Args:
      dynlib_path: the path from the calling workspace's root to dynlib's root; empty or ending in "/".
    """
    third_party = {
        "com_github_cyan4973_xxhash": "xxhash",
        "com_github_facebook_zstd": "zstd",
        "com_github_google_benchmark": "benchmark",
        "com_github_grpc_grpc": "grpc",
        "com_google_absl": "absl",
        "com_google_googletest": "googletest",
        "com_google_protobuf": "protobuf",
        "peers": "peers",
        "remote_coverage_tools": "remote_coverage_tools",
        "rules_cc": "rules_cc",
    }
    for name, folder in third_party.items():
        if not native.existing_rule(name):
            native.local_repository(name = name, path = dynlib_path + "third_party/" + folder)
    system = {
        "platforms": "/usr/share/bazel/platforms",
        "rules_java": "/usr/share/bazel/rules/java",
        "rules_proto": "/usr/share/bazel/rules/proto",
    }
    for name, folder in system.items():
        if not native.existing_rule(name):
            native.local_repository(name = name, path = folder)
