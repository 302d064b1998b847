"""Tests that a target's dependencies, near and far, stay within some folders."""

def deps_within_test(name, target, folders):
    """Fails when `target` depends on a target of dynlib, tests, examples or benchmarks outside `folders`.

    Args:
      name: of the test.
      target: the label whose transitive dependencies are listed.
      folders: such as "dynlib/base"; folders below them count as within.
    """
    native.genquery(
        name = name + "_offenders",
        testonly = True,
        expression = "filter('^//(dynlib|tests|examples|benchmarks)[/:]', deps(%s)) except filter('^//(%s)[/:]', deps(%s))" %
                     (target, "|".join(folders), target),
        scope = [target],
    )
    native.sh_test(
        name = name,
        size = "small",
        srcs = ["must_be_empty.sh"],
        args = [target, "$(rootpath :%s_offenders)" % name],
        data = [":%s_offenders" % name],
    )

def deps_outside_test(name, target, folder):
    """Fails when `target` does not depend on `folder`: shows that the query above sees dependencies at all.

    Args:
      name: of the test.
      target: the label whose transitive dependencies are listed.
      folder: such as "dynlib/base".
    """
    native.genquery(
        name = name + "_found",
        testonly = True,
        expression = "filter('^//%s[/:]', deps(%s))" % (folder, target),
        scope = [target],
    )
    native.sh_test(
        name = name,
        size = "small",
        srcs = ["must_not_be_empty.sh"],
        args = [target, folder, "$(rootpath :%s_found)" % name],
        data = [":%s_found" % name],
    )
