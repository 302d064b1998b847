// Lines over time as an SVG picture.
#ifndef DYNLIB_EXAMPLES_STORM_PLOT_H_
#define DYNLIB_EXAMPLES_STORM_PLOT_H_

#include <string>
#include <utility>
#include <vector>

namespace dynlib::storm {

struct Line {
  std::string name;
  std::string color;
  std::vector<double> values;  // at equal distances in time
};

struct Panel {
  std::string title;
  std::vector<double> marks;  // of the vertical axis, ascending; the first and last are its ends
  bool logarithmic = false;
  std::vector<Line> lines;
};

// Panels one below the other over `seconds` of time; `events` are times with what happened then.
std::string ToSvg(const std::string& title, double seconds,
                  const std::vector<std::pair<double, std::string>>& events,
                  const std::vector<Panel>& panels);

}  // namespace dynlib::storm

#endif  // DYNLIB_EXAMPLES_STORM_PLOT_H_
