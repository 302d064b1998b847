// The rules of the source tree that a compiler does not check, as a function from a file to its
// offences.
//
// A block includes dynlib/base and dynlib/runtime and nothing else of ours; so an include path
// tells the layer, and a service links the blocks that it needs and no others. What runs in the
// simulator takes its time, threads and randomness from what it is handed, so it names none of the
// system's.
#ifndef DYNLIB_TESTS_STRUCTURE_RULES_H_
#define DYNLIB_TESTS_STRUCTURE_RULES_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace dynlib::structure {

// The blocks of the design. A folder under dynlib/ that is neither one of these nor one of the
// other known layers is an offence of each of its files.
const std::vector<std::string>& Blocks();

struct SourceFile {
  std::string path;  // from the root, with slashes
  std::string contents;
};

// What is wrong with `file`, a sentence each, beginning with "path:line: ". `exists` says whether
// the tree has a file of that path; it is asked about includes.
std::vector<std::string> Offences(const SourceFile& file,
                                  const std::function<bool(std::string_view)>& exists);

}  // namespace dynlib::structure

#endif  // DYNLIB_TESTS_STRUCTURE_RULES_H_
