"""Rules of the benchmarks."""

def bench_binary(name, **kwargs):
    """A benchmark that tools/bench runs by name.

    Its tag keeps it out of //..., since it links systems that only tools/setup bench installs.

    Args:
      name: as given to tools/bench.
      **kwargs: of cc_binary.
    """
    native.cc_binary(
        name = name,
        testonly = True,
        tags = ["manual"],
        **kwargs
    )

def bench_library(name, **kwargs):
    """A library that needs what tools/setup bench installs.

    Args:
      name: of the library.
      **kwargs: of cc_library.
    """
    native.cc_library(
        name = name,
        testonly = True,
        tags = ["manual"],
        **kwargs
    )

def cc_grpc_sources(name, proto):
    """name.pb.{h,cc} and name.grpc.pb.{h,cc} of one proto file without imports.

    Args:
      name: of the proto file, without its ending.
      proto: the file.
    """
    native.genrule(
        name = name + "_sources",
        testonly = True,
        srcs = [proto],
        outs = [name + suffix for suffix in [".pb.h", ".pb.cc", ".grpc.pb.h", ".grpc.pb.cc"]],
        cmd = "$(execpath @com_google_protobuf//:protoc) --cpp_out=$(GENDIR) --grpc_out=$(GENDIR) " +
              "--plugin=protoc-gen-grpc=$(execpath @com_github_grpc_grpc//:grpc_cpp_plugin) -I. $<",
        tags = ["manual"],
        exec_tools = [
            "@com_github_grpc_grpc//:grpc_cpp_plugin",
            "@com_google_protobuf//:protoc",
        ],
    )
