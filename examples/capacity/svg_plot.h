// Line charts side by side, as SVG: just enough for the pictures in our documents.
#ifndef DYNLIB_EXAMPLES_CAPACITY_SVG_PLOT_H_
#define DYNLIB_EXAMPLES_CAPACITY_SVG_PLOT_H_

#include <string>
#include <vector>

namespace dynlib::examples {

struct PlotLine {
  std::string name;
  std::string color;           // as SVG names it
  std::vector<double> values;  // one for each x, from 0
};

struct PlotPanel {
  std::string title;
  std::vector<PlotLine> lines;
  double level = 0;  // a dashed horizontal line, named by level_name; 0: none
  std::string level_name;
};

// Two panels a row, all with the same axes. `title` and names are plain text.
std::string SvgPlot(const std::string& title, const std::string& x_name, const std::string& y_name,
                    const std::vector<PlotPanel>& panels);

}  // namespace dynlib::examples

#endif  // DYNLIB_EXAMPLES_CAPACITY_SVG_PLOT_H_
